//! Where everything lies in a gallery, and what its first words say.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::{
    DirectoryError, DirectoryLayout, Field, Region, RegionKind, Section, Window, WindowError,
};
use shmbus_table::{LayoutError, TableLayout, Value};

use super::Card;

/// The first word of a gallery: the bytes `shmbusgl`.
pub const GALLERY_MAGIC: u64 = u64::from_le_bytes(*b"shmbusgl");

/// The version of its layout.
pub const GALLERY_VERSION: u32 = 1;

/// The most sessions that a gallery shows.
const MAX_SESSIONS: u32 = 4096;

const LINE: u64 = 64;
const PAGE: u64 = 4096;

/// Offsets of the header's words in bytes.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const SESSIONS: usize = 12;
    pub(super) const BYTES: usize = 16;
    pub(super) const PLACES: usize = 24;
    pub(super) const BUS_PLACES: usize = 28;
    pub(super) const MAP: usize = 32;
    pub(super) const BUS_MAP: usize = 40;
    pub(super) const CARDS: usize = 48;
    pub(super) const BUS_AREA: usize = 56;
    pub(super) const AREAS: usize = 64;
    pub(super) const AREA_BYTES: usize = 72;
    pub(super) const HEADER_BYTES: u64 = 128;
}

/// A gallery cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GalleryError {
    /// The memory does not start as a gallery does.
    #[error("not a gallery of shmbus: it starts with {found:#018x}")]
    Magic {
        /// The first word found.
        found: u64,
    },
    /// Its layout is of another version.
    #[error("the gallery's layout has version {found}; this program knows {GALLERY_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// More sessions than a gallery has, or none.
    #[error("a gallery shows 1 to {MAX_SESSIONS} sessions, not {found}")]
    Sessions {
        /// How many were asked for, or found.
        found: u64,
    },
    /// The memory is not as long as its header says, or that is no power of two.
    #[error("the gallery says that it has {said} bytes; the memory has {found}")]
    Size {
        /// What the header says.
        said: u64,
        /// How long the memory is.
        found: u64,
    },
    /// A part is said to be where it cannot be.
    #[error("the gallery's {part} cannot be at {offset:#x}")]
    Part {
        /// Which.
        part: &'static str,
        /// Where it is said to be.
        offset: u64,
    },
    /// More would be shown than memory can hold.
    #[error("{sessions} sessions of {area_bytes} bytes each are more than can be shown")]
    TooLarge {
        /// How many sessions.
        sessions: u32,
        /// What each needs.
        area_bytes: u64,
    },
    /// A directory has no such size.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A table has no such size.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A part does not fit.
    #[error(transparent)]
    Window(#[from] WindowError),
}

/// What a gallery's first words say; read once, and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GalleryHeader {
    /// How many sessions can be shown: areas, and slots in the table of sessions.
    pub sessions: u32,
    /// Bytes of the whole, a power of two.
    pub bytes: u64,
    /// Places in a session's directory, and words of the map of an area.
    pub places: u32,
    /// The same, of the bus.
    pub bus_places: u32,
    /// Where the map of an area is: for each place of the directory, where in the area its table is shown, or 0.
    pub map: u64,
    /// The same, of the bus's area.
    pub bus_map: u64,
    /// Where the table of sessions is.
    pub cards: u64,
    /// Where the bus's area is: its directory first.
    pub bus_area: u64,
    /// Where the first session's area is.
    pub areas: u64,
    /// Bytes from one area to the next.
    pub area_bytes: u64,
}

