//! The gallery: one memory that shows inspectors a whole bus, and that the host alone writes.
//!
//! In it the host re-publishes what inspectors look at: of the bus and of each session the directory, and the tables, those
//! of the guest as well. Rings and buffers are not in it. So it can be given to who must not have a session's own
//! memories, a virtual machine for one, and it shows sessions whose memories cannot be given to anybody, since their
//! guest can write all of them. Nothing in it is ever read back by the host.
//!
//! `docs/abi.md` has the layout. `layout` is its words, `visit` the reader's side; the host's is in `src/host/gallery`.

use shmbus_shm::{MemoryId, Section};

mod card;
mod layout;
mod visit;

pub use self::card::Card;
pub use self::layout::{GALLERY_MAGIC, GALLERY_VERSION, GalleryError, GalleryHeader};
pub(crate) use self::layout::{GalleryPlan, Place};
pub(crate) use self::visit::Visit;

/// The gallery among the memories that inspectors get at the socket: behind all that guests share.
pub(crate) const MEMORY: MemoryId = MemoryId::new(Section::Shared, MemoryId::PER_SECTION - 1);
