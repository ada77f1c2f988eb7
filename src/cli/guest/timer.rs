//! `guest timer`: deadlines that supersede each other, and how late those fire that are left.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use shmbus::devices::clock::ClockKind;
use shmbus::devices::lane::OutletError;
use shmbus::devices::timer::device::role;
use shmbus::devices::timer::{LatenessHistogram, TimerDriver};
use shmbus::guest::{GuestClock, GuestEvent, timer_driver};
use shmbus::shm::Mapped;
use shmbus::virtio::DeviceId;
use shmbus::{Guest, GuestError};

use super::find;
use crate::cli::error::CliError;

/// The timer that is set.
const SLOT: u32 = 0;

/// How long an expiration may be overdue.
const PATIENCE: Duration = Duration::from_secs(5);

/// With how sure a time deadlines are set at least, where this guest must estimate its counter.
const MAX_CLOCK_ERROR_NS: u64 = 10_000_000;

pub(super) fn run(guest: &mut Guest, count: u32, ahead_us: u64) -> Result<(), CliError> {
    let clock = find(guest, DeviceId::CLOCK)?;
    let mut clock = GuestClock::new(guest, clock, MAX_CLOCK_ERROR_NS)?;
    let device = find(guest, DeviceId::TIMER)?;
    let mut timer = timer_driver(guest, device)?;

    let mut seen = LatenessHistogram::default();
    let mut host = LatenessHistogram::default();
    for _ in 0..count {
        let now = clock.now(guest, ClockKind::Monotonic)?.time_ns;
        // The first deadline is X; before it comes, the deadline is Y. Only Y may fire.
        let deadline = now.saturating_add(ahead_us.saturating_mul(1000));
        for at in [deadline.saturating_add(1_000_000_000), deadline] {
            set(guest, &mut timer, device, at)?;
        }
        let overdue = Instant::now() + Duration::from_micros(ahead_us) + PATIENCE;
        let mut fired = None;
        while fired.is_none() {
            let left = overdue.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CliError::TimerSilent {
                    seconds: PATIENCE.as_secs(),
                });
            }
            guest.wait(Some(left))?;
            while let Some(event) = guest.next_event() {
                if let GuestEvent::HostGone(reason) = event {
                    return Err(GuestError::HostGone(reason).into());
                }
            }
            let notify = timer.poll(|expiration| fired = Some(expiration))?;
            guest.signal(device, role::DEADLINES, notify);
        }
        let now = clock.now(guest, ClockKind::Monotonic)?.time_ns;
        if let Some(fired) = fired {
            host.record(fired.fired_ns.saturating_sub(fired.deadline_ns));
            seen.record(now.saturating_sub(fired.deadline_ns));
        }
    }
    let counters = timer.counters();
    let mut out = io::stdout();
    writeln!(
        out,
        "{} deadlines set, {} superseded, {} fired, {} answers to older deadlines discarded",
        counters.set, counters.superseded, counters.fired, counters.discarded
    )
    .and_then(|()| show(&mut out, "the host fired", &host))
    .and_then(|()| show(&mut out, "this guest saw it", &seen))
    .map_err(CliError::Output)
}

/// Sets the timer. A twin's ring may be full: then the host says when there is room.
fn set(
    guest: &mut Guest,
    timer: &mut TimerDriver<Mapped>,
    device: u32,
    at_ns: u64,
) -> Result<(), CliError> {
    let overdue = Instant::now() + PATIENCE;
    loop {
        match timer.set(SLOT, at_ns) {
            Err(OutletError::Full) if Instant::now() < overdue => {
                guest.wait(Some(PATIENCE))?;
                while let Some(event) = guest.next_event() {
                    if let GuestEvent::HostGone(reason) = event {
                        return Err(GuestError::HostGone(reason).into());
                    }
                }
                let notify = timer.poll(|_| {})?;
                guest.signal(device, role::DEADLINES, notify);
            }
            outcome => {
                guest.signal(device, role::DEADLINES, outcome?);
                return Ok(());
            }
        }
    }
}

fn show(out: &mut impl Write, what: &str, late: &LatenessHistogram) -> io::Result<()> {
    let micros = |percent| late.percentile_ns(percent).unwrap_or(0) as f64 / 1000.0;
    writeln!(
        out,
        "{what:<18} late by {:>8.1} us (median) {:>8.1} us (p90) {:>8.1} us (p99) {:>8.1} us (most)",
        micros(50.0),
        micros(90.0),
        micros(99.0),
        late.max_ns() as f64 / 1000.0
    )
}
