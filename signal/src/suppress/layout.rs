//! Where a doorbell's words lie, and what can be wrong with them.

use shmbus_shm::{TreeError, TreeLayout, WindowError};

use crate::channel::ChannelId;

/// A doorbell cannot be made, or a channel cannot be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The sender's section does not hold the doorbell's tree, or the receiver's storage is too small.
    #[error("the doorbell's channels: {0}")]
    Tree(#[from] TreeError),
    /// The receiver's section does not hold the armed word.
    #[error("the doorbell's armed word: {0}")]
    Armed(#[from] WindowError),
    /// There are as many subscribers as there may be.
    #[error("there are {bound} subscribers already, which is the bound")]
    Subscribers {
        /// How many there may be.
        bound: usize,
    },
    /// The doorbell has no such channel.
    #[error("channel {channel} does not exist: the doorbell has {channels}")]
    NoSuchChannel {
        /// The index that was asked for.
        channel: u32,
        /// How many channels the doorbell has.
        channels: u32,
    },
}

/// The geometry of a doorbell: a function of its number of channels alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorbellLayout {
    tree: TreeLayout,
}

impl DoorbellLayout {
    /// The receiver's section: the armed word, `u64` at offset 0, on a line of its own.
    pub const ARMED_BYTES: usize = 64;

    /// The layout for `channels` channels, 1 to [`ChannelId::MAX_CHANNELS`].
    ///
    /// # Errors
    ///
    /// [`SignalError::Tree`].
    pub fn new(channels: u32) -> Result<Self, SignalError> {
        const { assert!(TreeLayout::MAX_LEAVES >= ChannelId::MAX_CHANNELS) };
        Ok(Self {
            tree: TreeLayout::new(channels)?,
        })
    }

    /// How many channels there are.
    pub fn channels(&self) -> u32 {
        self.tree.leaves()
    }

    /// Size of the sender's section in bytes: a generation tree with a leaf for each channel. It starts on a 64-byte
    /// line.
    pub fn tree_bytes(&self) -> usize {
        self.tree.bytes()
    }

    /// The tree of the sender's section.
    pub fn tree(&self) -> TreeLayout {
        self.tree
    }
}
