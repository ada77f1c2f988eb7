//! The words of BAR 2: a header, and areas of one guest each.
//!
//! The host makes the memory and says in its [`Header`] where the areas are. An area begins with a page of words by which a guest
//! attaches to the bus ([`HostWords`], [`GuestWords`]); behind it lie the sections of its session. `docs/ivshmem.md` gives every
//! offset.
//!
//! A guest finds its area by its peer id, which the device's register IVPosition holds. Then:
//!
//! | guest | host |
//! | --- | --- |
//! | says who it is, requests `HELLO n` | |
//! | | ends what was before, formats the area, tells the terms, answers `WELCOME n` (or `REFUSED n`) |
//! | formats its section, requests `MEMORY n` | |
//! | | attaches to it, answers `READY n` |
//! | requests `GOODBYE n` | |
//! | | answers `CLOSED n` |
//!
//! The [`Attachment`] `n` is one that the host's answer did not name when the guest looked. So a guest's program that starts anew
//! gets a session of its own, whatever became of the one before. After each request the guest rings
//! [`HANDSHAKE_VECTOR`] of [`HOST_PEER`]; after each answer the host rings the same vector of the guest.
//!
//! ```
//! use shmbus_shm::heap;
//! use shmbus_transports::ivshmem::layout::{
//!     AREA_PAGE_BYTES, Answer, AnswerState, Attachment, GuestWords, HostWords, Request, RequestState,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let area = heap(AREA_PAGE_BYTES);
//! let (host, guest) = (HostWords::new(&area)?, GuestWords::new(&area)?);
//! host.answer(Answer { attachment: Attachment::NONE, state: AnswerState::Offered });
//!
//! let attachment = guest.answer()?.attachment.next();
//! guest.request(Request { attachment, state: RequestState::Hello });
//! assert_eq!(host.request()?, Some(Request { attachment, state: RequestState::Hello }));
//! # Ok(())
//! # }
//! ```

mod area;
mod error;
mod header;
mod states;
#[cfg(test)]
mod tests;

pub use area::{GuestWords, HostWords, Introduction, SectionPlace, Terms};
pub use error::LayoutError;
pub use header::{AreaPlace, Header};
pub use states::{Answer, AnswerState, Attachment, Request, RequestState};

/// The header's first word: the bytes `shmbusiv`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"shmbusiv");
/// The version of this layout.
pub const VERSION: u32 = 1;
/// How long the header is, in bytes; what follows starts on a page.
pub const HEADER_BYTES: usize = 4096;
/// How long the words at the start of an area are, in bytes.
pub const AREA_PAGE_BYTES: usize = 4096;
/// The most areas of a memory.
pub const MAX_AREAS: usize = 64;
/// The host's peer id.
pub const HOST_PEER: u16 = 0;
/// The vectors of each peer: one for each priority class, with the class's number.
pub const VECTORS: u16 = shmbus_shm::PRIORITY_CLASSES as u16;
/// The vector that is rung after a request or an answer, beside what its class is rung for: that of the lowest priority.
pub const HANDSHAKE_VECTOR: u16 = VECTORS - 1;

/// Sections, and areas, lie on whole pages.
const PAGE: u64 = 4096;
