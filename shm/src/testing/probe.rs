//! Windows that look at, change, or lose accesses.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::window::{FenceScope, MemoryType, Window, WindowError, Word, prove};

/// What happens at each access of a [`Probed`] window.
pub trait Probe: Clone {
    /// Called with what a load found; returns what the algorithm gets to see.
    fn load(&self, _offset: usize, _bytes: usize, value: u64) -> u64 {
        value
    }

    /// Whether the machine promises to access pairs at once, if it does.
    fn allows_pairs(&self) -> bool {
        true
    }

    /// Called before a store; returns whether it reaches memory.
    fn store(&self, _offset: usize, _bytes: usize, _value: u64) -> bool {
        true
    }
}

/// Both, the first one first; a store must pass both.
impl<A: Probe, B: Probe> Probe for (A, B) {
    fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
        let value = self.0.load(offset, bytes, value);
        self.1.load(offset, bytes, value)
    }

    fn store(&self, offset: usize, bytes: usize, value: u64) -> bool {
        let passes = self.0.store(offset, bytes, value);
        self.1.store(offset, bytes, value) && passes
    }
}

/// A window whose every load and store goes through a [`Probe`]. Bulk copies count as one access a word or byte, a pair as two
/// loads, but one store.
#[derive(Clone, Debug)]
pub struct Probed<W, P> {
    window: W,
    /// Where the window starts in the one that was probed first: probes see offsets from there.
    origin: usize,
    probe: P,
}

impl<W: Window, P: Probe> Probed<W, P> {
    /// Puts `probe` before `window`.
    pub fn new(window: W, probe: P) -> Self {
        Self {
            window,
            origin: 0,
            probe,
        }
    }

    /// The probe.
    pub fn probe(&self) -> &P {
        &self.probe
    }
}

// SAFETY: bounds and accesses are the inner window's.
unsafe impl<W: Window, P: Probe> Window for Probed<W, P> {
    fn len(&self) -> usize {
        self.window.len()
    }

    fn is_aligned(&self, offset: usize, alignment: usize) -> bool {
        self.window.is_aligned(offset, alignment)
    }

    fn memory_type(&self) -> MemoryType {
        self.window.memory_type()
    }

    fn fence_scope(&self) -> FenceScope {
        self.window.fence_scope()
    }

    fn has_pairs(&self) -> bool {
        self.window.has_pairs() && self.probe.allows_pairs()
    }

    fn narrow(&self, offset: usize, bytes: usize) -> Result<Self, WindowError> {
        prove(self, offset, bytes, 1)?;
        Ok(Self {
            window: self.window.narrow(offset, bytes)?,
            origin: self.origin + offset,
            probe: self.probe.clone(),
        })
    }

    fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }

    unsafe fn load<T: Word>(&self, offset: usize, order: Ordering) -> T {
        // SAFETY: the caller's contract is the inner window's.
        let value: T = unsafe { self.window.load(offset, order) };
        T::truncate(
            self.probe
                .load(self.origin + offset, T::BYTES, value.into()),
        )
    }

    unsafe fn store<T: Word>(&self, offset: usize, value: T, order: Ordering) {
        if self
            .probe
            .store(self.origin + offset, T::BYTES, value.into())
        {
            // SAFETY: the caller's contract is the inner window's.
            unsafe { self.window.store(offset, value, order) }
        }
    }

    unsafe fn load_pair(&self, offset: usize) -> [u64; 2] {
        // SAFETY: the caller's contract is the inner window's.
        let pair = unsafe { self.window.load_pair(offset) };
        let at = self.origin + offset;
        [
            self.probe.load(at, 8, pair[0]),
            self.probe.load(at + 8, 8, pair[1]),
        ]
    }

    unsafe fn store_pair(&self, offset: usize, pair: [u64; 2]) {
        // It is stored at once, or not at all.
        if self.probe.store(self.origin + offset, 16, pair[0]) {
            // SAFETY: the caller's contract is the inner window's.
            unsafe { self.window.store_pair(offset, pair) }
        }
    }

    unsafe fn load_bytes(&self, offset: usize, to: &mut [u8]) {
        // SAFETY: the caller's contract is the inner window's.
        unsafe { self.window.load_bytes(offset, to) };
        for (index, byte) in to.iter_mut().enumerate() {
            *byte = self
                .probe
                .load(self.origin + offset + index, 1, u64::from(*byte)) as u8;
        }
    }

    unsafe fn store_bytes(&self, offset: usize, from: &[u8]) {
        for (index, byte) in from.iter().enumerate() {
            if self
                .probe
                .store(self.origin + offset + index, 1, u64::from(*byte))
            {
                // SAFETY: the caller's contract covers each byte.
                unsafe { self.window.store_bytes(offset + index, &[*byte]) }
            }
        }
    }
}

