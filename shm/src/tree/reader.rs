//! A reader of a tree.

use core::ops::ControlFlow;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use super::layout::Nodes;
use super::{TreeError, TreeLayout};
use crate::Entries;
use crate::window::Window;

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The root is as it was: nothing changed. One load was made.
    Unchanged,
    /// Everything that had changed when the scan *began* was reported: the first call of it, where it was paused in
    /// between. Later changes are the next scan's, which [`TreeReader::is_unchanged`] announces.
    Finished,
    /// The visitor stopped the scan. The next call goes on with it, behind the last leaf reported.
    Paused,
}

/// A reader of a generation tree, with its own record of what it has seen: `S` is storage of a word for each leaf, a
/// `Vec<u64>` or a `&mut [u64]`.
#[derive(Debug)]
pub struct TreeReader<W, S> {
    nodes: Nodes<W>,
    /// The generation last reported of each leaf.
    seen: S,
    /// Every change up to this stamp was reported.
    stamp: u64,
    /// The scan that was paused.
    paused: Option<Sweep>,
}

/// One pass over the tree.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// The root's stamp when the pass began: what it reports, at least.
    target: u64,
    /// The leaf it has come to.
    leaf: usize,
}

impl<W: Window, S: AsMut<[u64]>> TreeReader<W, S> {
    /// Reads the tree at the start of `window`. The first scan reports every leaf that was ever marked.
    ///
    /// # Errors
    ///
    /// [`TreeError::Window`], and [`TreeError::Storage`] if `seen` has fewer words than the tree has leaves.
    pub fn new(window: &W, layout: TreeLayout, mut seen: S) -> Result<Self, TreeError> {
        let found = seen.as_mut().len();
        let leaves = layout.leaves();
        if found < leaves as usize {
            return Err(TreeError::Storage { leaves, found });
        }
        let mut reader = Self {
            nodes: Nodes::new(window, layout)?,
            seen,
            stamp: 0,
            paused: None,
        };
        reader.forget();
        Ok(reader)
    }

    /// Goes over to the writer's new memory, of the same layout. The next scan reports every leaf marked there.
    ///
    /// # Errors
    ///
    /// [`TreeError::Window`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: &W) -> Result<(), TreeError> {
        self.nodes = Nodes::new(window, self.nodes.layout)?;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.seen.as_mut().fill(0);
        self.stamp = 0;
        self.paused = None;
    }

    /// The tree's geometry.
    pub fn layout(&self) -> TreeLayout {
        self.nodes.layout
    }

    /// Every change up to this stamp was reported.
    #[inline]
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Loads the root's stamp: how many changes the writer has announced, if it is honest.
    #[inline]
    pub fn root(&self) -> u64 {
        self.nodes.root().load(0, Acquire)
    }

    /// Whether nothing is left to report. One load.
    #[inline]
    pub fn is_unchanged(&self) -> bool {
        !self.is_paused() && self.root() == self.stamp
    }

    /// Whether the last scan was broken off.
    #[inline]
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// The leaves, to look at one alone (load with Acquire). They are rounded up to a power of two.
    #[inline]
    pub fn leaves(&self) -> &Entries<u64, W> {
        &self.nodes.leaves
    }

    /// Reports every leaf that changed since it was last reported, with its generation. After a scan that paused, this
    /// finishes that one, and no more. See [`TreeReader::scan`].
    pub fn changed(&mut self, mut report: impl FnMut(u32, u64)) -> Scan {
        self.scan(|leaf, generation| {
            report(leaf, generation);
            ControlFlow::Continue(())
        })
    }

    /// Reports the leaves that changed since they were last reported, in ascending order and with their generations,
    /// until `visit` breaks off.
    ///
    /// Idle, it makes one load; otherwise at most one for each word of the tree. A scan that is broken off goes on
    /// with the next call, so a leaf that changes all the time does not hide those behind it. The call that finishes it
    /// returns [`Scan::Finished`] without a second look at the leaves before: what changed there since is left to the
    /// next scan. Whoever is to sleep looks at [`TreeReader::is_unchanged`], or scans until [`Scan::Unchanged`].
    #[inline]
    pub fn scan(&mut self, visit: impl FnMut(u32, u64) -> ControlFlow<()>) -> Scan {
        let sweep = match self.paused.take() {
            Some(sweep) => sweep,
            None => {
                let target = self.root();
                if target == self.stamp {
                    return Scan::Unchanged;
                }
                if target < self.stamp {
                    // An honest writer's count never falls. Look at everything: nothing stays hidden.
                    self.stamp = 0;
                }
                Sweep { target, leaf: 0 }
            }
        };
        self.sweep(sweep, visit)
    }

    fn sweep(&mut self, mut sweep: Sweep, visit: impl FnMut(u32, u64) -> ControlFlow<()>) -> Scan {
        let seen = self.seen.as_mut();
        let count = seen.len().min(self.nodes.layout.leaves() as usize);
        let mut descent = Descent {
            nodes: &self.nodes,
            seen: &mut seen[..count],
            since: self.stamp,
            from: sweep.leaf,
            visit,
        };
        if descent.run().is_break() {
            sweep.leaf = descent.from;
            self.paused = Some(sweep);
            return Scan::Paused;
        }
        self.stamp = sweep.target;
        Scan::Finished
    }
}

