//! Why a snapshot was not read.

use shmbus_shm::slot::{Epoch, Generation, ReadError, TRIES};

use crate::value::InvalidValue;

/// Slots were not read as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such slot.
    #[error("the table has {slots} slots; there is no slot {slot}")]
    NoSuchSlot {
        /// The slot asked for.
        slot: u32,
        /// How many slots there are.
        slots: u32,
    },
    /// The caller's buffers are not for that many slots.
    #[error(
        "a snapshot of {slots} slots has {words} words and {slots} generations; \
         the buffers hold {found_words} and {found_generations}"
    )]
    Buffers {
        /// How many slots were to be read.
        slots: usize,
        /// How many words their values have.
        words: usize,
        /// How many words there is room for.
        found_words: usize,
        /// How many generations there is room for.
        found_generations: usize,
    },
    /// The slot had no value yet: said when it is read alone.
    #[error("the slot was never written")]
    NeverWritten,
    /// In each try the writer wrote a slot in so many transactions that the value of the snapshot was overwritten.
    #[error("the writer overwrote slot {slot} in each of {TRIES} tries to read it with the others")]
    Lapped {
        /// The slot that was overwritten in the last try.
        slot: u32,
    },
    /// The writer has restarted. Reported once; the next read goes on under the new epoch.
    #[error("the writer of epoch {from} has restarted as epoch {to}")]
    Restarted {
        /// The epoch of the last snapshot.
        from: Epoch,
        /// The epoch that the next read returns snapshots of.
        to: Epoch,
    },
    /// The commit word names no transaction, or an older one than one whose snapshot was read. No honest writer does
    /// that.
    #[error("the table's commit word, which is read like a slot's head: {0}")]
    Commit(ReadError),
    /// A slot does not hold what it must, for this transaction to be committed. No honest writer does that.
    #[error("slot {slot}: {source}")]
    Slot {
        /// The slot.
        slot: u32,
        /// What is wrong with it.
        source: ReadError,
    },
}

impl SnapshotError {
    /// What the commit word says.
    pub(super) fn of_commit(error: ReadError) -> Self {
        match error {
            ReadError::Restarted { from, to } => Self::Restarted { from, to },
            ReadError::NeverWritten => Self::NeverWritten,
            error => Self::Commit(error),
        }
    }
}

/// Slots of one type were not read as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedSnapshotError {
    /// The slots gave no snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A slot holds something that is no value of the type.
    #[error("slot {slot}, generation {generation}: {invalid}")]
    Invalid {
        /// The slot that was read.
        slot: u32,
        /// What was read there.
        generation: Generation,
        /// What is wrong with it.
        invalid: InvalidValue,
    },
}
