//! What the two crates cost, side by side: each round opens the function by one and then by the other.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use shmbus_shm::{Mapped, SharedMemory, Writers};
use shmbus_transports::pci::{AccessError, Address, Registers};
use shmbus_transports::vfio::{PciDriverFunction, VfioFunction};

use super::edu::{ACKNOWLEDGE, Edu, LIVENESS, RAISE};
use super::{Checked, Passed, bar_0, ensure, fill};

const ROUNDS: usize = 5;
/// Accesses between two looks at the clock.
const BATCH: u32 = 100;
const BATCHES: u32 = 30;
const INTERRUPTS: u32 = 200;
const MAPPINGS: u32 = 60;

/// Nanoseconds, by what was done and by which crate.
type Figures = BTreeMap<(&'static str, &'static str), Vec<u64>>;

pub(super) fn run(address: Address) -> Checked {
    // The same pages for both: how they lie in physical memory decides what it costs to map them.
    let small = SharedMemory::create("small", 4096, Writers::Everybody)?;
    let large = SharedMemory::create("large", 2 << 20, Writers::Everybody)?;
    fill(small.window(), 1)?;
    fill(large.window(), 1)?;
    let memories = [
        ("map 4 KiB", "unmap 4 KiB", small.window()),
        ("map 2 MiB", "unmap 2 MiB", large.window()),
    ];
    let mut figures = Figures::new();
    for _ in 0..ROUNDS {
        round::<VfioFunction>(address, &memories, &mut figures)?;
        round::<PciDriverFunction>(address, &memories, &mut figures)?;
    }
    for ((what, by), mut found) in figures {
        found.sort_unstable();
        let at = |part: usize| found[(found.len() - 1) * part / 100];
        println!(
            "figure: {what} | {by} | {} | {} | {}",
            at(50),
            at(10),
            at(90)
        );
    }
    Ok(())
}

fn round<F: Passed>(
    address: Address,
    memories: &[(&'static str, &'static str, &Mapped)],
    figures: &mut Figures,
) -> Checked {
    let edu = Edu::<F>::open(address)?;
    let mut note = |what, nanoseconds: Vec<u64>| {
        figures
            .entry((what, F::CRATE))
            .or_default()
            .extend(nanoseconds);
    };
    let unmapped = edu.function.unmapped_bar(bar_0()?)?;
    ensure(F::are_mapped(&edu.registers), "the BAR is not mapped")?;
    let config = edu.function.config()?;
    note(
        "read of a register, mapped",
        batches(|| edu.registers.read_u32(LIVENESS))?,
    );
    note(
        "read of a register, by system call",
        batches(|| unmapped.read_u32(LIVENESS))?,
    );
    note(
        "write of a register, mapped",
        batches(|| edu.registers.write_u32(LIVENESS, 7))?,
    );
    note(
        "write of a register, by system call",
        batches(|| unmapped.write_u32(LIVENESS, 7))?,
    );
    note(
        "read of configuration space",
        batches(|| config.read_u32(0))?,
    );
    note("interrupt, polled", polled(&edu)?);
    note("interrupt, blocked", blocked(&edu)?);

    let memory = edu.function.memory();
    for (map, unmap, window) in memories {
        let (mut mapped, mut unmapped) = (Vec::new(), Vec::new());
        for _ in 0..MAPPINGS {
            let start = Instant::now();
            let region = memory.map(window)?;
            mapped.push(nanoseconds(start));
            let start = Instant::now();
            drop(region);
            unmapped.push(nanoseconds(start));
        }
        note(map, mapped);
        note(unmap, unmapped);
    }
    Ok(())
}

fn nanoseconds(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

/// How long an access takes, on average over each batch.
fn batches<T>(mut access: impl FnMut() -> Result<T, AccessError>) -> Checked<Vec<u64>> {
    let mut figures = Vec::new();
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..BATCH {
            black_box(access()?);
        }
        figures.push(nanoseconds(start) / u64::from(BATCH));
    }
    Ok(figures)
}

/// From the write that raises an interrupt until its eventfd is found to be signalled.
fn polled<F: Passed>(edu: &Edu<F>) -> Checked<Vec<u64>> {
    let mut figures = Vec::new();
    for _ in 0..INTERRUPTS {
        let start = Instant::now();
        edu.registers.write_u32(RAISE, 1)?;
        while !edu.waiter.drain()? {
            ensure(start.elapsed() < Duration::from_secs(20), "no interrupt")?;
        }
        figures.push(nanoseconds(start));
        edu.registers.write_u32(ACKNOWLEDGE, 1)?;
    }
    Ok(figures)
}

/// From the write until a thread that is blocked runs.
fn blocked<F: Passed>(edu: &Edu<F>) -> Checked<Vec<u64>> {
    let (waiter, done) = (&edu.waiter, AtomicBool::new(false));
    let (woken, wakings) = mpsc::channel();
    scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if waiter
                    .wait(Some(Duration::from_millis(100)))
                    .unwrap_or(false)
                {
                    // Nobody listens any more when something has failed.
                    let _ = woken.send(Instant::now());
                }
            }
        });
        let figures = raise(edu, &wakings);
        done.store(true, Ordering::Relaxed);
        figures
    })
}

fn raise<F: Passed>(edu: &Edu<F>, wakings: &mpsc::Receiver<Instant>) -> Checked<Vec<u64>> {
    let mut figures = Vec::new();
    for _ in 0..INTERRUPTS {
        // Until the thread waits again.
        sleep(Duration::from_millis(2));
        let start = Instant::now();
        edu.registers.write_u32(RAISE, 1)?;
        let woken = wakings.recv_timeout(Duration::from_secs(20))?;
        figures.push(woken.duration_since(start).as_nanos() as u64);
        edu.registers.write_u32(ACKNOWLEDGE, 1)?;
    }
    Ok(figures)
}
