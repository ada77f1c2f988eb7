//! The names of channels.

use core::fmt;

/// How many priority classes there are. Each has a doorbell of its own, in each direction between two sides.
pub const CLASSES: usize = shmbus_shm::PRIORITY_CLASSES as usize;

/// A priority class: 0 is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The class that is served first.
    pub const HIGHEST: Self = Self(0);

    /// The class that is served last.
    pub const LOWEST: Self = Self(CLASSES as u8 - 1);

    /// Class `class`, if there is one: it is below [`CLASSES`].
    pub const fn new(class: u8) -> Option<Self> {
        if (class as usize) < CLASSES {
            Some(Self(class))
        } else {
            None
        }
    }

    /// The class as an index below [`CLASSES`].
    pub fn class(self) -> usize {
        usize::from(self.0)
    }
}

/// A logical channel between two sides: its class in the top byte, its index in the class's doorbell below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(u32);

impl ChannelId {
    /// The most channels a class can have.
    pub const MAX_CHANNELS: u32 = 1 << 24;

    /// Channel `index` of class `priority`, if the index fits in 24 bits.
    pub fn new(priority: Priority, index: u32) -> Option<Self> {
        (index < Self::MAX_CHANNELS).then_some(Self(u32::from(priority.0) << 24 | index))
    }

    /// The channel that a directory names, if its class exists.
    pub fn from_u32(id: u32) -> Option<Self> {
        Priority::new((id >> 24) as u8).map(|_| Self(id))
    }

    /// The number that stands in a directory.
    pub fn to_u32(self) -> u32 {
        self.0
    }

    /// The priority class.
    pub fn priority(self) -> Priority {
        Priority((self.0 >> 24) as u8)
    }

    /// The index within the class's doorbell.
    pub fn index(self) -> u32 {
        self.0 & (Self::MAX_CHANNELS - 1)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({}:{})", self.priority().0, self.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_from_a_peer_is_a_channel_only_if_its_class_exists() {
        let id = ChannelId::new(Priority::LOWEST, 77).unwrap();
        assert_eq!(id.to_u32(), 0x0300_004d);
        assert_eq!(ChannelId::from_u32(id.to_u32()), Some(id));
        assert_eq!((id.priority(), id.index()), (Priority::LOWEST, 77));
        assert_eq!(ChannelId::from_u32(0x0400_0000), None);
        assert_eq!(ChannelId::new(Priority::HIGHEST, 1 << 24), None);
        assert_eq!(Priority::new(4), None);
    }
}
