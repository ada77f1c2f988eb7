//! The region directory: what there is on a bus, for the peer and for any third party with read access.
//!
//! A directory is a header, a generation tree, and a slot for each entry; the tree's leaves are the slots' heads. Its
//! one writer is the side that registers regions. A reader needs a read-only mapping and storage of two words for an
//! entry: it finds what changed in time proportional to that, and gets each entry whole, or a typed error.
//!
//! Entries change one at a time. When a scan has [finished](crate::Scan::Finished) and [`DirectoryReader::is_unchanged`] then
//! holds, what was reported is what the directory held at that moment, as a whole.
//!
//! The directory lies at the start of memory [`MemoryId::HOST`](crate::MemoryId::HOST). `docs/abi.md` gives the layout.
//!
//! ```
//! use shmbus_shm::slot::Epoch;
//! use shmbus_shm::{
//!     DirectoryLayout, DirectoryReader, DirectoryWriter, MemoryId, Placement, Purpose, Region, RegionId, RegionKind,
//!     Section, heap,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = DirectoryLayout::new(16)?;
//! let memory = heap(layout.bytes());
//! let mut writer = DirectoryWriter::create(&memory, layout, Epoch::FIRST, vec![0; 16])?;
//! let mut reader = DirectoryReader::attach(&memory, vec![0; 16], vec![0; 16])?;
//!
//! let region = Region {
//!     id: RegionId(1),
//!     purpose: Purpose {
//!         device: Some(0),
//!         role: 0,
//!         kind: RegionKind::Table { slots: 8, slot_bytes: 16 },
//!         class: 0,
//!         rights: Section::Host.rights(),
//!         channel: Some(3),
//!     },
//!     placement: Placement { memory: MemoryId::HOST, offset: 65536, bytes: 4096 },
//!     epoch: 1,
//! };
//! writer.publish(5, &region)?;
//!
//! let mut found = Vec::new();
//! reader.changed(|place, entry| found.push((place, entry)));
//! assert_eq!(found, [(5, Ok(Some(region)))]);
//! # Ok(())
//! # }
//! ```

mod entry;
mod header;
mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use entry::{ENTRY_WORDS, EntryError, decode, encode};
pub use header::{DirectoryHeader, MAGIC, VERSION, Writing};
pub use layout::{DirectoryError, DirectoryLayout};
pub use reader::DirectoryReader;
pub use writer::DirectoryWriter;
