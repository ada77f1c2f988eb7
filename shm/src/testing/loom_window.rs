//! Memory as loom models it.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::atomic::{AtomicU64, fence};

use crate::window::{Window, WindowError, Word, prove};

/// Bytes of a pair of words.
const PAIR_BYTES: usize = 16;

/// Declares the words of a [`LoomWindow`], inside the model's closure.
#[derive(Debug, Default)]
pub struct LoomWindowBuilder {
    words: BTreeMap<usize, (usize, AtomicU64)>,
    len: usize,
}

impl LoomWindowBuilder {
    /// Declares `count` words of `T` from byte `offset` on, zeroed.
    ///
    /// # Panics
    ///
    /// If they are misaligned or overlap declared ones.
    #[must_use]
    pub fn words<T: Word>(mut self, offset: usize, count: usize) -> Self {
        assert!(
            offset.is_multiple_of(T::BYTES),
            "words at {offset:#x} are misaligned"
        );
        for index in 0..count {
            let at = offset + index * T::BYTES;
            let clash = self
                .words
                .range(at.saturating_sub(7)..at + T::BYTES)
                .any(|(start, (bytes, _))| start + bytes > at);
            assert!(!clash, "the word at {at:#x} is declared twice");
            self.words.insert(at, (T::BYTES, AtomicU64::new(0)));
            self.len = self.len.max(at + T::BYTES);
        }
        self
    }

    /// Declares `count` pairs from byte `offset` on, zeroed. Loom has no atomic of 16 bytes, so a pair is one of 8, of which
    /// each word of the pair has a half.
    ///
    /// # Panics
    ///
    /// If they are misaligned or overlap declared ones.
    #[must_use]
    pub fn pairs(mut self, offset: usize, count: usize) -> Self {
        for at in (offset..).step_by(PAIR_BYTES).take(count) {
            self = self.words::<u64>(at, 2);
            self.words.remove(&(at + 8));
            self.words.insert(at, (PAIR_BYTES, AtomicU64::new(0)));
        }
        self
    }

    /// The window.
    pub fn build(self) -> LoomWindow {
        LoomWindow {
            words: Arc::new(self.words),
            origin: 0,
            len: self.len,
            weakening: Weakening::default(),
            fences: Arc::default(),
            relaxed_store: None,
            stores: Arc::default(),
        }
    }
}

/// What one side's window leaves out, to show that a model notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weakening {
    /// Fences of this order are not made.
    pub without_fence: Option<Ordering>,
    /// The fence with this number, counted from 0 over all orders, is not made.
    pub without_fence_number: Option<usize>,
    /// Loads are relaxed.
    pub relaxed_loads: bool,
    /// Stores are relaxed.
    pub relaxed_stores: bool,
}

/// A window of loom's atomics: one for each declared word. An access at another width, or where nothing is declared,
/// panics, so that the model also shows that each location has one width.
#[derive(Clone, Debug)]
pub struct LoomWindow {
    words: Arc<BTreeMap<usize, (usize, AtomicU64)>>,
    origin: usize,
    len: usize,
    weakening: Weakening,
    /// How many fences this side has come to. Not part of the model.
    fences: Arc<AtomicUsize>,
    /// Of so many stores each, the second number, the one with the first is relaxed.
    relaxed_store: Option<(usize, usize)>,
    /// How many stores this side has made.
    stores: Arc<AtomicUsize>,
}

impl LoomWindow {
    /// Starts declaring words.
    pub fn builder() -> LoomWindowBuilder {
        LoomWindowBuilder::default()
    }

    /// The same memory, accessed with something left out: for one side of a model that must then fail.
    #[must_use]
    pub fn weakened(&self, weakening: Weakening) -> Self {
        Self {
            weakening,
            fences: Arc::default(),
            ..self.clone()
        }
    }

    /// The same memory, for a side that makes `every` stores over and over: number `nth` of them, counted from 0, is relaxed.
    #[must_use]
    pub fn with_relaxed_store(&self, nth: usize, every: usize) -> Self {
        Self {
            relaxed_store: Some((nth, every)),
            stores: Arc::default(),
            ..self.clone()
        }
    }

    fn word(&self, offset: usize, bytes: usize) -> &AtomicU64 {
        let at = self.origin + offset;
        let Some((declared, word)) = self.words.get(&at) else {
            panic!("no word is declared at {at:#x}");
        };
        assert_eq!(*declared, bytes, "access width at {at:#x}");
        word
    }
}

// SAFETY: every access is checked against the declared words.
unsafe impl Window for LoomWindow {
    fn len(&self) -> usize {
        self.len
    }

    fn is_aligned(&self, offset: usize, alignment: usize) -> bool {
        (self.origin + offset).is_multiple_of(alignment)
    }

    fn narrow(&self, offset: usize, bytes: usize) -> Result<Self, WindowError> {
        prove(self, offset, bytes, 1)?;
        Ok(Self {
            origin: self.origin + offset,
            len: bytes,
            ..self.clone()
        })
    }

    fn fence(&self, order: Ordering) {
        let number = self.fences.fetch_add(1, Relaxed);
        if self.weakening.without_fence != Some(order)
            && self.weakening.without_fence_number != Some(number)
        {
            fence(order);
        }
    }

    unsafe fn load<T: Word>(&self, offset: usize, order: Ordering) -> T {
        let order = if self.weakening.relaxed_loads {
            Ordering::Relaxed
        } else {
            order
        };
        T::truncate(self.word(offset, T::BYTES).load(order))
    }

    unsafe fn store<T: Word>(&self, offset: usize, value: T, order: Ordering) {
        let number = self.stores.fetch_add(1, Relaxed);
        let is_relaxed = |(nth, every)| number % every == nth;
        let order = if self.weakening.relaxed_stores || self.relaxed_store.is_some_and(is_relaxed) {
            Ordering::Relaxed
        } else {
            order
        };
        self.word(offset, T::BYTES).store(value.into(), order);
    }

    fn has_pairs(&self) -> bool {
        true
    }

    unsafe fn load_pair(&self, offset: usize) -> [u64; 2] {
        let pair = self.word(offset, PAIR_BYTES).load(Ordering::Relaxed);
        [pair & u64::from(u32::MAX), pair >> 32]
    }

    unsafe fn store_pair(&self, offset: usize, pair: [u64; 2]) {
        assert!(
            pair.iter().all(|word| u32::try_from(*word).is_ok()),
            "a model's pair is of two small numbers"
        );
        let pair = pair[0] | pair[1] << 32;
        self.word(offset, PAIR_BYTES).store(pair, Ordering::Relaxed);
    }

    unsafe fn load_bytes(&self, _: usize, _: &mut [u8]) {
        panic!("loom models words, not bytes");
    }

    unsafe fn store_bytes(&self, _: usize, _: &[u8]) {
        panic!("loom models words, not bytes");
    }
}
