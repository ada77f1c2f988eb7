//! The memory that both sides share.

use std::marker::PhantomData;
use std::sync::atomic::Ordering::Relaxed;

use arbitrary::{Arbitrary, Unstructured};
use shmbus_ring::Buffer;
use shmbus_shm::testing::Probed;
use shmbus_shm::{Bytes, Field, Mapped, OffsetSpace, Window, heap};

use super::Format;
use super::formats::{Areas, Placement};
use super::lies::{Lie, Lies};
use super::program::field;
use super::setting::{MOST_ENTRIES, Setting};
use crate::tamper;

/// The most buffers of an honest chain, of either kind.
const MOST_BUFFERS: u8 = 5;
const TABLE_BYTES: usize = 16 * 2 * MOST_BUFFERS as usize;
/// Where buffers lie: behind an indirect table for each chain that a ring can have.
const BUFFERS: usize = TABLE_BYTES * MOST_ENTRIES as usize;
const BUFFER_BYTES: usize = u8::MAX as usize;

/// What the side under test looks through, and its honest peer too, which is told no lies.
pub type Spoilt = Probed<Mapped, Lies>;

/// What makes the ring another one than its honest sides made it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tampering {
    /// A word of 16 bits of the ring's memory is written.
    Ring(u16, u16),
    /// Or of the buffers, where indirect tables lie.
    Buffers(u16, u16),
    /// A word of 64 bits is copied to where another was: a descriptor comes twice, or again.
    Copy(u8, u8),
    /// A load finds what is not there.
    Lie(Lie),
}

impl<'a> Arbitrary<'a> for Tampering {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.int_in_range(0..=3)? {
            0 => Self::Ring(bytes.arbitrary::<u8>()?.into(), field(bytes)?),
            1 => Self::Buffers(bytes.arbitrary()?, field(bytes)?),
            2 => Self::Copy(bytes.arbitrary()?, bytes.arbitrary()?),
            _ => Self::Lie(bytes.arbitrary()?),
        })
    }
}

/// A ring and its buffers, in memory that both sides write.
pub(super) struct Memory<F> {
    setting: Setting,
    ring: Mapped,
    buffers: Mapped,
    lies: Lies,
    format: PhantomData<F>,
}

impl<F: Format> Memory<F> {
    pub(super) fn new(setting: Setting) -> Self {
        Self {
            setting,
            ring: heap(F::Placement::bytes(setting)),
            buffers: heap(BUFFERS + BUFFER_BYTES),
            lies: Lies::default(),
            format: PhantomData,
        }
    }

    /// What a peer does that keeps to no rule.
    pub(super) fn tamper(&self, tampering: Tampering) {
        match tampering {
            Tampering::Ring(word, value) => tamper(&self.ring, &[(word, value)]),
            Tampering::Buffers(word, value) => tamper(&self.buffers, &[(word, value)]),
            Tampering::Copy(from, to) => {
                let words = self.ring.len() / 8;
                let word = |index: u8| {
                    Field::<u64, _>::new(&self.ring, 8 * (usize::from(index) % words))
                        .expect("it is aligned")
                };
                word(to).store(word(from).load(Relaxed), Relaxed);
            }
            Tampering::Lie(lie) => self.lies.push(lie),
        }
    }

    /// The areas as the side under test sees them.
    pub(super) fn spoilt_areas(&self) -> Areas<F> {
        self.areas(self.lies.clone())
    }

    /// The areas as they are.
    pub(super) fn honest_areas(&self) -> Areas<F> {
        self.areas(Lies::default())
    }

    fn areas(&self, lies: Lies) -> Areas<F> {
        F::Placement::areas(self.setting, &Probed::new(self.ring.clone(), lies))
    }

    /// The buffers as the side under test sees them.
    pub(super) fn spoilt_space(&self) -> OffsetSpace<Spoilt> {
        OffsetSpace::new(Probed::new(self.buffers.clone(), self.lies.clone()))
    }

    /// The buffers as they are.
    pub(super) fn honest_space(&self) -> OffsetSpace<Mapped> {
        OffsetSpace::new(self.buffers.clone())
    }

    /// From now on the side under test finds what is there.
    pub(super) fn stop_lying(&self) {
        self.lies.stop();
    }

    /// Where the indirect table of a chain lies, and its memory: one each for as many chains as a ring can have.
    pub(super) fn table(&self, chain: u8) -> (u64, Bytes<'_, Mapped>) {
        let offset = TABLE_BYTES * usize::from(chain % MOST_ENTRIES);
        let table = Bytes::new(&self.buffers, offset, TABLE_BYTES);
        (offset as u64, table.expect("the memory is long enough"))
    }

    /// Moves the ring to other addresses, as a hot-plug does. What is left behind is overwritten.
    pub(super) fn remap(&mut self) {
        let mut contents = vec![0; self.ring.len()];
        let moved = heap(contents.len());
        let bytes = |window| Bytes::new(window, 0, moved.len()).expect("all of it");
        bytes(&self.ring).copy_to(0, &mut contents);
        bytes(&moved).copy_from(0, &contents);
        contents.fill(0xa5);
        bytes(&self.ring).copy_from(0, &contents);
        self.ring = moved;
    }
}

/// An honest chain.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Chain {
    /// How many buffers of either kind.
    counts: u8,
    /// How long each of them is; they all lie in the same place.
    len: u8,
    /// Whether it gets a table of its own.
    pub(super) indirect: bool,
}

impl Chain {
    pub(super) fn buffers(self) -> (Vec<Buffer>, Vec<Buffer>) {
        let kinds = MOST_BUFFERS + 1;
        let some = |count: u8| {
            let buffer = Buffer::new(BUFFERS as u64, self.len.into());
            vec![buffer; usize::from(count % kinds)]
        };
        (some(self.counts), some(self.counts / kinds))
    }
}
