//! The memory's first page.

use core::num::NonZeroUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::{Array, Field, Window};

use super::error::LayoutError;
use super::{AREA_PAGE_BYTES, HEADER_BYTES, MAGIC, MAX_AREAS, PAGE, VECTORS, VERSION};

/// No peer, where an area belongs to nobody.
const NOBODY: u32 = u32::MAX;
/// Bit 0 of the flags: the memory is that of several guests.
const SHARED: u32 = 1 << 0;
/// Where the areas' places start, in bytes, and how far they are apart.
const AREAS_AT: usize = 64;
const AREA_STRIDE: usize = 32;
const _: () = assert!(AREAS_AT + MAX_AREAS * AREA_STRIDE <= HEADER_BYTES);

/// Offsets of the words in bytes.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const FLAGS: usize = 12;
    pub(super) const BYTES: usize = 16;
    pub(super) const HOST: usize = 24;
    pub(super) const VECTORS: usize = 28;
    pub(super) const AREAS: usize = 32;
}

/// Where an area is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaPlace {
    /// The peer that it belongs to; none while it is free.
    pub peer: Option<u16>,
    /// Where it starts in the memory, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// What the host says of the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether other guests have the same memory.
    pub is_shared: bool,
    /// How long the memory is, in bytes.
    pub bytes: u64,
    /// The host's peer id.
    pub host: u16,
    /// How many vectors each peer has.
    pub vectors: u16,
    /// The areas, at most [`MAX_AREAS`].
    pub areas: Vec<AreaPlace>,
}

impl Header {
    /// Reads the header of a mapped memory, each word once, and checks it. What the host changes later are the areas' peers
    /// alone.
    ///
    /// # Errors
    ///
    /// [`LayoutError`].
    pub fn read<W: Window>(memory: &W) -> Result<Self, LayoutError> {
        let words = Words::new(memory)?;
        let magic = words.u64(at::MAGIC);
        // Pairs with the Release of the magic: the rest is not older.
        memory.fence(Acquire);
        if magic != MAGIC {
            return Err(LayoutError::Magic { found: magic });
        }
        let found = words.u32(at::VERSION);
        if found != VERSION {
            return Err(LayoutError::Version { found });
        }
        let (told, mapped) = (words.u64(at::BYTES), memory.len() as u64);
        if told != mapped {
            return Err(LayoutError::Size { told, mapped });
        }
        let expect = |holds: bool, expected, found: u32| match holds {
            true => Ok(()),
            false => Err(LayoutError::Header {
                expected,
                found: found.into(),
            }),
        };
        let host = words.u32(at::HOST);
        expect(host <= u16::MAX.into(), "a host's peer id of 16 bits", host)?;
        let vectors = words.u32(at::VECTORS);
        let known = vectors == u32::from(VECTORS);
        expect(known, "as many vectors as priority classes", vectors)?;
        let areas = words.u32(at::AREAS);
        let known = (1..=MAX_AREAS as u32).contains(&areas);
        expect(known, "1 to 64 areas", areas)?;
        let areas = (0..areas as usize).map(|area| {
            let place = words.area(area);
            match is_within(place.offset, place.bytes, told) {
                true => Ok(place),
                false => Err(LayoutError::Area {
                    area,
                    offset: place.offset,
                    bytes: place.bytes,
                }),
            }
        });
        Ok(Self {
            is_shared: words.u32(at::FLAGS) & SHARED != 0,
            bytes: told,
            host: host as u16,
            vectors: vectors as u16,
            areas: areas.collect::<Result<_, _>>()?,
        })
    }

    /// Writes the header; the magic last, so that nobody takes what is half set up for a memory of the bus. More areas than
    /// [`MAX_AREAS`] are left out.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`].
    pub fn write<W: Window>(&self, memory: &W) -> Result<(), LayoutError> {
        let words = Words::new(memory)?;
        words.store_u64(at::MAGIC, 0);
        memory.fence(Release);
        let areas = &self.areas[..self.areas.len().min(MAX_AREAS)];
        for (offset, value) in [
            (at::VERSION, VERSION),
            (at::FLAGS, if self.is_shared { SHARED } else { 0 }),
            (at::HOST, self.host.into()),
            (at::VECTORS, self.vectors.into()),
            (at::AREAS, areas.len() as u32),
        ] {
            words.store_u32(offset, value);
        }
        words.store_u64(at::BYTES, self.bytes);
        for (area, place) in areas.iter().enumerate() {
            words.store_u64(area_at(area) + 8, place.offset);
            words.store_u64(area_at(area) + 16, place.bytes);
            words.store_u32(area_at(area), peer_word(place.peer));
        }
        Field::<u64, _>::new(memory, at::MAGIC)?.store(MAGIC, Release);
        Ok(())
    }

    /// Says whose an area is from now on.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`], also for an area that there cannot be.
    pub fn assign<W: Window>(
        memory: &W,
        area: usize,
        peer: Option<u16>,
    ) -> Result<(), LayoutError> {
        let offset = area_at(area.min(MAX_AREAS));
        let words = memory.narrow(0, AREAS_AT + MAX_AREAS * AREA_STRIDE)?;
        Field::<u32, _>::new(&words, offset)?.store(peer_word(peer), Release);
        Ok(())
    }

    /// The area of a peer.
    pub fn area_of(&self, peer: u16) -> Option<AreaPlace> {
        let mut areas = self.areas.iter();
        areas.find(|place| place.peer == Some(peer)).copied()
    }
}

/// Whether a range lies on whole pages behind the header, within a memory of `memory` bytes, and holds an area's words.
pub(super) fn is_within(offset: u64, bytes: u64, memory: u64) -> bool {
    offset.is_multiple_of(PAGE)
        && bytes.is_multiple_of(PAGE)
        && offset >= HEADER_BYTES as u64
        && bytes >= AREA_PAGE_BYTES as u64
        && offset.checked_add(bytes).is_some_and(|end| end <= memory)
}

fn area_at(area: usize) -> usize {
    AREAS_AT + area * AREA_STRIDE
}

fn peer_word(peer: Option<u16>) -> u32 {
    peer.map_or(NOBODY, u32::from)
}

/// The header's words. Those of 4 bytes and those of 8 are never the same.
struct Words<W> {
    narrow: Array<u32, W>,
    wide: Array<u64, W>,
}

impl<W: Window> Words<W> {
    fn new(memory: &W) -> Result<Self, LayoutError> {
        const WORDS: NonZeroUsize = NonZeroUsize::new(HEADER_BYTES / 4).unwrap();
        const DOUBLE_WORDS: NonZeroUsize = NonZeroUsize::new(HEADER_BYTES / 8).unwrap();
        Ok(Self {
            narrow: Array::new(memory, 0, WORDS)?,
            wide: Array::new(memory, 0, DOUBLE_WORDS)?,
        })
    }

    fn u32(&self, offset: usize) -> u32 {
        self.narrow.load(offset / 4, Relaxed)
    }

    fn u64(&self, offset: usize) -> u64 {
        self.wide.load(offset / 8, Relaxed)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.narrow.store(offset / 4, value, Relaxed);
    }

    fn store_u64(&self, offset: usize, value: u64) {
        self.wide.store(offset / 8, value, Relaxed);
    }

    fn area(&self, area: usize) -> AreaPlace {
        let peer = self.u32(area_at(area));
        AreaPlace {
            peer: u16::try_from(peer).ok(),
            offset: self.u64(area_at(area) + 8),
            bytes: self.u64(area_at(area) + 16),
        }
    }
}