/// Counts accesses: what a bound on work per call is asserted with.
#[derive(Clone, Debug, Default)]
pub struct Counting {
    counts: Arc<(AtomicU64, AtomicU64)>,
}

impl Counting {
    /// Loads so far.
    pub fn loads(&self) -> u64 {
        self.counts.0.load(Relaxed)
    }

    /// Stores so far.
    pub fn stores(&self) -> u64 {
        self.counts.1.load(Relaxed)
    }
}

impl Probe for Counting {
    fn load(&self, _: usize, _: usize, value: u64) -> u64 {
        self.counts.0.fetch_add(1, Relaxed);
        value
    }

    fn store(&self, _: usize, _: usize, _: u64) -> bool {
        self.counts.1.fetch_add(1, Relaxed);
        true
    }
}

/// A writer that dies: after a number of stores no further one reaches memory.
#[derive(Clone, Debug)]
pub struct Dying {
    left: Arc<AtomicU64>,
}

impl Dying {
    /// Dies after `stores` stores.
    pub fn after(stores: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(stores)),
        }
    }

    /// Dies after `stores` more stores, however many were left.
    pub fn dies_after(&self, stores: u64) {
        self.left.store(stores, Relaxed);
    }

    /// Whether a store has been lost.
    pub fn is_dead(&self) -> bool {
        self.left.load(Relaxed) == u64::MAX
    }
}

impl Probe for Dying {
    fn store(&self, _: usize, _: usize, _: u64) -> bool {
        match self.left.load(Relaxed) {
            u64::MAX => false,
            0 => {
                self.left.store(u64::MAX, Relaxed);
                false
            }
            left => {
                self.left.store(left - 1, Relaxed);
                true
            }
        }
    }
}

/// A peer that changes memory between any two loads: each load may find anything.
///
/// The values come from a small generator with a stated seed, so that a failure repeats. They are biased to what
/// hurts: zero, ones, small numbers, the true value off by a little, and random bits.
#[derive(Clone, Debug)]
pub struct Hostile {
    state: Arc<AtomicU64>,
    /// Of 256 loads, how many are lied to.
    lies: Arc<AtomicU8>,
}

impl Hostile {
    /// A peer that lies in `lies` of 256 loads.
    pub fn new(seed: u64, lies: u8) -> Self {
        Self {
            state: Arc::new(AtomicU64::new(seed)),
            lies: Arc::new(AtomicU8::new(lies)),
        }
    }

    /// Lies in `lies` of 256 loads from now on.
    pub fn lie_in(&self, lies: u8) {
        self.lies.store(lies, Relaxed);
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(GAMMA, Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Probe for Hostile {
    fn load(&self, _: usize, _: usize, value: u64) -> u64 {
        let random = self.next();
        if (random >> 8) as u8 >= self.lies.load(Relaxed) {
            return value;
        }
        match random & 7 {
            0 => 0,
            1 => u64::MAX,
            2 => (random >> 32) & 0xff,
            3 => value.wrapping_add((random >> 32) & 3),
            4 => value.wrapping_sub((random >> 32) & 3),
            5 => value ^ (1 << ((random >> 32) & 63)),
            _ => self.next(),
        }
    }
}
