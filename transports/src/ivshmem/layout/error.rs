//! What may be wrong with the words of a memory.

use shmbus_shm::{Section, WindowError};

use crate::local::NameError;

/// The words of a memory make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The memory's first word is another.
    #[error("{found:#x} is not the first word of a bus's memory: no bus is served there")]
    Magic {
        /// The word found.
        found: u64,
    },
    /// The memory has another layout than this code knows.
    #[error("the memory's layout has version {found}, this code knows {known}", known = super::VERSION)]
    Version {
        /// The version found.
        found: u32,
    },
    /// The memory is not as long as its header says.
    #[error("the header tells of a memory of {told} bytes, and {mapped} are mapped")]
    Size {
        /// What the header says, in bytes.
        told: u64,
        /// How much is mapped, in bytes.
        mapped: u64,
    },
    /// A number of the header that cannot be.
    #[error("the header: expected {expected}, found {found}")]
    Header {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
    /// An area that does not lie on whole pages of the memory, behind the header.
    #[error(
        "area {area}: {bytes} bytes at {offset:#x} are no whole pages behind the header, within the memory"
    )]
    Area {
        /// Which one.
        area: usize,
        /// Where it would start, in bytes.
        offset: u64,
        /// How long it would be, in bytes.
        bytes: u64,
    },
    /// A section that does not lie on whole pages of the memory, behind the header.
    #[error(
        "section {section:?}: {bytes} bytes at {offset:#x} are no whole pages behind the header, within the memory"
    )]
    Section {
        /// Which one.
        section: Section,
        /// Where it would start, in bytes.
        offset: u64,
        /// How long it would be, in bytes.
        bytes: u64,
    },
    /// A handshake word that says nothing.
    #[error("{word:#x} is not {expected}")]
    Word {
        /// Whose word it should be.
        expected: &'static str,
        /// What was found.
        word: u64,
    },
    /// A guest's name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The window is too small.
    #[error(transparent)]
    Window(#[from] WindowError),
}