impl GalleryHeader {
    /// Reads the header at the start of `window`, which may hold anything: parts that it tells of lie inside.
    ///
    /// # Errors
    ///
    /// [`GalleryError`].
    pub fn read<W: Window>(window: &W) -> Result<Self, GalleryError> {
        let magic = Field::<u64, _>::new(window, at::MAGIC)?.load(Relaxed);
        // Pairs with the Release of the magic: the rest is not older. Loads from a read-only mapping are relaxed.
        window.fence(Acquire);
        if magic != GALLERY_MAGIC {
            return Err(GalleryError::Magic { found: magic });
        }
        let number =
            |offset| Ok::<_, GalleryError>(Field::<u32, _>::new(window, offset)?.load(Relaxed));
        let word =
            |offset| Ok::<_, GalleryError>(Field::<u64, _>::new(window, offset)?.load(Relaxed));
        let found = number(at::VERSION)?;
        if found != GALLERY_VERSION {
            return Err(GalleryError::Version { found });
        }
        let header = Self {
            sessions: number(at::SESSIONS)?,
            bytes: word(at::BYTES)?,
            places: number(at::PLACES)?,
            bus_places: number(at::BUS_PLACES)?,
            map: word(at::MAP)?,
            bus_map: word(at::BUS_MAP)?,
            cards: word(at::CARDS)?,
            bus_area: word(at::BUS_AREA)?,
            areas: word(at::AREAS)?,
            area_bytes: word(at::AREA_BYTES)?,
        };
        header.check(window.len() as u64)?;
        Ok(header)
    }

    fn check(&self, found: u64) -> Result<(), GalleryError> {
        let said = self.bytes;
        if said != found || !said.is_power_of_two() {
            return Err(GalleryError::Size { said, found });
        }
        check_sessions(self.sessions)?;
        let directory = DirectoryLayout::new(self.places)?.bytes() as u64;
        let bus_directory = DirectoryLayout::new(self.bus_places)?.bytes() as u64;
        let cards = card_layout(self.sessions)?.bytes() as u64;
        // No area is smaller than its directory, so that what there is to look at is bounded by the memory's size.
        let areas = self.area_bytes.checked_mul(self.sessions.into());
        let areas = areas.filter(|_| self.area_bytes >= directory);
        for (part, offset, bytes) in [
            ("map", self.map, Some(8 * u64::from(self.places))),
            (
                "bus's map",
                self.bus_map,
                Some(8 * u64::from(self.bus_places)),
            ),
            ("table of sessions", self.cards, Some(cards)),
            ("bus's area", self.bus_area, Some(bus_directory)),
            ("areas", self.areas, areas),
        ] {
            let end = bytes.and_then(|bytes| offset.checked_add(bytes));
            if !offset.is_multiple_of(LINE) || end.is_none_or(|end| end > said) {
                return Err(GalleryError::Part { part, offset });
            }
        }
        if !self.area_bytes.is_multiple_of(LINE) {
            let offset = self.area_bytes;
            return Err(GalleryError::Part {
                part: "second area",
                offset,
            });
        }
        Ok(())
    }

    /// Writes the header; the magic last, so that nobody takes what is half set up for a gallery.
    pub(crate) fn announce<W: Window>(&self, window: &W) -> Result<(), GalleryError> {
        for (offset, value) in [
            (at::VERSION, GALLERY_VERSION),
            (at::SESSIONS, self.sessions),
            (at::PLACES, self.places),
            (at::BUS_PLACES, self.bus_places),
        ] {
            Field::<u32, _>::new(window, offset)?.store(value, Relaxed);
        }
        for (offset, value) in [
            (at::BYTES, self.bytes),
            (at::MAP, self.map),
            (at::BUS_MAP, self.bus_map),
            (at::CARDS, self.cards),
            (at::BUS_AREA, self.bus_area),
            (at::AREAS, self.areas),
            (at::AREA_BYTES, self.area_bytes),
        ] {
            Field::<u64, _>::new(window, offset)?.store(value, Relaxed);
        }
        Field::<u64, _>::new(window, at::MAGIC)?.store(GALLERY_MAGIC, Release);
        Ok(())
    }

    /// Where a session's area starts, in bytes.
    pub(crate) fn area(&self, index: u32) -> u64 {
        self.areas + self.area_bytes * u64::from(index)
    }
}

