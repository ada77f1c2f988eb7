//! A value of which the latest counts: ours beside `seqlock` and iceoryx2's blackboard.
//!
//! Each contender is used as it is meant: ours as a slot of a table, in a memfd that the reader maps read-only;
//! iceoryx2's as an entry of a blackboard in its shared memory; `seqlock`'s lock, which only a process can share, on
//! the heap. Reading yields a whole value, and every poll is such a read. Each writer publishes, beside the value,
//! what its readers need: ours also the generation tree, which the others do not have.

use std::array;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use iceoryx2::prelude::{NodeBuilder, ServiceName, ipc};
use seqlock::SeqLock;
use shmbus_benches::{Comparison, Contender, Partner, SetUpError};
use shmbus_shm::{Access, SharedMemory, Writers};
use shmbus_table::{Epoch, TableLayout, TableReader, TableWriter};

/// All that there is.
pub(crate) fn all() -> Vec<Comparison> {
    vec![
        Comparison::new(
            "table/write-64",
            "one thread writes a value of 64 bytes; ours also marks its generation tree",
            writes,
        ),
        Comparison::new(
            "table/read-64",
            "one thread reads a value of 64 bytes that nobody is writing",
            reads,
        ),
        Comparison::new(
            "table/one-way-8",
            "a value of 8 bytes from core to core, by half a round trip",
            one_way::<1>,
        ),
        Comparison::new(
            "table/one-way-64",
            "a value of 64 bytes from core to core, by half a round trip",
            one_way::<8>,
        ),
        Comparison::new(
            "table/one-way-4096",
            "a value of 4096 bytes from core to core, by half a round trip",
            one_way::<512>,
        ),
    ]
}

/// Writes a value that begins with the word it gets.
trait Write: FnMut(u64) + Send + 'static {}
impl<F: FnMut(u64) + Send + 'static> Write for F {}

/// Reads the whole value and returns its first word.
trait Read: FnMut() -> u64 + Send + 'static {}
impl<F: FnMut() -> u64 + Send + 'static> Read for F {}

/// Slots of our table; the first is used.
const SLOTS: u32 = 64;

fn ours<const N: usize>() -> Result<(impl Write, impl Read), SetUpError> {
    let layout = TableLayout::new(SLOTS, 8 * N as u32)?;
    let bytes = layout.bytes() as u64;
    let memory = SharedMemory::create("bench", bytes, Writers::Creator)?;
    let descriptor = memory.as_fd().try_clone_to_owned()?;
    let peer = SharedMemory::from_peer(descriptor, bytes, Access::Read)?;

    let storage = || vec![0; SLOTS as usize];
    let window = memory.window().clone();
    let mut writer = TableWriter::create(window, layout, 0, Epoch::FIRST, storage())?;
    let mut value = [0; N];
    let _ = writer.publish(0, &value)?;
    let mut reader = TableReader::attach(peer.window().clone(), storage(), storage())?;
    let write = move |first| {
        value[0] = first;
        let published = writer.publish(0, black_box(&value));
        let _ = black_box(published.expect("the slot exists"));
    };
    let mut found = [0; N];
    let read = move || {
        let generation = reader.read(0, &mut found);
        black_box(generation.expect("the writer lives, and laps no reader"));
        black_box(&found)[0]
    };
    Ok((write, read))
}

fn blackboard<const N: usize>() -> Result<(impl Write, impl Read), SetUpError> {
    static BOARDS: AtomicU32 = AtomicU32::new(0);
    let number = BOARDS.fetch_add(1, Ordering::Relaxed);
    let name = ServiceName::new(&format!("shmbus-benches/{}/{number}", process::id()))?;
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let board = node
        .service_builder(&name)
        .blackboard_creator::<u64>()
        .add::<[u64; N]>(0, [0; N])
        .create()?;
    let writer = board.writer_builder().create()?.entry::<[u64; N]>(&0)?;
    let reader = board.reader_builder().create()?.entry::<[u64; N]>(&0)?;
    let mut value = [0; N];
    let write = move |first| {
        value[0] = first;
        writer.update_with_copy(*black_box(&value));
    };
    let read = move || black_box(&*reader.get())[0];
    Ok((write, read))
}

fn seqlock<const N: usize>() -> (impl Write, impl Read) {
    let lock = Arc::new(SeqLock::new([0; N]));
    let reader = lock.clone();
    let mut value = [0; N];
    let write = move |first| {
        value[0] = first;
        *lock.lock_write() = *black_box(&value);
    };
    let read = move || black_box(&reader.read())[0];
    (write, read)
}

const OURS: &str = "shmbus";
const SEQLOCK: &str = "seqlock";
const ICEORYX2: &str = "iceoryx2";

/// One thread writes 64 bytes.
fn writes() -> Result<Vec<Contender>, SetUpError> {
    shmbus_benches::pin_to_first_processor()?;
    // The readers stay alive: a channel that nobody reads might be cheaper to write.
    fn writing(name: &'static str, (mut write, read): (impl Write, impl Read)) -> Contender {
        Contender::new(name, move |operations| {
            let _ = &read;
            let start = Instant::now();
            for first in 0..operations {
                write(first);
            }
            start.elapsed()
        })
    }
    Ok(vec![
        writing(OURS, ours::<8>()?),
        writing(SEQLOCK, seqlock::<8>()),
        writing(ICEORYX2, blackboard::<8>()?),
    ])
}

/// One thread reads 64 bytes.
fn reads() -> Result<Vec<Contender>, SetUpError> {
    shmbus_benches::pin_to_first_processor()?;
    fn reading(name: &'static str, (mut write, mut read): (impl Write, impl Read)) -> Contender {
        write(1);
        Contender::new(name, move |operations| {
            let _ = &write;
            let start = Instant::now();
            for _ in 0..operations {
                black_box(read());
            }
            start.elapsed()
        })
    }
    Ok(vec![
        reading(OURS, ours::<8>()?),
        reading(SEQLOCK, seqlock::<8>()),
        reading(ICEORYX2, blackboard::<8>()?),
    ])
}

/// From core to core and back: an operation is one way.
fn one_way<const N: usize>() -> Result<Vec<Contender>, SetUpError> {
    fn bouncing<W: Write, R: Read>(
        name: &'static str,
        [there, back]: [(W, R); 2],
    ) -> Result<Contender, SetUpError> {
        let (mut send, mut receive_there) = there;
        let (mut send_back, mut receive) = back;
        let mut answered = 0;
        let partner = Partner::spawn(move |operations| {
            for _ in 0..operations.div_ceil(2) {
                answered += 1;
                while receive_there() != answered {}
                send_back(answered);
            }
        })?;
        let mut sent = 0;
        Ok(Contender::new(name, move |operations| {
            partner.beside(operations, || {
                for _ in 0..operations.div_ceil(2) {
                    sent += 1;
                    send(sent);
                    while receive() != sent {}
                }
            })
        }))
    }
    Ok(vec![
        bouncing(OURS, [ours::<N>()?, ours::<N>()?])?,
        bouncing(SEQLOCK, array::from_fn(|_| seqlock::<N>()))?,
        bouncing(ICEORYX2, [blackboard::<N>()?, blackboard::<N>()?])?,
    ])
}
