//! How long the slowest of a thousand reads takes while another process writes without pause.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant};

use shmbus_benches::{Companion, Comparison, Contender, Session, SetUpError};
use shmbus_devices::clock::{Counter, Ticks};
use shmbus_shm::{Access, Field, Mapped, SharedMemory, Writers};

use super::blackboard::{Board, unused_name};
use super::{ICEORYX2, OURS, Read, Write, slot};

/// A writer that waits for a line goes through several values at once when it comes: more copies survive that.
const COPIES: usize = slot::MOST_COPIES;

/// Values that are read in a repetition: twenty of them are slower than the figure.
const VALUES: u64 = 20_000;

/// A reader that has no value for so long is starved: the writer stops, so that it comes to an end.
const LIMIT: Duration = Duration::from_millis(400);

/// Writes between two looks at the clock.
const WRITES: u32 = 1024;

pub(super) fn comparison<const N: usize>(bench: &'static str) -> Comparison {
    Comparison::new(
        bench,
        "the time to a value, of the slowest of 1,000 reads, while another process writes without pause",
        move || Ok(vec![ours::<N>(bench)?, iceoryx2::<N>(bench)?]),
    )
    .with_companions(companion::<N>)
}

fn ours<const N: usize>(bench: &str) -> Result<Contender, SetUpError> {
    let (memory, control) = (slot::memory(N)?, control_memory()?);
    let descriptors = [control.as_fd(), memory.as_fd()];
    let companion = Companion::spawn(bench, OURS, "", &descriptors)?;
    reading(
        OURS,
        companion,
        Control::new(&control)?,
        slot::Reader::<N, COPIES>::new(&memory)?,
    )
}

fn iceoryx2<const N: usize>(bench: &str) -> Result<Contender, SetUpError> {
    let name = unused_name();
    let (board, control) = (Board::<N>::create(&name)?, control_memory()?);
    let companion = Companion::spawn(bench, ICEORYX2, &name, &[control.as_fd()])?;
    reading(
        ICEORYX2,
        companion,
        Control::new(&control)?,
        board.reader()?,
    )
}

fn companion<const N: usize>(session: Session) -> Result<(), SetUpError> {
    let memory = SharedMemory::from_peer(session.descriptor(0)?, BYTES, Access::ReadWrite)?;
    let control = Control::new(&memory)?;
    if session.contender == ICEORYX2 {
        let board = Board::<N>::open(&session.note)?;
        let writing = writing(control, board.writer()?);
        return session.serve(writing);
    }
    let memory = slot::peers_memory(session.descriptor(1)?, N, Access::ReadWrite)?;
    let writing = writing(control, slot::Writer::<N, COPIES>::new(&memory)?);
    session.serve(writing)
}

/// Tells the writer when to stop, and the reader that the writer has stopped by itself.
struct Control {
    /// How many repetitions the reader has ended.
    ended: Field<u64, Mapped>,
    /// How many the writer has begun, and not yet left.
    writing: Field<u64, Mapped>,
}

const BYTES: u64 = 4096;

fn control_memory() -> Result<SharedMemory, SetUpError> {
    Ok(SharedMemory::create("bench", BYTES, Writers::Everybody)?)
}

impl Control {
    fn new(memory: &SharedMemory) -> Result<Self, SetUpError> {
        Ok(Self {
            ended: Field::new(memory.window(), 0)?,
            writing: Field::new(memory.window(), 256)?,
        })
    }
}

/// Writes until the reader has what it wants, or is starved.
fn writing(control: Control, mut writer: impl Write) -> impl FnMut(u64) {
    let (mut serial, mut first) = (0, 0);
    move |_| {
        serial += 1;
        let start = Instant::now();
        first += 1;
        writer.write(first);
        control.writing.store(serial, Release);
        while start.elapsed() < LIMIT && control.ended.load(Relaxed) < serial {
            for _ in 0..WRITES {
                first += 1;
                writer.write(first);
                if control.ended.load(Relaxed) >= serial {
                    break;
                }
            }
        }
        control.writing.store(0, Release);
    }
}

fn reading(
    name: &'static str,
    mut companion: Companion,
    control: Control,
    mut reader: impl Read + 'static,
) -> Result<Contender, SetUpError> {
    let counter = Counter::detect();
    let nanoseconds = super::nanoseconds_of_a_tick(&counter);
    let misses = Arc::new(atomic::AtomicU64::new(0));
    let missed = misses.clone();
    let mut serial = 0;
    let mut times = Vec::with_capacity(VALUES as usize);
    let run = move |operations: u64| {
        serial += 1;
        times.clear();
        companion.beside(operations, || {
            while control.writing.load(Acquire) < serial {}
            let mut before = counter.now();
            for _ in 0..operations {
                while reader.read().is_none() {
                    missed.fetch_add(1, Relaxed);
                }
                let now = counter.now();
                times.push(now - before);
                before = now;
                if control.writing.load(Relaxed) < serial {
                    // The writer gave up before this value came: it is a late one, and there are no more.
                    missed.fetch_add(1, Relaxed);
                    break;
                }
            }
            control.ended.store(serial, Release);
        });
        let rank = (times.len() * 999 / 1000).min(times.len() - 1);
        let (_, slow, _) = times.select_nth_unstable(rank);
        // As if each took so long: what is compared is this, not the sum.
        Duration::from_nanos((*slow as f64 * nanoseconds * operations as f64) as u64)
    };
    Ok(Contender {
        misses,
        operations: Some(VALUES),
        ..Contender::new(name, run)
    })
}
