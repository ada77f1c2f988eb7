//! `shmbus inspect`: a running bus, seen by a third party.

use shmbus::inspect::{self, BusView, GuestView};

use super::args::InspectArgs;
use super::error::CliError;

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let bus = inspect::look(&args.socket)?;
    if args.json {
        let text = serde_json::to_string(&bus).map_err(|error| CliError::Output(error.into()))?;
        println!("{text}");
    } else {
        print(&bus);
    }
    Ok(())
}

fn print(bus: &BusView) {
    let totals = &bus.totals;
    println!(
        "bus      {} guest(s) now, {} ever; the host sent {} signals and suppressed {}",
        totals.guests, totals.guests_ever, totals.signals_sent, totals.signals_suppressed
    );
    println!("\ndevices");
    for device in &bus.devices {
        let counters: Vec<_> = device
            .counters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        println!(
            "  {:>5}  {:<6} {}",
            device.device,
            device.kind,
            counters.join(", ")
        );
        for clock in &device.clocks {
            println!(
                "         {:<9} {} ns at counter {}, within {} ns; now {}",
                clock.clock,
                clock.time_ns,
                clock.counter,
                clock.error_ns,
                clock
                    .now_ns
                    .map_or("unknown".to_owned(), |now| format!("{now} ns"))
            );
        }
    }
    for guest in &bus.guests {
        print_guest(guest);
    }
}

fn print_guest(guest: &GuestView) {
    println!("\nguest {} ({})", guest.session, guest.name);
    for device in guest.devices.iter().filter(|device| device.status != 0) {
        println!(
            "  device {:>5}  {:<6} status {:#04x}, features {}",
            device.device, device.kind, device.status, device.features
        );
    }
    for ring in &guest.rings {
        println!(
            "  ring   {:>5}  {:<10} size {:>5}  available {:>5}  used {:>5}  in flight {:>5}  lag {:>5}",
            ring.device,
            ring.queue,
            ring.size,
            ring.available,
            ring.used,
            ring.in_flight,
            ring.lag.map_or("-".to_owned(), |lag| lag.to_string())
        );
    }
    for timer in &guest.timers {
        let show = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| ns.to_string());
        println!(
            "  timer  {:>5}.{:<4} set {} times; deadline {} ns, last expired {} ns",
            timer.device,
            timer.slot,
            timer.set,
            show(timer.deadline_ns),
            show(timer.expired_ns)
        );
    }
    println!("  directory of {} regions", guest.regions.len());
    println!("      id device role  memory      offset       bytes  class channel  what");
    for region in &guest.regions {
        println!(
            "  {:>6} {:>6} {:#04x}  {:<6} {:#11x} {:>11}  {:>5} {:>7}  {}",
            region.id,
            region
                .device
                .map_or("bus".to_owned(), |device| device.to_string()),
            region.role,
            region.memory,
            region.offset,
            region.bytes,
            region.class,
            region
                .channel
                .map_or("-".to_owned(), |channel| format!("{:#x}", channel)),
            region.kind
        );
    }
}