/// The way of one scan through the tree.
struct Descent<'a, W, F> {
    nodes: &'a Nodes<W>,
    /// A word for each leaf.
    seen: &'a mut [u64],
    /// Nodes with a later stamp have news below.
    since: u64,
    /// Leaves before this one are done.
    from: usize,
    visit: F,
}

/// Children of a node that are looked at together. What is found is a set of bits: where few of many have changed, a
/// branch for each would be mispredicted for each that has.
const ROW: usize = TreeLayout::FAN_OUT as usize;

impl<W: Window, F: FnMut(u32, u64) -> ControlFlow<()>> Descent<'_, W, F> {
    fn run(&mut self) -> ControlFlow<()> {
        let nodes = self.nodes;
        // The root may have fewer children than other nodes.
        let children = nodes.layout.nodes(1);
        match nodes.levels() {
            [] => ControlFlow::Continue(()),
            [_root] => self.leaves(0, children),
            [_root, stamps, levels @ ..] => self.below(stamps, levels, 0, children),
        }
    }

    /// Visits what changed below node `node`, which has `children` of these `stamps`; under them lie `levels`, then the
    /// leaves. It is as deep as the tree.
    fn below(
        &mut self,
        stamps: &Entries<u64, W>,
        levels: &[Entries<u64, W>],
        node: usize,
        children: usize,
    ) -> ControlFlow<()> {
        let bits_a_level = self.nodes.layout.shift(self.nodes.layout.levels() - 1);
        let first = node * children;
        let since = self.since;
        let has_news = |stamp: u64| stamp > since;
        let news = if children == ROW {
            let row: [u64; ROW] = stamps.load_row(node);
            bits(ROW, |index| has_news(row[index]))
        } else {
            bits(children, |index| {
                has_news(stamps.load(first + index, Relaxed))
            })
        };
        // Of the nodes that the scan began in the middle of, what lies before is done.
        let done = self.from >> (bits_a_level * (levels.len() as u32 + 1));
        let mut news = news & from_bit(done, first);
        let children = 1 << bits_a_level;
        while news != 0 {
            let child = first + news.trailing_zeros() as usize;
            news &= news - 1;
            match levels {
                [] => self.leaves(child, children)?,
                [stamps, levels @ ..] => self.below(stamps, levels, child, children)?,
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits what changed of the leaves under node `node` of the last level.
    #[inline(always)]
    fn leaves(&mut self, node: usize, children: usize) -> ControlFlow<()> {
        let first = node * children;
        let Some(seen) = self.seen.get_mut(first..) else {
            return ControlFlow::Continue(());
        };
        let Some(seen) = seen.first_chunk_mut::<ROW>().filter(|_| children == ROW) else {
            return self.few_leaves(first, children);
        };
        let leaves = &self.nodes.leaves;
        let row: [u64; ROW] = leaves.load_row(node);
        let news = bits(ROW, |index| row[index] != seen[index]);
        // Pairs with the Release of the leaves: what was written before them is visible to who is told of them.
        leaves.fence(Acquire);
        let mut news = news & from_bit(self.from, first);
        while news != 0 {
            let index = news.trailing_zeros() as usize % ROW;
            news &= news - 1;
            seen[index] = row[index];
            self.from = first + index + 1;
            (self.visit)((first + index) as u32, row[index])?;
        }
        ControlFlow::Continue(())
    }

    /// The same where there is no whole row: in small trees, and at the end.
    #[cold]
    fn few_leaves(&mut self, first: usize, children: usize) -> ControlFlow<()> {
        let end = (first + children).min(self.seen.len());
        let first = first.max(self.from);
        let Some(seen) = self.seen.get_mut(first..end) else {
            return ControlFlow::Continue(());
        };
        for (leaf, seen) in (first..end).zip(seen) {
            // Acquire: as for a row.
            let generation = self.nodes.leaves.load(leaf, Acquire);
            if generation != *seen {
                *seen = generation;
                self.from = leaf + 1;
                (self.visit)(leaf as u32, generation)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The set of those of `count` children, 64 at most, for which `is_news` holds.
#[inline(always)]
fn bits(count: usize, is_news: impl Fn(usize) -> bool) -> u64 {
    (0..count).fold(0, |news, index| news | u64::from(is_news(index)) << index)
}

/// All but the children before `from`, where `first` is the first.
#[inline(always)]
fn from_bit(from: usize, first: usize) -> u64 {
    u64::MAX
        .checked_shl(from.saturating_sub(first) as u32)
        .unwrap_or(0)
}
