//! Ours: a bare slot, its head on the first line and its copies behind it.

use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};

use shmbus_benches::SetUpError;
use shmbus_shm::slot::{
    Epoch, ReadCursor, ReadError, SlotReader, SlotWriter, SmallSlotReader, SmallSlotWriter,
    WriteCursor, copy_stride,
};
use shmbus_shm::{Access, Entries, Field, Mapped, Records, SharedMemory, Window, Writers};

use super::{HONEST, Read, Write};

/// As many as a table's slots have if nothing else is asked for.
pub(super) const COPIES: usize = 4;

/// The most that they can have: for readers of a writer that does not pause.
pub(super) const MOST_COPIES: usize = 8;

const COPIES_AT: usize = 64;

const fn bytes(words: usize) -> usize {
    COPIES_AT + MOST_COPIES * copy_stride(words)
}

/// A memory for a slot of `words` words that a companion may write to.
pub(super) fn memory(words: usize) -> Result<SharedMemory, SetUpError> {
    let memory = SharedMemory::create("bench", bytes(words) as u64, Writers::Everybody)?;
    Ok(memory)
}

/// The same that only this process writes to.
pub(super) fn own_memory(words: usize) -> Result<SharedMemory, SetUpError> {
    let memory = SharedMemory::create("bench", bytes(words) as u64, Writers::Creator)?;
    Ok(memory)
}

/// The companion's view of such a memory.
pub(super) fn peers_memory(
    descriptor: OwnedFd,
    words: usize,
    access: Access,
) -> Result<SharedMemory, SetUpError> {
    let memory = SharedMemory::from_peer(descriptor, bytes(words) as u64, access)?;
    Ok(memory)
}

/// Another view in this process.
pub(super) fn read_only(memory: &SharedMemory, words: usize) -> Result<SharedMemory, SetUpError> {
    let descriptor = memory.as_fd().try_clone_to_owned()?;
    peers_memory(descriptor, words, Access::Read)
}

fn copies<const N: usize, const C: usize>(window: &Mapped) -> Records<'_, Mapped> {
    let records = Records::new(window, COPIES_AT, C, copy_stride(N), N);
    records.expect("the memory was made for them")
}

/// What both sides have of a slot.
struct Slot<const N: usize> {
    window: Mapped,
    head: Field<u64, Mapped>,
    /// A value of 8 bytes, on its head's line: two words of one line move together.
    word: Entries<u64, Mapped>,
}

impl<const N: usize> Slot<N> {
    fn new(memory: &SharedMemory) -> Result<Self, SetUpError> {
        let window = memory.window().clone();
        assert!(window.len() >= bytes(N));
        Ok(Self {
            head: Field::new(&window, 0)?,
            word: Entries::new(&window, 8, 1)?,
            window,
        })
    }
}

/// `N` words, `C` copies.
pub(super) struct Writer<const N: usize, const C: usize = COPIES> {
    slot: Slot<N>,
    cursor: WriteCursor,
    value: [u64; N],
}

impl<const N: usize, const C: usize> Writer<N, C> {
    pub(super) fn new(memory: &SharedMemory) -> Result<Self, SetUpError> {
        Ok(Self {
            slot: Slot::new(memory)?,
            cursor: WriteCursor::new(Epoch::FIRST),
            value: [0; N],
        })
    }
}

impl<const N: usize, const C: usize> Write for Writer<N, C> {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        let slot = &self.slot;
        let published = if N == 1 {
            SmallSlotWriter::new(&slot.word, 0, &slot.head).publish(&mut self.cursor, first)
        } else {
            SlotWriter::new(copies::<N, C>(&slot.window), &slot.head)
                .publish(&mut self.cursor, black_box(&self.value))
        };
        black_box(published.expect("a slot's generations do not run out"));
    }
}

/// `N` words, `C` copies.
pub(super) struct Reader<const N: usize, const C: usize = COPIES> {
    slot: Slot<N>,
    cursor: ReadCursor,
    value: [u64; N],
}

impl<const N: usize, const C: usize> Reader<N, C> {
    pub(super) fn new(memory: &SharedMemory) -> Result<Self, SetUpError> {
        Ok(Self {
            slot: Slot::new(memory)?,
            cursor: ReadCursor::default(),
            value: [0; N],
        })
    }
}

impl<const N: usize, const C: usize> Read for Reader<N, C> {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        let slot = &self.slot;
        let read = if N == 1 {
            SmallSlotReader::new(&slot.word, 0, &slot.head)
                .read(&mut self.cursor)
                .map(|(word, generation)| {
                    self.value[0] = word;
                    generation
                })
        } else {
            SlotReader::new(copies::<N, C>(&slot.window), &slot.head)
                .read(&mut self.cursor, &mut self.value)
        };
        match read {
            Ok(generation) => {
                black_box(generation);
                Some(black_box(&self.value)[0])
            }
            Err(ReadError::Lapped | ReadError::NeverWritten) => None,
            Err(error) => panic!("{HONEST}: {error}"),
        }
    }

    #[inline]
    fn poll(&mut self) -> Option<u64> {
        if N > 1 {
            let copies = copies::<N, C>(&self.slot.window);
            if SlotReader::new(copies, &self.slot.head).is_unchanged(self.cursor) {
                return None;
            }
        }
        self.read()
    }
}
