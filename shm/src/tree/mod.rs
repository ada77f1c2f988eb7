//! The generation tree: finding what changed, from a read-only mapping, in time proportional to what changed.
//!
//! Every leaf is a `u64` generation that its one writer changes. Above the leaves lie levels of *stamps*, each for 16
//! nodes of the level below, up to a single root. A stamp is the writer's count of changes, as it was at the last
//! change below. A reader remembers the root's stamp and the generations it has seen: nothing need ever be cleared, so
//! that any number of readers scan one tree without writing to it, and an idle scan is one load.
//!
//! # Ordering
//!
//! The writer stores the leaf (Release), then the stamps above it, the root last (Release). Who loads the root
//! (Acquire) and finds the stamp *n* therefore finds every change up to the *n*-th in the stamps and leaves below. The
//! stamps between need no order of their own. A leaf may be found newer than the root that led to it; it is loaded
//! with Acquire, so that what was written before it is visible when it is reported, because it is not reported again.
//!
//! loom shows this (`tests/loom_tree.rs`). What it never does is to let a store pass a load that comes before it in its
//! thread: only a writer that resumes does both, and each stamp that it stores is computed from the root that it loaded.
//!
//! # Trust
//!
//! A reader takes nothing in the tree as an index or a length. Whatever a hostile writer stores, a scan makes at most
//! one load for each word of the tree, and reports each leaf at most once.

mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use layout::{TreeError, TreeLayout};
pub use reader::{Scan, TreeReader};
pub use writer::TreeWriter;

/// Levels of stamps above the leaves, at most: 16⁶ leaves.
const MAX_LEVELS: usize = 6;
