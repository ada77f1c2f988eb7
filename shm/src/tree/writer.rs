//! The one writer of a tree.

use core::sync::atomic::Ordering::{Relaxed, Release};

use super::layout::Nodes;
use super::{TreeError, TreeLayout};
use crate::Entries;
use crate::window::Window;

/// What no writer's count of changes reaches: at one a nanosecond it takes 292 years.
const UNREACHABLE: u64 = 1 << 63;

/// The writing side of a generation tree. It keeps its count of changes privately and reads nothing back.
#[derive(Debug)]
pub struct TreeWriter<W> {
    nodes: Nodes<W>,
    stamp: u64,
}

impl<W: Window> TreeWriter<W> {
    /// Formats the start of `window` as a tree in which nothing was ever changed: every word is zero.
    ///
    /// # Errors
    ///
    /// [`TreeError::Window`].
    pub fn create(window: &W, layout: TreeLayout) -> Result<Self, TreeError> {
        let nodes = Nodes::new(window, layout)?;
        for level in nodes.levels() {
            fill(level, 0);
        }
        fill(&nodes.leaves, 0);
        Ok(Self { nodes, stamp: 0 })
    }

    /// Goes on where a former writer of this memory stopped, possibly in the middle of a change.
    ///
    /// The leaves stay as they are. Every stamp is written anew, so that each reader compares all leaves once and finds
    /// also what the former writer did not come to announce. Readers that sleep must be woken once.
    ///
    /// # Errors
    ///
    /// [`TreeError::Window`], and [`TreeError::Root`] if the root cannot be a writer's: such memory must be given up.
    pub fn resume(window: &W, layout: TreeLayout) -> Result<Self, TreeError> {
        let nodes = Nodes::new(window, layout)?;
        let root = nodes.root().load(0, Relaxed);
        if root >= UNREACHABLE {
            return Err(TreeError::Root { root });
        }
        // A change that was under way has left `root + 1` in lower stamps: this is above it.
        let stamp = root + 2;
        for level in nodes.levels().iter().skip(1) {
            fill(level, stamp);
        }
        nodes.root().store(0, stamp, Release);
        Ok(Self { nodes, stamp })
    }

    /// The tree's geometry.
    pub fn layout(&self) -> TreeLayout {
        self.nodes.layout
    }

    /// How many changes were announced: the root's stamp.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Stores `generation` in leaf `leaf` and announces it; returns the root's new stamp. The generation must differ
    /// from the leaf's last one, or no reader reports it; zero means "never". `leaf` is below [`TreeLayout::leaves`].
    #[inline]
    pub fn mark(&mut self, leaf: u32, generation: u64) -> u64 {
        // Release: the reader that finds this generation finds what was written before it.
        self.nodes.leaves.store(leaf as usize, generation, Release);
        self.mark_parents(leaf)
    }

    /// Announces that leaf `leaf` was changed, by who writes [`TreeWriter::leaves`]; returns the root's new stamp.
    #[inline]
    pub fn mark_parents(&mut self, leaf: u32) -> u64 {
        self.stamp += 1;
        let layout = self.nodes.layout;
        for (level, nodes) in self.nodes.levels().iter().enumerate().skip(1).rev() {
            nodes.store(leaf as usize >> layout.shift(level), self.stamp, Relaxed);
        }
        // Release: who finds this stamp finds the stamps and the leaf below it.
        self.nodes.root().store(0, self.stamp, Release);
        self.stamp
    }

    /// The leaves, for an algorithm that stores generations itself, with Release, and calls
    /// [`TreeWriter::mark_parents`] then. They are rounded up to a power of two.
    #[inline]
    pub fn leaves(&self) -> &Entries<u64, W> {
        &self.nodes.leaves
    }
}

fn fill<W: Window>(nodes: &Entries<u64, W>, value: u64) {
    for index in 0..nodes.count() {
        nodes.store(index, value, Relaxed);
    }
}
