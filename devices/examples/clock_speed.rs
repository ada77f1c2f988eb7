//! What reading the clock costs beside `clock_gettime`, which the vDSO answers: a ratio of medians of interleaved rounds.

use std::hint::black_box;
use std::time::Instant;

use shmbus_devices::clock::{
    ClockKind, ClockPublisher, ClockReader, Counter, DisciplineLimits, HostClocks, Ticks,
    clock_table, monotonic_ns,
};

const ROUNDS: usize = 300;
const CALLS: u32 = 5_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let window = shmbus_shm::heap(clock_table()?.bytes());
    let counter = Counter::detect();
    let clocks = HostClocks::calibrate(counter, DisciplineLimits::default())?;
    let mut host = ClockPublisher::new(window.clone(), clocks)?;
    let mut guest = ClockReader::local(window)?;
    let mut rounds = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let _ = host.publish()?;
        rounds[0].push(time(|| {
            black_box(counter.now());
        }));
        rounds[1].push(time(|| {
            black_box(monotonic_ns());
        }));
        rounds[2].push(time(|| {
            let _ = black_box(guest.now(ClockKind::Monotonic));
        }));
    }
    let [counter, vdso, clock] = rounds.map(|mut round| {
        round.sort_by(f64::total_cmp);
        round[round.len() / 2]
    });
    println!("ordered counter read  {counter:6.2} ns");
    println!("clock_gettime (vDSO)  {vdso:6.2} ns");
    println!("ClockReader::now      {clock:6.2} ns");
    println!("ratio                 {:6.3}", clock / vdso);
    Ok(())
}

/// Nanoseconds a call.
fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}
