//! `guest bench`: what the way to the host costs.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;
use shmbus::devices::clock::ClockKind;
use shmbus::devices::timer::TimerDriver;
use shmbus::devices::timer::device::role;
use shmbus::guest::{GuestClock, GuestEvent, clock_driver, exchange_counter, timer_driver};
use shmbus::shm::Mapped;
use shmbus::virtio::DeviceId;
use shmbus::{Guest, GuestError};

use super::find;
use crate::cli::error::CliError;

/// The timer that is set.
const SLOT: u32 = 0;
/// Long enough for a host that has nothing to do to go to sleep.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Readings of the clock in a row, whose average counts.
const BATCH: u32 = 1000;
/// The least sure time that is good enough to be read quickly.
const MAX_CLOCK_ERROR_NS: u64 = 100_000_000;

/// A time that was measured again and again, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figure {
    median_ns: u64,
    p99_ns: u64,
    rounds: usize,
    /// How often the host had to be rung.
    rung: u64,
}

impl Figure {
    fn of(mut times: Vec<Duration>, rung: u64) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100);
        let ns = |percent| at(percent).map_or(0, |time| time.as_nanos() as u64);
        Self {
            median_ns: ns(50),
            p99_ns: ns(99),
            rounds: times.len(),
            rung,
        }
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Figures {
    /// From setting a deadline that is already due to having its expiration, the host asleep before.
    doorbell: Figure,
    /// From a question in memory to its answer, one right after the other: the host is awake.
    polling: Figure,
    /// A reading of the bus's clock.
    clock_read: Figure,
}

pub(super) fn run(guest: &mut Guest, rounds: u32, json: bool) -> Result<(), CliError> {
    let clock = find(guest, DeviceId::CLOCK)?;
    let timer = find(guest, DeviceId::TIMER)?;
    let figures = Figures {
        doorbell: doorbell(guest, timer, rounds)?,
        polling: polling(guest, clock, rounds)?,
        clock_read: clock_read(guest, clock, rounds)?,
    };
    let mut out = io::stdout();
    if json {
        let text = serde_json::to_string(&figures).map_err(io::Error::from);
        return text
            .and_then(|text| writeln!(out, "{text}"))
            .map_err(CliError::Output);
    }
    writeln!(
        out,
        "                                            median (us)   p99 (us)     rounds   rung"
    )
    .and_then(|()| {
        show(
            &mut out,
            "a deadline that is due, set and seen",
            &figures.doorbell,
        )
    })
    .and_then(|()| {
        show(
            &mut out,
            "a question in memory, until its answer",
            &figures.polling,
        )
    })
    .and_then(|()| show(&mut out, "a reading of the clock", &figures.clock_read))
    .map_err(CliError::Output)
}

fn show(out: &mut impl Write, what: &str, figure: &Figure) -> io::Result<()> {
    writeln!(
        out,
        "{what:<42} {:>12.3} {:>10.3} {:>10} {:>6}",
        figure.median_ns as f64 / 1000.0,
        figure.p99_ns as f64 / 1000.0,
        figure.rounds,
        figure.rung
    )
}

/// Doorbells both ways: the host is rung for the deadline, this guest for the expiration.
fn doorbell(guest: &mut Guest, device: u32, rounds: u32) -> Result<Figure, CliError> {
    let mut timer = timer_driver(guest, device)?;
    let mut times = Vec::with_capacity(rounds as usize);
    let before = guest.counts().sent;
    for round in 0..rounds {
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        // Any time that is past, and not the one before.
        let notify = timer.set(SLOT, u64::from(round) + 1)?;
        guest.signal(device, role::DEADLINES, notify);
        await_expiration(guest, device, &mut timer, began)?;
        times.push(began.elapsed());
    }
    Ok(Figure::of(times, guest.counts().sent - before))
}

fn await_expiration(
    guest: &mut Guest,
    device: u32,
    timer: &mut TimerDriver<Mapped>,
    began: Instant,
) -> Result<(), CliError> {
    let mut fired = false;
    while !fired {
        let left = PATIENCE.saturating_sub(began.elapsed());
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
        let notify = timer.poll(|_| fired = true)?;
        guest.signal(device, role::DEADLINES, notify);
    }
    Ok(())
}

fn polling(guest: &mut Guest, device: u32, rounds: u32) -> Result<Figure, CliError> {
    let mut driver = clock_driver(guest, device)?;
    let mut times = Vec::with_capacity(rounds as usize);
    let before = guest.counts().sent;
    for _ in 0..rounds {
        let began = Instant::now();
        exchange_counter(guest, device, &mut driver)?;
        times.push(began.elapsed());
    }
    Ok(Figure::of(times, guest.counts().sent - before))
}

fn clock_read(guest: &mut Guest, device: u32, rounds: u32) -> Result<Figure, CliError> {
    let mut clock = GuestClock::new(guest, device, MAX_CLOCK_ERROR_NS)?;
    let mut times = Vec::with_capacity(rounds as usize);
    for _ in 0..rounds {
        // What must be estimated is estimated here, and not while it is measured.
        clock.now(guest, ClockKind::Monotonic)?;
        let reader = clock.reader();
        let began = Instant::now();
        for _ in 0..BATCH {
            std::hint::black_box(reader.now(ClockKind::Monotonic)?);
        }
        times.push(began.elapsed() / BATCH);
    }
    Ok(Figure::of(times, 0))
}
