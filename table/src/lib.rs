//! Tables: state of which only the latest value counts.
//!
//! A table is an array of equally large slots in shared memory. One side writes it, any number of readers look at it
//! through read-only mappings. Publishing "time is now Y" replaces "time is now X": nothing is queued, nobody waits
//! for anybody, and a reader gets a complete value with its generation or a typed reason why not, also when the writer
//! is dead, stalled or lying. A tree of generations over the slots tells a reader what changed since it last looked,
//! in time proportional to what changed. A writer that restarts goes on under the next epoch with the values of the
//! last one. The slot algorithm and its proofs are [`shmbus_shm::slot`]'s, the tree's are [`shmbus_shm::TreeWriter`]'s.
//!
//! ```
//! use shmbus_shm::heap;
//! use shmbus_shm::slot::Epoch;
//! use shmbus_table::{InvalidValue, TypedReader, TypedWriter, Value, layout_of};
//!
//! /// What a port has counted.
//! #[derive(Debug, PartialEq)]
//! struct Counters {
//!     frames: u64,
//!     is_up: bool,
//! }
//!
//! impl Value for Counters {
//!     const TYPE_ID: u32 = 0x706f_7274;
//!     const WORDS: usize = 2;
//!
//!     fn encode(&self, words: &mut [u64]) {
//!         words.copy_from_slice(&[self.frames, self.is_up.into()]);
//!     }
//!
//!     fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
//!         match *words {
//!             [frames, is_up @ 0..=1] => Ok(Self { frames, is_up: is_up == 1 }),
//!             _ => Err(InvalidValue { word: 1, found: words[1], expected: "0 or 1" }),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let window = heap(layout_of::<Counters>(16)?.bytes()); // a mapping, between processes
//! let mut writer = TypedWriter::<Counters, _, _>::create(window.clone(), 16, Epoch::FIRST, vec![0; 16])?;
//! let mut reader = TypedReader::<Counters, _, _>::attach(window, vec![0; 16], vec![0; 16])?;
//!
//! let _ = writer.publish(3, &Counters { frames: 1, is_up: true })?;
//! let (generation, notify) = writer.publish(3, &Counters { frames: 2, is_up: true })?;
//! assert!(notify.is_needed()); // the channel's owner sends, or suppresses, the signal
//!
//! let mut changed = Vec::new();
//! reader.changed(|slot, generation| changed.push((slot, generation)));
//! assert_eq!(changed, [(3, generation)]);
//! assert_eq!(reader.read(3)?, (Counters { frames: 2, is_up: true }, generation));
//! # Ok(())
//! # }
//! ```
//!
//! # Several slots as one
//!
//! In a table with transactions slots that belong together are written, and read, as one. What is staged is nobody's
//! business until it is committed; then it is visible at once, and a reader gets all slots as of one transaction, also
//! when the writer dies in the middle. A table without transactions does not pay for that; one with them pays a word in
//! each copy, a store more for each publication, and a load for each snapshot.
//!
//! ```
//! use shmbus_shm::heap;
//! use shmbus_table::{Epoch, SnapshotReader, TableLayout, TableOptions, TransactionWriter};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = TableLayout::with_options(16, 8, TableOptions::new().transactions())?;
//! let window = heap(layout.bytes());
//! let (cursors, staging) = ([0; 16], [0; 16]); // room for transactions of eight slots of a word
//! let mut writer = TransactionWriter::create(window.clone(), layout, 1, Epoch::FIRST, cursors, staging)?;
//! let mut reader = SnapshotReader::attach(window, [0; 16], [0; 16])?;
//!
//! let mut balances = writer.begin();
//! balances.stage(3, &[70])?;
//! balances.stage(9, &[30])?;
//! let (first, _) = balances.commit()?;
//!
//! let mut transfer = writer.begin();
//! transfer.stage(3, &[20])?;
//! drop(transfer); // and slot 3 is as it was
//!
//! let (mut values, mut generations) = ([0; 2], [None; 2]);
//! let as_of = reader.read_together(&[3, 9], &mut values, &mut generations)?;
//! assert_eq!((as_of, values), (Some(first), [70, 30]));
//! # Ok(())
//! # }
//! ```
//!
//! # How old, and whether anybody lives
//!
//! A writer that has nothing to say still [beats](TableWriter::beat). In a table with [ages](TableOptions::ages) each
//! slot says how many beats ago it was last published, so that a reader without a clock of its own knows how old a
//! value is ([`TableReader::age`]). Ages stand still with their writer; that it is silent is told by [`Silence`], and
//! by the reader's clock.
//!
//! # In other memory
//!
//! Readers who are not to have a table's memory, or cannot, are given another that a [`Mirror`] keeps: the same table, with
//! what it finds in the first one, whatever becomes of that one's writer. Tables with transactions and with pins it does not
//! serve.
//!
//! ```
//! use shmbus_shm::heap;
//! use shmbus_table::{Epoch, Header, Mirror, TableLayout, TableReader, TableWriter};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = TableLayout::new(16, 8)?;
//! let (theirs, shown) = (heap(layout.bytes()), heap(layout.bytes()));
//! let mut writer = TableWriter::create(theirs.clone(), layout, 1, Epoch::FIRST, [0; 16])?;
//! let header = Header { layout, type_id: 1, epoch: Epoch::FIRST };
//! let mut mirror = Mirror::create(theirs, shown.clone(), header, [[0; 16]; 3])?;
//! let mut reader = TableReader::attach(shown, [0; 16], [0; 16])?;
//!
//! for value in 1..=5 {
//!     let _ = writer.publish(3, &[value])?;
//! }
//! let done = mirror.update(100); // slots at most
//! assert_eq!((done.published, done.more), (1, false));
//! let mut value = [0];
//! assert_eq!(reader.read(3, &mut value)?.count(), 5);
//! assert_eq!(value, [5]);
//! # Ok(())
//! # }
//! ```
//!
//! # Cargo features
//!
//! `std`, on by default, is for tests and for whoever links std anyway; nothing here needs it. `zerocopy`: plain data
//! as values (`Plain`).
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod age;
mod error;
mod flags;
mod header;
mod layout;
mod mirror;
mod options;
pub mod pinned;
#[cfg(feature = "zerocopy")]
mod plain;
mod reader;
mod resume;
mod slots;
#[cfg(test)]
mod tests;
mod transaction;
mod typed;
mod value;
mod writer;

pub use age::{Age, AgeError, Silence};
pub use error::{ReadError, TableError};
pub use flags::TableFlags;
pub use header::{Header, MAGIC, VERSION};
pub use layout::{LayoutError, TableLayout};
pub use mirror::{Mirror, MirrorFault, Mirrored};
pub use options::TableOptions;
#[cfg(feature = "zerocopy")]
pub use plain::{Plain, PlainValue};
pub use reader::TableReader;
pub use resume::Recovered;
pub use shmbus_shm::Scan;
pub use shmbus_shm::slot::{Epoch, Generation};
pub use transaction::{
    SnapshotError, SnapshotReader, Transaction, TransactionWriter, TypedSnapshotError,
    TypedSnapshotReader, TypedTransaction, TypedTransactionWriter, max_snapshot_loads,
};
pub use typed::{TypedReadError, TypedReader, TypedWriter, layout_of, layout_with};
pub use value::{InvalidValue, Value};
pub use writer::TableWriter;
