//! `shmbus inspect`: a running bus, seen by a third party.

use std::io::{self, Write};

use shmbus::inspect::{self, BusView, GuestView};

use super::args::InspectArgs;
use super::error::CliError;

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let bus = inspect::look(&args.socket)?;
    let mut out = io::stdout().lock();
    if args.json {
        let text = serde_json::to_string(&bus).map_err(|error| CliError::Output(error.into()))?;
        writeln!(out, "{text}")
    } else {
        print(&mut out, &bus)
    }
    .map_err(CliError::Output)
}

fn print(out: &mut impl Write, bus: &BusView) -> io::Result<()> {
    let totals = &bus.totals;
    writeln!(
        out,
        "bus      {} guest(s) now, {} ever; the host sent {} signals and suppressed {}",
        totals.guests, totals.guests_ever, totals.signals_sent, totals.signals_suppressed
    )?;
    writeln!(out, "\ndevices")?;
    for device in &bus.devices {
        let counters: Vec<_> = device
            .counters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        writeln!(
            out,
            "  {:>5}  {:<6} {}",
            device.device,
            device.kind,
            counters.join(", ")
        )?;
        for clock in &device.clocks {
            writeln!(
                out,
                "         {:<9} {} ns at counter {}, within {} ns; now {}",
                clock.clock,
                clock.time_ns,
                clock.counter,
                clock.error_ns,
                clock
                    .now_ns
                    .map_or("unknown".to_owned(), |now| format!("{now} ns"))
            )?;
        }
    }
    for guest in &bus.guests {
        print_guest(out, guest)?;
    }
    Ok(())
}

fn print_guest(out: &mut impl Write, guest: &GuestView) -> io::Result<()> {
    writeln!(out, "\nguest {} ({})", guest.session, guest.name)?;
    for device in guest.devices.iter().filter(|device| device.status != 0) {
        writeln!(
            out,
            "  device {:>5}  {:<6} status {:#04x}, features {}",
            device.device, device.kind, device.status, device.features
        )?;
    }
    for ring in &guest.rings {
        writeln!(
            out,
            "  ring   {:>5}  {:<10} size {:>5}  available {:>5}  used {:>5}  in flight {:>5}  lag {:>5}",
            ring.device,
            ring.queue,
            ring.size,
            ring.available,
            ring.used,
            ring.in_flight,
            ring.lag.map_or("-".to_owned(), |lag| lag.to_string())
        )?;
    }
    for timer in &guest.timers {
        let show = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| ns.to_string());
        writeln!(
            out,
            "  timer  {:>5}.{:<4} set {} times; deadline {} ns, last expired {} ns",
            timer.device,
            timer.slot,
            timer.set,
            show(timer.deadline_ns),
            show(timer.expired_ns)
        )?;
    }
    writeln!(out, "  directory of {} regions", guest.regions.len())?;
    writeln!(
        out,
        "      id device role  memory      offset       bytes  class channel  what"
    )?;
    for region in &guest.regions {
        writeln!(
            out,
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
        )?;
    }
    Ok(())
}