fn check_sessions(sessions: u32) -> Result<(), GalleryError> {
    match sessions {
        1..=MAX_SESSIONS => Ok(()),
        found => Err(GalleryError::Sessions {
            found: found.into(),
        }),
    }
}

fn card_layout(sessions: u32) -> Result<TableLayout, LayoutError> {
    TableLayout::new(sessions, 8 * Card::WORDS as u32)
}

/// Where a table is shown, whose region has a place in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where in its area, in bytes.
    pub(crate) offset: u64,
    /// The table's geometry.
    pub(crate) layout: TableLayout,
}

/// What is shown where: the same for every session.
#[derive(Clone, Debug)]
pub(crate) struct GalleryPlan {
    pub(crate) header: GalleryHeader,
    /// For each place of a session's directory.
    pub(crate) session: Vec<Option<Place>>,
    /// The same of the bus's.
    pub(crate) bus: Vec<Option<Place>>,
}

impl GalleryPlan {
    /// Plans for so many sessions with these regions, in the order of their places in the directory, of which those in
    /// SHARED memory, in their order, are the bus's.
    ///
    /// # Errors
    ///
    /// [`GalleryError`].
    pub(crate) fn new(regions: &[Region], sessions: u32) -> Result<Self, GalleryError> {
        check_sessions(sessions)?;
        let section = |region: &Region| region.placement.memory.section();
        let own = |region: &Region| matches!(section(region), Section::Host | Section::Guest);
        let shared = |region: &&Region| section(region) == Section::Shared;
        let of_bus: Vec<Region> = regions.iter().filter(shared).copied().collect();
        let (session, area_bytes) = places(regions, own)?;
        let (bus, bus_bytes) = places(&of_bus, |_| true)?;

        let mut end = at::HEADER_BYTES;
        let mut place = |bytes: u64, alignment: u64| {
            let start = end.checked_next_multiple_of(alignment)?;
            end = start.checked_add(bytes)?;
            Some(start)
        };
        let too_large = GalleryError::TooLarge {
            sessions,
            area_bytes,
        };
        let area_bytes = area_bytes.next_multiple_of(PAGE);
        let mut place = |bytes: Option<u64>, alignment| {
            let start = bytes.and_then(|bytes| place(bytes, alignment));
            start.ok_or_else(|| too_large.clone())
        };
        let mut header = GalleryHeader {
            sessions,
            bytes: 0,
            places: session.len() as u32,
            bus_places: bus.len() as u32,
            map: place(Some(8 * session.len() as u64), LINE)?,
            bus_map: place(Some(8 * bus.len() as u64), LINE)?,
            cards: place(Some(card_layout(sessions)?.bytes() as u64), LINE)?,
            bus_area: place(Some(bus_bytes), PAGE)?,
            areas: place(area_bytes.checked_mul(sessions.into()), PAGE)?,
            area_bytes,
        };
        let bytes = end.checked_next_power_of_two();
        let bytes = bytes.filter(|bytes| isize::try_from(*bytes).is_ok());
        header.bytes = bytes.ok_or(too_large)?;
        Ok(Self {
            header,
            session,
            bus,
        })
    }
}

/// Where the tables among these regions are shown that are to be, behind the directory; and where that ends.
fn places(
    regions: &[Region],
    is_shown: impl Fn(&Region) -> bool,
) -> Result<(Vec<Option<Place>>, u64), GalleryError> {
    let mut end = DirectoryLayout::new(regions.len() as u32)?.bytes() as u64;
    let places = regions.iter().map(|region| {
        let RegionKind::Table { slots, slot_bytes } = region.purpose.kind else {
            return None;
        };
        // Of another layout than the plain one is no table that a session of this bus has.
        let layout = TableLayout::new(slots, slot_bytes).ok();
        let layout = layout.filter(|layout| layout.bytes() as u64 == region.placement.bytes)?;
        if !is_shown(region) {
            return None;
        }
        let offset = end.next_multiple_of(LINE);
        end = offset + layout.bytes() as u64;
        Some(Place { offset, layout })
    });
    Ok((places.collect(), end))
}
