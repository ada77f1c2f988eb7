//! Several slots written, and read, as one.
//!
//! A table with transactions has a writer and a reader of its own. Whatever the writer publishes is a transaction, also
//! a single slot: it becomes visible by one store of the *commit* word, and a reader takes all slots as of one commit.
//! The protocol and its proofs are [`shmbus_shm::slot::NumberedSlotReader`]'s.

mod error;
mod reader;
mod resume;
mod staging;
mod typed;
mod writer;

pub use error::{SnapshotError, TypedSnapshotError};
pub use reader::SnapshotReader;
pub use typed::{TypedSnapshotReader, TypedTransaction, TypedTransactionWriter};
pub use writer::{Transaction, TransactionWriter};

use shmbus_shm::slot::{TRIES, max_loads_as_of};

use crate::layout::TableLayout;

/// The most loads that reading `slots` slots as one makes, whatever the writer does: in each try the commit word, and
/// each slot as of that.
pub const fn max_snapshot_loads(layout: TableLayout, slots: usize) -> usize {
    let slot = max_loads_as_of(layout.slot_words(), layout.copies() as usize);
    TRIES * (1 + slots * slot)
}
