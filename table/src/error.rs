//! What can be wrong.

use shmbus_shm::slot::PublishError;
use shmbus_shm::{TreeError, WindowError};

use crate::flags::TableFlags;
use crate::layout::{LayoutError, TableLayout};

/// A table could not be set up, attached to or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No table has this shape.
    #[error("no table has this shape: {0}")]
    Layout(#[from] LayoutError),
    /// The memory does not hold the table.
    #[error("the memory does not hold the table: {0}")]
    Window(#[source] WindowError),
    /// The table's slots are to be accessed at once, which this machine does not promise to do.
    #[error(
        "a table of pairs needs loads and stores of 16 bytes at once, which this machine does not promise here"
    )]
    NoPairs,
    /// The generation tree cannot be set up or gone on with.
    #[error("the table's generation tree: {0}")]
    Tree(#[from] TreeError),
    /// The memory does not start as a table does.
    #[error("not a table: it starts with {found:#018x}, not with {expected:#018x}", expected = crate::MAGIC)]
    Magic {
        /// The first word found.
        found: u64,
    },
    /// The table's layout is of another version.
    #[error("the table's layout has version {found}; this is version {expected}", expected = crate::VERSION)]
    Version {
        /// The version found.
        found: u32,
    },
    /// The table is of another kind than this reader or writer.
    #[error(
        "the table's flags are {found}; this is for tables of {expected}, with or without AGES"
    )]
    Kind {
        /// The flags that the reader or writer is for.
        expected: TableFlags,
        /// The table's flags.
        found: TableFlags,
    },
    /// The header's epoch is none.
    #[error("the table's epoch {found} is not 1 to 32767")]
    Epoch {
        /// The epoch found.
        found: u64,
    },
    /// The last epoch has been used: the table must be created anew, and its readers attach anew.
    #[error("the table has used up its epochs; create it anew")]
    EpochsUsedUp,
    /// The table holds values of another type.
    #[error("the table holds values of type {found:#010x}, not {expected:#010x}")]
    Type {
        /// The type expected.
        expected: u32,
        /// The type found in the header.
        found: u32,
    },
    /// The table's slots are not as long as its values.
    #[error("the table's slots have {found} bytes; a value has {expected}")]
    ValueBytes {
        /// Bytes of a value.
        expected: u32,
        /// Bytes of a slot.
        found: u32,
    },
    /// A table that was to replace another has another shape. Geometry is frozen when a reader attaches.
    #[error("the table was {expected:?} and is now {found:?}")]
    Geometry {
        /// The geometry when the reader attached.
        expected: TableLayout,
        /// The geometry found.
        found: TableLayout,
    },
    /// The caller gave too little storage.
    #[error("a table of {expected} slots needs storage of as many words, not {found}")]
    Storage {
        /// Words needed.
        expected: u32,
        /// Words given.
        found: usize,
    },
    /// There is no such slot.
    #[error("the table has {slots} slots; there is no slot {slot}")]
    NoSuchSlot {
        /// The slot asked for.
        slot: u32,
        /// How many slots there are.
        slots: u32,
    },
    /// A transaction has as many slots as the storage given to its writer can stage.
    #[error(
        "{capacity} slots are staged, for which the writer has storage; there is no room for another"
    )]
    Staging {
        /// How many slots a transaction can have.
        capacity: usize,
    },
    /// 2^48 transactions have been committed: the writer must go on under the next epoch, in new memory.
    #[error("the table's transactions are used up; restart the writer under the next epoch")]
    TransactionsUsedUp,
    /// As many readers are subscribed as there are copies to spare.
    #[error("all of the {seats} readers that the table can hear are subscribed")]
    SeatsTaken {
        /// How many readers can be subscribed.
        seats: usize,
    },
    /// The slot did not take the value.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From<WindowError> for TableError {
    fn from(error: WindowError) -> Self {
        match error {
            WindowError::NoPairs => Self::NoPairs,
            error => Self::Window(error),
        }
    }
}

/// A read gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such slot.
    #[error("the table has {slots} slots; there is no slot {slot}")]
    NoSuchSlot {
        /// The slot asked for.
        slot: u32,
        /// How many slots there are.
        slots: u32,
    },
    /// The slot gave no value, and why.
    #[error(transparent)]
    Slot(#[from] shmbus_shm::slot::ReadError),
}
