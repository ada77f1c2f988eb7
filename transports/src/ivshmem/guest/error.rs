//! Why a guest does not get on the bus.

use std::io;

use shmbus_shm::Section;

use super::super::layout::{AnswerState, LayoutError, VECTORS};
use crate::local::{GoodbyeReason, Refusal, RefusalCode};
use crate::pci::FunctionError;

/// A guest cannot attach to the bus behind a function.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The function cannot be used.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The function has no peer id.
    #[error(
        "the function's peer id is {found:#x}, expected 1 to 65534: is it ivshmem-doorbell, and did QEMU connect to `shmbus host --ivshmem`?"
    )]
    Position {
        /// What the register IVPosition shows.
        found: u32,
    },
    /// The function has too few vectors.
    #[error(
        "the function has {found} vectors, expected {VECTORS}: start QEMU with `ivshmem-doorbell,vectors={VECTORS}`"
    )]
    Vectors {
        /// How many it has.
        found: u16,
    },
    /// The memory is too large, or there is none.
    #[error("BAR 2 has {bytes} bytes, expected 1 to {limit}")]
    Memory {
        /// How many it has.
        bytes: u64,
        /// The most that this guest takes.
        limit: u64,
    },
    /// The memory's words make no sense.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No area of the memory is this guest's.
    #[error("the host has no area for peer {position}: its areas are all taken")]
    NoArea {
        /// The guest's peer id.
        position: u16,
    },
    /// A section lies where it may not.
    #[error("section {section}: {bytes} bytes at {offset:#x} {problem}")]
    Section {
        /// Which one.
        section: Section,
        /// Where it would start in the memory, in bytes.
        offset: u64,
        /// How long it would be, in bytes.
        bytes: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// The host's terms cannot be taken.
    #[error("the host's terms: expected {expected}, found {found}")]
    Terms {
        /// What they may be.
        expected: String,
        /// What they are.
        found: String,
    },
    /// The host said no.
    #[error("the host refused: {0}")]
    Refused(Refusal),
    /// The host ended the session before it began.
    #[error("the host left, while this side waited for {awaited}: {reason}")]
    Closed {
        /// What was awaited.
        awaited: &'static str,
        /// What the host said.
        reason: GoodbyeReason,
    },
    /// The host does not answer.
    #[error(
        "the host did not answer in time, while this side waited for {awaited}: is it running?"
    )]
    TimedOut {
        /// What was awaited.
        awaited: &'static str,
    },
    /// The host gave an answer that cannot come now.
    #[error("expected {expected}, the host answered {found:?}")]
    OutOfPlace {
        /// What was awaited.
        expected: &'static str,
        /// What came.
        found: AnswerState,
    },
    /// The system refused something: descriptors are used up, most likely.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl AttachError {
    /// Whether the same call may succeed later: the host is busy, or just restarting.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Closed { .. } | Self::NoArea { .. } => true,
            Self::Refused(refusal) => refusal.code == RefusalCode::Busy,
            _ => false,
        }
    }
}
