//! Memories, and who writes to them.

use core::fmt;

use super::rights::{Permission, Rights};

/// The four kinds of memory of a session, by their writing side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Section {
    /// The host writes, the guest reads.
    Host = 0,
    /// The guest writes, the host reads.
    Guest = 1,
    /// Both write: what lies there is trusted by nobody.
    Common = 2,
    /// The host writes, and every guest reads.
    Shared = 3,
}

impl Section {
    /// All sections, in the order of their numbers.
    pub const ALL: [Section; 4] = [
        Section::Host,
        Section::Guest,
        Section::Common,
        Section::Shared,
    ];

    /// The most that each side may do with the section's memories.
    pub fn rights(self) -> Rights {
        let (host, guest) = match self {
            Section::Host | Section::Shared => (Permission::ReadWrite, Permission::Read),
            Section::Guest => (Permission::Read, Permission::ReadWrite),
            Section::Common => (Permission::ReadWrite, Permission::ReadWrite),
        };
        Rights { host, guest }
    }

    /// Whether one side alone writes its memories, so that they are sealed against writing by the other.
    pub fn has_one_writer(self) -> bool {
        self != Section::Common
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Host => "HOST",
            Section::Guest => "GUEST",
            Section::Common => "COMMON",
            Section::Shared => "SHARED",
        })
    }
}

/// Names a memory of a session. The number's low two bits are its section, the others count the section's memories:
/// whoever reads an id knows who writes to that memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryId(pub u32);

impl MemoryId {
    /// The first memory that the host writes; it starts with the session's directory.
    pub const HOST: Self = Self::new(Section::Host, 0);
    /// The first memory that the guest writes.
    pub const GUEST: Self = Self::new(Section::Guest, 0);
    /// The first memory that both write.
    pub const COMMON: Self = Self::new(Section::Common, 0);
    /// The first memory that all guests read.
    pub const SHARED: Self = Self::new(Section::Shared, 0);

    /// How many memories a section can have.
    pub const PER_SECTION: u32 = 1 << 30;

    /// Memory `ordinal` modulo [`MemoryId::PER_SECTION`] of a section.
    pub const fn new(section: Section, ordinal: u32) -> Self {
        Self(ordinal << 2 | section as u32)
    }

    /// Who writes to the memory.
    pub fn section(self) -> Section {
        Section::ALL[self.0 as usize & 3]
    }

    /// Which of the section's memories it is.
    pub fn ordinal(self) -> u32 {
        self.0 >> 2
    }
}

impl fmt::Display for MemoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.section(), self.ordinal())
    }
}
