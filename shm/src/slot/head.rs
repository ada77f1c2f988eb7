//! Where the newest complete generation of a slot is named.

use core::sync::atomic::Ordering;

use super::generation::Generation;
use crate::field::{Entries, Field};
use crate::window::Window;

/// A head word, as its readers see it.
///
/// The load is relaxed, which is all that is sanctioned on a read-only mapping; the kernel puts a fence behind it.
pub trait HeadLoad: Copy {
    /// Loads the word.
    fn load(&self) -> u64;
}

/// A head word, as its writer sees it.
pub trait HeadStore {
    /// Stores the generation with [`Ordering::Release`]: the copy is complete before the head names it.
    fn store(&mut self, generation: Generation);
}

impl<W: Window> HeadLoad for &Field<u64, W> {
    #[inline(always)]
    fn load(&self) -> u64 {
        Field::load(self, Ordering::Relaxed)
    }
}

impl<W: Window> HeadStore for &Field<u64, W> {
    #[inline(always)]
    fn store(&mut self, generation: Generation) {
        Field::store(self, generation.word(), Ordering::Release);
    }
}

/// The head of slot `index` in a dense array of heads.
#[derive(Debug)]
pub struct HeadAt<'a, W> {
    heads: &'a Entries<u64, W>,
    index: usize,
}

impl<W> Clone for HeadAt<'_, W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for HeadAt<'_, W> {}

impl<'a, W: Window> HeadAt<'a, W> {
    /// The head at `index` modulo the array's length.
    #[inline(always)]
    pub fn new(heads: &'a Entries<u64, W>, index: usize) -> Self {
        Self { heads, index }
    }
}

impl<W: Window> HeadLoad for HeadAt<'_, W> {
    #[inline(always)]
    fn load(&self) -> u64 {
        self.heads.load(self.index, Ordering::Relaxed)
    }
}

impl<W: Window> HeadStore for HeadAt<'_, W> {
    #[inline(always)]
    fn store(&mut self, generation: Generation) {
        self.heads
            .store(self.index, generation.word(), Ordering::Release);
    }
}
