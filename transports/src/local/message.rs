//! The messages of the handshake.
//!
//! A message is a frame: an 8-byte header and a body, all integers little-endian, reserved bytes zero. File descriptors travel with the
//! frame's first bytes (`SCM_RIGHTS`). `docs/local.md` gives every offset, and who sends what when.
//!
//! | frame header | | |
//! | --- | --- | --- |
//! | 0 | `u8[4]` | magic, `"sbus"` |
//! | 4 | `u8` | kind of message |
//! | 5 | `u8` | number of file descriptors that come with it, at most 16 |
//! | 6 | `u16` | bytes in the body, at most 1040 |
//!
//! | message | kind | body bytes | descriptors | direction |
//! | --- | --- | --- | --- | --- |
//! | [`Hello`] | 1 | 64 | 0 | guest to host |
//! | [`Welcome`] | 2 | 40 | 0 | host to guest |
//! | [`Refusal`] | 3 | 4 to 260 | 0 | host to guest |
//! | [`Announcement`] (MEMORY) | 4 | 24 | 1 | both |
//! | DOORBELLS | 5 | 8 | twice the classes | host to guest |
//! | READY | 6 | 0 | 0 | host to guest |
//! | GOODBYE | 7 | 8 | 0 | both |
//! | LIST | 8 | 8 | 0 | inspector to host |
//! | [`Page`] | 9 | 16 + 64 for each entry | one for each entry | host to inspector |

use core::fmt;

use shmbus_shm::{MemoryId, PRIORITY_CLASSES};
use shmbus_virtio::{Features, PrivateFeatures};

use super::text::{Explanation, GuestName};
use crate::memory::Memory;

/// What every frame starts with.
pub const MAGIC: [u8; 4] = *b"sbus";
/// The version of this protocol. Both sides must speak the same one.
pub const VERSION: u16 = 2;
/// Bytes in a frame's header.
pub const HEADER_BYTES: usize = 8;
/// The most bytes in a frame's body: those of a full [`Page`].
pub const MAX_BODY_BYTES: usize = 16 + MAX_PAGE_ENTRIES * 64;
/// The most file descriptors that come with one message: those of a full [`Page`].
pub const MAX_DESCRIPTORS: usize = MAX_PAGE_ENTRIES;
const _: () = assert!(2 * PRIORITY_CLASSES as usize <= MAX_DESCRIPTORS); // those of DOORBELLS
/// The most entries in one [`Page`].
pub const MAX_PAGE_ENTRIES: usize = 16;

/// The kinds of message, as numbered in the frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the messages' own documentation says what they are
pub enum Kind {
    Hello = 1,
    Welcome = 2,
    Refusal = 3,
    Memory = 4,
    Doorbells = 5,
    Ready = 6,
    Goodbye = 7,
    List = 8,
    Page = 9,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::Welcome,
        Self::Refusal,
        Self::Memory,
        Self::Doorbells,
        Self::Ready,
        Self::Goodbye,
        Self::List,
        Self::Page,
    ];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Refusal => "REFUSED",
            Self::Memory => "MEMORY",
            Self::Doorbells => "DOORBELLS",
            Self::Ready => "READY",
            Self::Goodbye => "GOODBYE",
            Self::List => "LIST",
            Self::Page => "PAGE",
        })
    }
}

/// What a peer wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PeerRole {
    /// Uses devices.
    Guest = 1,
    /// Looks on, read-only.
    Inspector = 2,
}

/// The first message: who wants in, and what they can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Guest or inspector.
    pub role: PeerRole,
    /// How to call it in logs.
    pub name: GuestName,
    /// The features of the bus that it supports.
    pub features: Features,
    /// The private features that it supports.
    pub private: PrivateFeatures,
}

/// The host lets the peer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The number of this session on this host; 0 for an inspector.
    pub session: u32,
    /// What both sides support.
    pub features: Features,
    /// What both sides support.
    pub private: PrivateFeatures,
    /// The size of the memory that the guest is to create, in bytes: what this host grants it.
    pub guest_memory_bytes: u64,
    /// How many MEMORY messages follow.
    pub memories: u8,
    /// How many priority classes: the DOORBELLS that follow carry twice as many descriptors.
    pub classes: u8,
}

