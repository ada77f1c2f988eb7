//! A table that follows another one, by C functions: a reader and a writer of tables, without anything of std.
//!
//! A table without transactions is followed by one with them, in which all that changed between two turns changes as
//! one. A table with transactions is read as a whole, and followed by one without.

use core::mem::{align_of, size_of};
use core::ptr::NonNull;
use core::slice;

use shmbus_shm::Raw;
use shmbus_table::{
    Epoch, Header, ReadError, SnapshotError, SnapshotReader, TableFlags, TableLayout, TableOptions,
    TableReader, TableWriter, TransactionWriter,
};

use crate::abi::{FAULT, MirrorSetup, NO, YES};
use crate::window;

/// The most slots, and the most words of one.
const MOST_SLOTS: usize = 16;
const MOST_WORDS: usize = 8;

type Words = &'static mut [u64];

/// Both sides of a mirror, in the storage that was passed in.
pub enum Mirror {
    /// From a table without transactions to one with them.
    Joining(TableReader<Raw, Words>, TransactionWriter<Raw, Words>),
    /// From a table with transactions to one without.
    Splitting(SnapshotReader<Raw, Words>, TableWriter<Raw, Words>),
}

/// Where the words lie in the storage.
const WORDS: usize = size_of::<Mirror>().next_multiple_of(align_of::<u64>());

/// Words for each slot: two for the reader, one for the writer, and what is staged.
const WORDS_OF_A_SLOT: usize = 3 + 1 + MOST_WORDS;

/// How much storage a mirror needs, in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn mirror_storage_bytes() -> usize {
    WORDS + MOST_SLOTS * WORDS_OF_A_SLOT * size_of::<u64>()
}

/// Attaches to a table and sets up the one that follows it. Null if something does not fit.
///
/// # Safety
///
/// All memory that is passed in stays there. The storage and the memory of the new table are the mirror's alone to
/// write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirror_open(setup: &MirrorSetup) -> *mut Mirror {
    // SAFETY: the caller's contract is the same.
    match unsafe { open(setup) } {
        Some(mirror) => mirror,
        None => core::ptr::null_mut(),
    }
}

/// # Safety
///
/// As for [`mirror_open`].
unsafe fn open(setup: &MirrorSetup) -> Option<&'static mut Mirror> {
    // SAFETY: the caller's contract covers both memories.
    let (from, to) = unsafe { (window(setup.from)?, window(setup.to)?) };
    let place = NonNull::new(setup.storage.start)?.cast::<Mirror>();
    if !place.is_aligned() || setup.storage.bytes < mirror_storage_bytes() {
        return None;
    }
    // SAFETY: the storage has room for so many words behind the mirror, and they are aligned as the mirror is.
    let words = unsafe {
        let words = setup.storage.start.add(WORDS).cast::<u64>();
        words.write_bytes(0, MOST_SLOTS * WORDS_OF_A_SLOT);
        slice::from_raw_parts_mut(words, MOST_SLOTS * WORDS_OF_A_SLOT)
    };
    let (cursors, rest) = words.split_at_mut(MOST_SLOTS);
    let (seen, rest) = rest.split_at_mut(MOST_SLOTS);
    let (written, staging) = rest.split_at_mut(MOST_SLOTS);

    let header = Header::read(&from).ok()?;
    let layout = header.layout;
    if layout.slots() as usize > MOST_SLOTS || layout.slot_words() > MOST_WORDS {
        return None;
    }
    let is_joining = !layout.flags().contains(TableFlags::TRANSACTIONS);
    let options = TableOptions::new().copies(layout.copies());
    let options = if is_joining {
        options.transactions()
    } else {
        options
    };
    let layout = TableLayout::with_options(layout.slots(), layout.slot_bytes(), options).ok()?;
    let epoch = Epoch::FIRST;
    let mirror = if is_joining {
        Mirror::Joining(
            TableReader::attach(from, cursors, seen).ok()?,
            TransactionWriter::create(to, layout, header.type_id, epoch, written, staging).ok()?,
        )
    } else {
        Mirror::Splitting(
            SnapshotReader::attach(from, cursors, seen).ok()?,
            TableWriter::create(to, layout, header.type_id, epoch, written).ok()?,
        )
    };
    // SAFETY: the storage is the mirror's from now on, and big enough.
    unsafe {
        place.write(mirror);
        Some(&mut *place.as_ptr())
    }
}

/// Takes over what has changed since the last turn; [`NO`] if nothing has.
#[unsafe(no_mangle)]
pub extern "C" fn mirror_turn(mirror: &mut Mirror) -> i32 {
    let turned = match mirror {
        Mirror::Joining(reader, writer) => join(reader, writer),
        Mirror::Splitting(reader, writer) => split(reader, writer),
    };
    match turned {
        Some(true) => YES,
        Some(false) => NO,
        None => FAULT,
    }
}

/// The slots that a scan reports.
struct Changed {
    slots: [u32; MOST_SLOTS],
    count: usize,
}

impl Changed {
    const fn new() -> Self {
        Self {
            slots: [0; MOST_SLOTS],
            count: 0,
        }
    }

    fn note(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(self.count) {
            *place = slot;
            self.count += 1;
        }
    }

    fn slots(&self) -> &[u32] {
        &self.slots[..self.count]
    }
}

fn join(
    reader: &mut TableReader<Raw, Words>,
    writer: &mut TransactionWriter<Raw, Words>,
) -> Option<bool> {
    let mut changed = Changed::new();
    reader.changed(|slot, _| changed.note(slot));
    if changed.slots().is_empty() {
        return Some(false);
    }
    let mut value = [0; MOST_WORDS];
    let value = &mut value[..reader.layout().slot_words()];
    let mut transaction = writer.begin();
    for slot in changed.slots() {
        // A restart is told of once; the value is there at the second look.
        match reader.read(*slot, value) {
            Err(ReadError::Slot(_)) => reader.read(*slot, value),
            outcome => outcome,
        }
        .ok()?;
        transaction.stage(*slot, value).ok()?;
    }
    let _ = transaction.commit().ok()?;
    Some(true)
}

fn split(
    reader: &mut SnapshotReader<Raw, Words>,
    writer: &mut TableWriter<Raw, Words>,
) -> Option<bool> {
    let mut changed = Changed::new();
    reader.changed(|slot, _| changed.note(slot));
    if changed.slots().is_empty() {
        return Some(false);
    }
    let words = reader.layout().slot_words();
    let (mut values, mut generations) = ([0; MOST_SLOTS * MOST_WORDS], [None; MOST_SLOTS]);
    let values = &mut values[..changed.count * words];
    let generations = &mut generations[..changed.count];
    match reader.read_together(changed.slots(), values, generations) {
        Err(SnapshotError::Restarted { .. }) => {
            reader.read_together(changed.slots(), values, generations)
        }
        outcome => outcome,
    }
    .ok()?;
    for (slot, value) in changed.slots().iter().zip(values.chunks_exact(words)) {
        let _ = writer.publish(*slot, value).ok()?;
    }
    Some(true)
}
