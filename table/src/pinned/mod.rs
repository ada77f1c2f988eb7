//! Tables whose values can be looked at where they lie.
//!
//! Copying a value out of a table costs as much as the value is long. A reader that looks at a few words of a large value, or
//! works on it for a while, *pins* it instead: until it lets go, the writer leaves that copy alone and goes on with others.
//! The reader announces its pins in memory of its own, of which the writer is given a read-only mapping when it
//! [subscribes](PinnedTableWriter::subscribe) the reader. This is asked for when a table is made
//! ([`TableOptions::pinned`](crate::TableOptions::pinned)); other tables' writers look at nothing that readers write.
//!
//! As many readers can be subscribed as a slot has copies, 2, 4 or 8, and each slot has as many copies to spare: so each
//! reader can pin one value of *each* slot. Readers that only copy are not bounded in number, and need no memory of their own.
//! What a reader announces, and for how long, costs nobody else anything: not the writer, whose work is bounded and never
//! waits, and not other readers. The algorithm, what it promises, and against whom, is in [`shmbus_shm::slot::pinned`].
//!
//! ```
//! use std::cell::Cell;
//! use shmbus_shm::heap;
//! use shmbus_table::pinned::{PinnedTableReader, PinnedTableWriter};
//! use shmbus_table::{Epoch, TableLayout, TableOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = TableLayout::with_options(3, 4096, TableOptions::new().copies(2).pinned())?;
//! let memory = heap(layout.bytes()); // the writer's; a read-only mapping for readers
//! let own = heap(layout.announcements_bytes()); // the reader's; a read-only mapping for the writer
//! let mut writer = PinnedTableWriter::create(memory.clone(), layout, 7, Epoch::FIRST, [0; 3], [0; 3])?;
//! let cursors = [const { Cell::new(0) }; 3];
//! let mut reader = PinnedTableReader::attach(memory, cursors, [0; 3])?;
//! reader.take_seat(own.clone(), writer.subscribe(own)?)?;
//!
//! let (first, _) = writer.publish(1, &[1; 512])?;
//! let pinned = reader.pin(1)?;
//! for number in 2..100 {
//!     let _ = writer.publish(1, &[number; 512])?;
//! }
//! assert_eq!((pinned.generation(), pinned.word(511)), (first, Some(1)));
//! # Ok(())
//! # }
//! ```

mod parts;
mod reader;
mod resume;
mod seat;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{PinError, PinnedTableReader, PinnedValue};
pub use seat::Seat;
pub use shmbus_shm::slot::pinned::{MAX_PIN_LOADS, Pinned, max_read_loads};
pub use writer::PinnedTableWriter;