/// Why the host does not let a peer in, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// 1: another version of the protocol.
    Version,
    /// 2: a quota is used up; trying later may help.
    Busy,
    /// 3: the features do not go together.
    Features,
    /// 4: a malformed or unexpected message.
    Protocol,
    /// 5: the guest's memory cannot be accepted.
    Memory,
    /// 6: the host could not set the session up.
    Setup,
    /// Of a newer host.
    Other(u16),
}

impl RefusalCode {
    /// The code with this number.
    pub fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::Busy,
            3 => Self::Features,
            4 => Self::Protocol,
            5 => Self::Memory,
            6 => Self::Setup,
            other => Self::Other(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Busy => 2,
            Self::Features => 3,
            Self::Protocol => 4,
            Self::Memory => 5,
            Self::Setup => 6,
            Self::Other(other) => other,
        }
    }
}

/// REFUSED: the host does not let the peer in, or not any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} (code {})", .code.number())]
pub struct Refusal {
    /// Why, for the program.
    pub code: RefusalCode,
    /// Why, for the person.
    pub text: Explanation,
}

impl Refusal {
    /// A refusal; the text is made to fit.
    pub fn new(code: RefusalCode, text: &str) -> Self {
        Self {
            code,
            text: Explanation::new(text),
        }
    }
}

/// MEMORY: what is said about the descriptor that comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// See [`Memory::id`].
    pub id: MemoryId,
    /// Its size in bytes.
    pub bytes: u64,
    /// See [`Memory::epoch`].
    pub epoch: u64,
}

impl From<&Memory> for Announcement {
    fn from(memory: &Memory) -> Self {
        Self {
            id: memory.id,
            bytes: memory.bytes(),
            epoch: memory.epoch,
        }
    }
}

/// Why a side that leaves on its own account leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// 1: its work is done.
    Finished,
    /// 2: it will be back; reconnect.
    Restarting,
    /// 3: the other side broke the rules.
    Misbehaved,
    /// Of a newer peer.
    Other(u16),
}

impl GoodbyeReason {
    /// The reason with this number.
    pub fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Finished,
            2 => Self::Restarting,
            3 => Self::Misbehaved,
            other => Self::Other(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Self::Finished => 1,
            Self::Restarting => 2,
            Self::Misbehaved => 3,
            Self::Other(other) => other,
        }
    }
}

impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("it has finished"),
            Self::Restarting => f.write_str("it is restarting"),
            Self::Misbehaved => f.write_str("it says that this side broke the rules"),
            Self::Other(number) => write!(f, "reason {number}"),
        }
    }
}

/// One memory in an inspector's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The session it belongs to; 0 for the whole bus's.
    pub session: u32,
    /// The session's guest; none for the whole bus's.
    pub guest: Option<GuestName>,
    /// What is said about it.
    pub memory: Announcement,
}

/// A part of an inspector's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where the next LIST goes on; 0 when this was the last page.
    pub next: u64,
    /// The entries, at most [`MAX_PAGE_ENTRIES`], each with a descriptor.
    pub entries: Vec<Entry>,
}

/// Any message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who wants in.
    Hello(Hello),
    /// The host lets the peer in.
    Welcome(Welcome),
    /// The host does not.
    Refusal(Refusal),
    /// A memory, with its descriptor.
    Memory(Announcement),
    /// The doorbells: `classes` ends by which the guest rings, then as many by which it is rung.
    Doorbells {
        /// The number of priority classes.
        classes: u8,
    },
    /// The session runs.
    Ready,
    /// The sender leaves.
    Goodbye(GoodbyeReason),
    /// An inspector asks for a page of the list; 0 for the first, then [`Page::next`].
    List {
        /// Where to go on.
        from: u64,
    },
    /// A page of the list.
    Page(Page),
}

impl Message {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Refusal(_) => Kind::Refusal,
            Self::Memory(_) => Kind::Memory,
            Self::Doorbells { .. } => Kind::Doorbells,
            Self::Ready => Kind::Ready,
            Self::Goodbye(_) => Kind::Goodbye,
            Self::List { .. } => Kind::List,
            Self::Page(_) => Kind::Page,
        }
    }

    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Memory(_) => 1,
            Self::Doorbells { classes } => 2 * usize::from(*classes),
            Self::Page(page) => page.entries.len(),
            _ => 0,
        }
    }
}
