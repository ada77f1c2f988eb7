//! Where a tree's words lie.

use crate::Entries;
use crate::tree::MAX_LEVELS;
use crate::window::{Window, WindowError};

/// A generation tree cannot be made, or not on this memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The number of leaves is zero or too large.
    #[error("a generation tree has 1 to {max} leaves, not {leaves}", max = TreeLayout::MAX_LEAVES)]
    Leaves {
        /// How many leaves were asked for.
        leaves: u32,
    },
    /// The memory does not hold the tree.
    #[error("the generation tree does not fit its memory: {0}")]
    Window(#[from] WindowError),
    /// The reader was given too little storage for the generations it has seen.
    #[error("a reader of {leaves} leaves needs storage for as many words, not {found}")]
    Storage {
        /// The tree's leaves: words that are needed.
        leaves: u32,
        /// Words that were given.
        found: usize,
    },
    /// The old contents are not a tree's: its root holds a stamp that no writer reaches.
    #[error("the root's stamp {root:#x} is beyond what a writer can have counted")]
    Root {
        /// The stamp found in the root.
        root: u64,
    },
}

/// The geometry of a generation tree: a function of its number of leaves alone.
///
/// The number of leaves is rounded up to a power of two, `n`. Words are `u64`. From the start of the tree's memory:
/// the root, the wider levels down to one of `n / 16` stamps, then the `n` leaves; each starts on a 64-byte line of its
/// own, provided that the memory does. Up to 16 leaves the root is the only level above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeLayout {
    leaves: u32,
    fan_out_bits: u32,
    /// Levels of stamps, the root's included.
    levels: usize,
}

const LINE: usize = 64;

impl TreeLayout {
    /// How many nodes a stamp stands for.
    pub const FAN_OUT: u32 = 16;

    /// The most leaves a tree can have.
    pub const MAX_LEAVES: u32 = 1 << (MAX_LEVELS as u32 * Self::FAN_OUT.trailing_zeros());

    /// The layout for `leaves` leaves, 1 to [`TreeLayout::MAX_LEAVES`].
    ///
    /// # Errors
    ///
    /// [`TreeError::Leaves`].
    pub fn new(leaves: u32) -> Result<Self, TreeError> {
        Self::with_fan_out_bits(leaves, Self::FAN_OUT.trailing_zeros())
    }

    /// A layout of another fan-out, so that a model of few words has several levels. No memory format of shmbus uses it.
    ///
    /// # Errors
    ///
    /// [`TreeError::Leaves`].
    #[cfg(feature = "testing")]
    pub fn for_model(leaves: u32, fan_out_bits: u32) -> Result<Self, TreeError> {
        Self::with_fan_out_bits(leaves, fan_out_bits)
    }

    fn with_fan_out_bits(leaves: u32, fan_out_bits: u32) -> Result<Self, TreeError> {
        if leaves == 0 || u64::from(leaves) > 1 << (MAX_LEVELS as u32 * fan_out_bits) {
            return Err(TreeError::Leaves { leaves });
        }
        let index_bits = leaves.next_power_of_two().trailing_zeros();
        Ok(Self {
            leaves,
            fan_out_bits,
            levels: index_bits.div_ceil(fan_out_bits).max(1) as usize,
        })
    }

    /// How many leaves the tree was made for.
    pub fn leaves(&self) -> u32 {
        self.leaves
    }

    /// Levels of stamps above the leaves, the root's included: 1 to 6.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// How many words level `level` has: 0 is the root's, [`TreeLayout::levels`] the leaves'.
    pub fn nodes(&self, level: usize) -> usize {
        let leaves = self.leaves.next_power_of_two() as usize;
        (leaves >> self.shift(level)).max(1)
    }

    /// Where level `level` starts, in bytes from the tree's start.
    pub fn offset(&self, level: usize) -> usize {
        (0..level).map(|above| self.level_bytes(above)).sum()
    }

    /// The tree's size in bytes: a multiple of 64.
    pub fn bytes(&self) -> usize {
        self.offset(self.levels + 1)
    }

    fn level_bytes(&self, level: usize) -> usize {
        (self.nodes(level) * 8).next_multiple_of(LINE)
    }

    /// A leaf's index, shifted right by this, is the index of the node above it in `level`.
    pub(super) fn shift(&self, level: usize) -> u32 {
        self.levels.saturating_sub(level) as u32 * self.fan_out_bits
    }
}

/// A tree's words: the levels of stamps, the root's first, and the leaves.
#[derive(Clone, Debug)]
pub(super) struct Nodes<W> {
    /// Only the first `layout.levels()` are levels; the rest repeat the root.
    levels: [Entries<u64, W>; MAX_LEVELS],
    pub(super) leaves: Entries<u64, W>,
    pub(super) layout: TreeLayout,
}

impl<W: Window> Nodes<W> {
    pub(super) fn new(window: &W, layout: TreeLayout) -> Result<Self, WindowError> {
        let carve = |level| Entries::new(window, layout.offset(level), layout.nodes(level));
        let root = carve(0)?;
        let mut levels = core::array::from_fn(|_| root.clone());
        for (level, nodes) in levels.iter_mut().enumerate().take(layout.levels()) {
            *nodes = carve(level)?;
        }
        Ok(Self {
            levels,
            leaves: carve(layout.levels())?,
            layout,
        })
    }

    #[inline(always)]
    pub(super) fn root(&self) -> &Entries<u64, W> {
        &self.levels[0]
    }

    /// The levels of stamps, the root's first.
    #[inline(always)]
    pub(super) fn levels(&self) -> &[Entries<u64, W>] {
        &self.levels[..self.layout.levels.min(MAX_LEVELS)]
    }
}
