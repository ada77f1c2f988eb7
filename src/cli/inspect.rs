//! `shmbus inspect`: a running bus, seen by a third party.

use std::io::{self, IsTerminal, Write};
use std::thread;

use shmbus::inspect::{self, BusView, GuestView, LineView, Place, RingView, SideView};

use super::args::{InspectArgs, InspectPlace};
use super::error::CliError;

/// Back to the terminal's first line.
const HOME: &str = "\x1b[H";
/// Erases what is left of a line, and what is left of the screen.
const ERASE_LINE: &str = "\x1b[K";
const ERASE_REST: &str = "\x1b[J";

pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let InspectPlace { socket, file, pci } = &args.place;
    let place = match (socket, file, pci) {
        (Some(path), ..) => Place::Socket(path),
        (_, Some(path), _) => Place::File(path),
        (.., Some(address)) => Place::Function(*address),
        // The command line has one of them.
        (None, None, None) => return Err(CliError::NoPlace),
    };
    let mut out = io::stdout().lock();
    let in_place = out.is_terminal() && !args.json;
    loop {
        let bus = inspect::look_at(place)?;
        let view = if args.json {
            serde_json::to_string(&bus)
                .map(|object| object + "\n")
                .map_err(io::Error::from)
        } else {
            text(&bus, args.watch.is_some())
        };
        let view = view.map_err(CliError::Output)?;
        let shown = match args.watch {
            Some(_) if in_place => out.write_all(over_the_last(&view).as_bytes()),
            _ => out.write_all(view.as_bytes()),
        };
        shown.and_then(|()| out.flush()).map_err(CliError::Output)?;
        match args.watch {
            Some(period) => thread::sleep(period),
            None => return Ok(()),
        }
    }
}

/// What draws a view over the one that is on the screen: a screen that is cleared first flickers.
fn over_the_last(view: &str) -> String {
    let lines = view.replace('\n', &format!("{ERASE_LINE}\n"));
    format!("{HOME}{lines}{ERASE_REST}")
}

/// The view for people; of what lies still, nothing if only what moves is wanted.
fn text(bus: &BusView, only_moving: bool) -> io::Result<String> {
    let mut text = Vec::new();
    print(&mut text, bus, only_moving)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn print(out: &mut impl Write, bus: &BusView, only_moving: bool) -> io::Result<()> {
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
        writeln!(out, "\nguest {} ({})", guest.session, guest.name)?;
        print_rings(out, &guest.rings)?;
        if !only_moving {
            print_guest(out, guest)?;
        }
    }
    Ok(())
}

fn print_rings(out: &mut impl Write, rings: &[RingView]) -> io::Result<()> {
    if rings.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  ring                                        driver               |         device               |      lag\n  \
         device  queue       format            size  available     used in flight | available     used in flight | available  used"
    )?;
    for ring in rings {
        let lag = |lag: Option<u16>| lag.map_or("-".to_owned(), |lag| lag.to_string());
        writeln!(
            out,
            "  {:>6}  {:<10}  {:<14} {:>7}  {} | {} | {:>9} {:>5}",
            ring.device,
            ring.queue,
            ring.kind,
            ring.size,
            side(ring, ring.driver_positions),
            side(ring, ring.device_positions),
            lag(ring.available_lag),
            lag(ring.used_lag)
        )?;
    }
    Ok(())
}

/// A side's positions, OFFSET/WRAP where they carry a wrap counter.
fn side(ring: &RingView, side: Option<SideView>) -> String {
    let position = |position| match ring.kind.parts(position) {
        (offset, Some(wrap)) => format!("{offset}/{}", u8::from(wrap)),
        (offset, None) => offset.to_string(),
    };
    let [available, used, in_flight] = match side {
        Some(side) => [
            position(side.available),
            position(side.used),
            side.in_flight.to_string(),
        ],
        None => ["-"; 3].map(str::to_owned),
    };
    format!("{available:>9} {used:>8} {in_flight:>9}")
}

fn print_guest(out: &mut impl Write, guest: &GuestView) -> io::Result<()> {
    for device in guest.devices.iter().filter(|device| device.status != 0) {
        writeln!(
            out,
            "  device {:>5}  {:<6} status {:#04x}, features {}, private features {}",
            device.device, device.kind, device.status, device.features, device.private_features
        )?;
    }
    for timer in &guest.timers {
        let show = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| ns.to_string());
        writeln!(
            out,
            "  timer  {:>5}.{}.{:<4} set {} times; deadline {} ns, last expired {} ns",
            timer.device,
            timer.vcpu,
            timer.slot,
            timer.set,
            show(timer.deadline_ns),
            show(timer.expired_ns)
        )?;
    }
    // A line that was only unmasked has nothing to show.
    let moved =
        |line: &&LineView| line.edges > 0 || line.raised > 0 || line.asserted || line.drives;
    for line in guest.lines.iter().filter(moved) {
        let is = |yes: bool, what: &'static str| if yes { what } else { "" };
        writeln!(
            out,
            "  line   {:>5}.{:<4} {} edges, {} delivered in {} interrupts, {} ended; raised {}{}{}{}{}",
            line.device,
            line.line,
            line.edges,
            line.claimed,
            line.deliveries,
            line.ended,
            line.raised,
            is(line.asserted, ", up"),
            is(line.drives, ", held up"),
            is(line.in_service, ", in service"),
            is(!line.enabled, ", masked")
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

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus::ring::RingKind;
    use shmbus::shm::RingFormat;

    #[test]
    fn a_shorter_view_leaves_nothing_of_a_longer_one() {
        let drawn = over_the_last("one\ntwo\n");
        assert_eq!(drawn, "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J");
    }

    #[test]
    fn positions_show_their_wrap_counter_if_they_have_one() {
        let positions = SideView {
            available: 0x8003,
            used: 2,
            in_flight: 4,
        };
        let mut ring = RingView {
            device: 0,
            queue: "receiveq1",
            kind: RingKind::plain(RingFormat::Packed),
            size: 5,
            driver_positions: None,
            device_positions: None,
            available_lag: None,
            used_lag: None,
        };
        let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(side(&ring, Some(positions))), "3/1 2/0 4");
        ring.kind = RingKind::in_order(RingFormat::Split);
        assert_eq!(words(side(&ring, Some(positions))), "32771 2 4");
        assert_eq!(words(side(&ring, None)), "- - -");
    }
}
