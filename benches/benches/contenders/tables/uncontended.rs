//! 64 bytes, one thread: nobody else is there.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::Instant;

use shmbus_benches::{Comparison, Contender, SetUpError, pin_to_first_processor};
use shmbus_shm::{Access, SharedMemory, Writers};
use shmbus_signal::suppress::{DoorbellLayout, Sender};
use shmbus_table::{Epoch, TableLayout, TableWriter};

use super::blackboard::{Board, unused_name};
use super::{HONEST, ICEORYX2, LEFT_RIGHT, OURS, Read, SEQLOCK, TRIPLE_BUFFER, Write, local, slot};

const WORDS: usize = 8;

/// Slots of the table, and channels of the doorbell.
const SLOTS: u32 = 64;

pub(super) fn writes() -> Comparison {
    Comparison::new(
        "write-64",
        "one thread writes a value of 64 bytes that nobody reads; ours is a bare slot",
        || {
            pin_to_first_processor()?;
            let memory = slot::own_memory(WORDS)?;
            let board = Board::<WORDS>::create(&unused_name())?;
            Ok(vec![
                writing(OURS, slot::Writer::<WORDS>::new(&memory)?, ()),
                writing(ICEORYX2, board.writer()?, board),
                local_writing(TRIPLE_BUFFER, local::triple_buffer::<WORDS>()),
                local_writing(SEQLOCK, local::seqlock::<WORDS>()),
            ])
        },
    )
}

pub(super) fn publications() -> Comparison {
    Comparison::new(
        "publish-64",
        "one thread publishes a value of 64 bytes; ours in a table, with a decision whether to notify",
        || {
            pin_to_first_processor()?;
            let board = Board::<WORDS>::create(&unused_name())?;
            Ok(vec![
                writing(OURS, Publisher::new()?, ()),
                writing(ICEORYX2, board.writer()?, board),
            ])
        },
    )
}

pub(super) fn reads() -> Comparison {
    Comparison::new(
        "read-64",
        "one thread reads a value of 64 bytes that nobody writes",
        || {
            pin_to_first_processor()?;
            let memory = slot::own_memory(WORDS)?;
            let peers = slot::read_only(&memory, WORDS)?;
            let board = Board::<WORDS>::create(&unused_name())?;
            let writer = slot::Writer::<WORDS>::new(&memory)?;
            Ok(vec![
                reading(OURS, (writer, slot::Reader::<WORDS>::new(&peers)?)),
                reading(TRIPLE_BUFFER, local::triple_buffer::<WORDS>()),
                reading(ICEORYX2, (board.writer()?, board.reader()?)),
                reading(SEQLOCK, local::seqlock::<WORDS>()),
                reading(LEFT_RIGHT, local::left_right::<WORDS>()),
            ])
        },
    )
}

fn writing(
    name: &'static str,
    mut writer: impl Write + 'static,
    others: impl Sized + 'static,
) -> Contender {
    Contender::new(name, move |operations| {
        // Whoever shares the memory with it lives as long.
        let _ = &others;
        let start = Instant::now();
        for first in 0..operations {
            writer.write(first);
        }
        start.elapsed()
    })
}

fn local_writing(
    name: &'static str,
    (writer, reader): (impl Write + 'static, impl Read + 'static),
) -> Contender {
    writing(name, writer, reader)
}

fn reading(
    name: &'static str,
    (mut writer, mut reader): (impl Write + 'static, impl Read + 'static),
) -> Contender {
    writer.write(1);
    Contender::new(name, move |operations| {
        let _ = &writer;
        let start = Instant::now();
        for _ in 0..operations {
            assert!(black_box(reader.read()).is_some(), "{HONEST}");
        }
        start.elapsed()
    })
}

/// A table and the doorbell that its slots' changes are announced on: what a device does to publish.
pub(super) struct Publisher {
    table: TableWriter<shmbus_shm::Mapped, Vec<u64>>,
    doorbell: Sender<shmbus_shm::Mapped, shmbus_shm::Mapped>,
    value: [u64; WORDS],
    /// Nobody has armed.
    _armed: SharedMemory,
}

impl Publisher {
    pub(super) fn new() -> Result<Self, SetUpError> {
        let create = |bytes: usize| SharedMemory::create("bench", bytes as u64, Writers::Creator);
        let table = TableLayout::new(SLOTS, 8 * WORDS as u32)?;
        let doorbell = DoorbellLayout::new(SLOTS)?;
        let armed = create(DoorbellLayout::ARMED_BYTES)?;
        let descriptor = armed.as_fd().try_clone_to_owned()?;
        let armed_seen = SharedMemory::from_peer(descriptor, armed.bytes(), Access::Read)?;
        let window = create(table.bytes())?.window().clone();
        let storage = vec![0; SLOTS as usize];
        Ok(Self {
            table: TableWriter::create(window, table, 0, Epoch::FIRST, storage)?,
            doorbell: Sender::new(
                create(doorbell.tree_bytes())?.window(),
                armed_seen.window(),
                doorbell,
            )?,
            value: [0; WORDS],
            _armed: armed,
        })
    }
}

impl Write for Publisher {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        let published = self.table.publish(3, black_box(&self.value)).expect(HONEST);
        if black_box(published).1.is_needed() {
            let notify = self.doorbell.raise(5).expect(HONEST);
            assert!(!black_box(notify).is_needed(), "nobody has armed");
        }
    }
}
