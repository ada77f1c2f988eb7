//! What each side may do.

/// What one side may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Permission {
    /// Nothing.
    None = 0,
    /// Read it.
    Read = 1,
    /// Read and write it.
    ReadWrite = 2,
}

impl Permission {
    /// The permission with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Permission::None, Permission::Read, Permission::ReadWrite]
            .into_iter()
            .find(|permission| *permission as u8 == number)
    }
}

/// What both sides may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The host.
    pub host: Permission,
    /// The guest.
    pub guest: Permission,
}

impl Rights {
    /// Whether neither side may do more than `limit` lets it.
    pub fn within(self, limit: Rights) -> bool {
        self.host <= limit.host && self.guest <= limit.guest
    }
}
