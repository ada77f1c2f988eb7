//! Looking at a gallery.

use core::sync::atomic::Ordering::Relaxed;

use shmbus_shm::{Field, Mapped, Region, Window};
use shmbus_table::{Generation, TypedReader};

use super::{Card, GalleryError, GalleryHeader};
use crate::inspect::InspectError;
use crate::region_set::{RegionSet, attach_table, places};

/// A gallery that is looked at. The memory may hold anything, and change at any time.
pub(crate) struct Visit {
    window: Mapped,
    header: GalleryHeader,
    cards: TypedReader<Card, Mapped, Vec<u64>>,
}

/// A session that is shown.
pub(crate) struct Visited {
    /// Its area.
    area: u32,
    /// Which of the area's cards it is.
    generation: Generation,
    /// Its number.
    pub(crate) number: u64,
    /// Its guest's name.
    pub(crate) name: String,
}

impl Visit {
    /// Looks at the gallery in `window`.
    pub(crate) fn new(window: Mapped) -> Result<Self, InspectError> {
        let header = GalleryHeader::read(&window)?;
        let at = header.cards as usize;
        let cards = window
            .narrow(at, window.len() - at)
            .map_err(GalleryError::from)?;
        let cards = attach_table(&cards)?;
        Ok(Self {
            window,
            header,
            cards,
        })
    }

    /// The sessions that are shown now.
    pub(crate) fn sessions(&mut self) -> Vec<Visited> {
        let slots = self
            .cards
            .table()
            .layout()
            .slots()
            .min(self.header.sessions);
        let cards = (0..slots).filter_map(|area| match self.cards.read(area) {
            Ok((Card::Session { number, name }, generation)) => Some(Visited {
                area,
                generation,
                number,
                name: name.to_string(),
            }),
            // A slot that was never written is no session either.
            Ok((Card::Vacant, _)) | Err(_) => None,
        });
        cards.collect()
    }

    /// Whether a session is still shown where it was.
    pub(crate) fn is_there(&mut self, session: &Visited) -> bool {
        let card = self.cards.read(session.area);
        card.is_ok_and(|(_, generation)| generation == session.generation)
    }

    /// What is shown of a session: its directory, and of its regions those that are shown.
    pub(crate) fn session(
        &self,
        session: &Visited,
    ) -> Result<(Vec<Region>, RegionSet), InspectError> {
        let GalleryHeader {
            map,
            places,
            area_bytes,
            ..
        } = self.header;
        self.area(self.header.area(session.area), area_bytes, map, places)
    }

    /// What is shown of the bus.
    pub(crate) fn bus(&self) -> Result<RegionSet, InspectError> {
        let GalleryHeader {
            bus_map,
            bus_places,
            bus_area,
            bytes,
            ..
        } = self.header;
        let (_, set) = self.area(bus_area, bytes - bus_area, bus_map, bus_places)?;
        Ok(set)
    }

    fn area(
        &self,
        offset: u64,
        bytes: u64,
        map: u64,
        entries: u32,
    ) -> Result<(Vec<Region>, RegionSet), InspectError> {
        // What the header says of offsets was checked.
        let area = self.window.narrow(offset as usize, bytes as usize);
        let area = area.map_err(GalleryError::from)?;
        let shown = |place: u32, region: &Region| {
            let word = map as usize + 8 * place as usize;
            let at = Field::<u64, _>::new(&self.window, word).ok()?.load(Relaxed);
            let bytes = usize::try_from(region.placement.bytes).ok()?;
            let at = usize::try_from(at).ok().filter(|at| *at != 0)?;
            area.narrow(at, bytes).ok()
        };
        let mut regions = Vec::new();
        let mut set = RegionSet::default();
        for (place, region) in places(&area)? {
            if place >= entries {
                continue;
            }
            if let Some(window) = shown(place, &region) {
                set.insert(region, window);
            }
            regions.push(region);
        }
        Ok((regions, set))
    }
}
