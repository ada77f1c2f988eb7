//! Numbers that a side keeps from call to call.

use core::fmt;

/// A number of 16 bits that a side keeps for itself from call to call, in a word of 32.
///
/// Compilers load a field of 16 bits as 32 where that is shorter code. But processors do not forward a store to a longer
/// load: the load waits until the store has reached the cache, behind all stores before it, and among those are some to
/// lines that the other side has just taken. Here the store is as long as the load. On one processor of the kind Zen 5 the
/// device side of a split ring takes 6 ns for an element and not 11.
#[derive(Clone, Copy, Default)]
pub struct Kept(u32);

impl Kept {
    #[inline(always)]
    pub(crate) const fn new(number: u16) -> Self {
        Self(number as u32)
    }

    #[inline(always)]
    pub(crate) const fn get(self) -> u16 {
        self.0 as u16
    }

    /// The difference of two counts that both wrap.
    #[inline(always)]
    pub(crate) const fn since(self, earlier: Self) -> u16 {
        self.get().wrapping_sub(earlier.get())
    }

    /// The count that is `by` more, and wraps.
    #[inline(always)]
    pub(crate) const fn after(self, by: u16) -> Self {
        Self(self.0.wrapping_add(by as u32))
    }

    /// Counts one more, and wraps.
    #[inline(always)]
    pub(crate) const fn step(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, number: u16) {
        self.0 += u32::from(number);
    }

    #[inline(always)]
    pub(crate) fn sub(&mut self, number: u16) {
        self.0 -= u32::from(number);
    }
}

/// What lies above 16 bits does not count.
impl PartialEq for Kept {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Kept {}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
