//! The host's side of a gallery: what it shows, and when.
//!
//! A device that was called may have changed its tables, or read what its guests changed in theirs: then what is shown of it is looked
//! through, for one session after the other. Work per turn is bounded, and the rest comes with the next turn, a counters'
//! period later. Without a gallery nothing of this costs anything.

mod exhibit;
mod file;

use std::collections::{BTreeMap, VecDeque};

use shmbus_devices::SessionId;
use shmbus_shm::slot::Epoch;
use shmbus_shm::{Mapped, Region, Window, Writing};
use shmbus_table::TypedWriter;
use shmbus_transports::Memory;
use shmbus_transports::local::GuestName;

use self::exhibit::Exhibit;
pub(super) use self::file::InspectFile;
pub use self::file::InspectFileError;
use super::HostError;
use crate::gallery::{Card, GalleryError, GalleryPlan, MEMORY, Place};

/// How much is done a turn: tables looked at, and slots shown.
const BUDGET: u32 = 2048;

/// How many slots of a table at a time. A guest whose tables never come to rest does not keep others from being shown.
const SHARE: u32 = 256;

/// What holds the memory.
pub(super) enum Backing {
    /// A sealed memfd, for inspectors at the socket.
    Sealed(Memory),
    /// A file, for inspectors who want a path.
    File(InspectFile),
}

impl Backing {
    /// A sealed memory as large as the plan says.
    pub(super) fn sealed(plan: &GalleryPlan) -> Result<Self, HostError> {
        let memory = Memory::create(MEMORY, "shmbus-gallery", plan.header.bytes, 1)?;
        Ok(Self::Sealed(memory))
    }

    fn window(&self) -> &Mapped {
        match self {
            Self::Sealed(memory) => memory.window(),
            Self::File(file) => file.window(),
        }
    }
}

/// The tables of the bus, of a session, or of their devices.
type Exhibits = BTreeMap<Option<u32>, Vec<Exhibit>>;

/// A gallery, and what is to be looked through for it.
pub(super) struct Gallery {
    plan: GalleryPlan,
    backing: Backing,
    cards: TypedWriter<Card, Mapped, Vec<u64>>,
    free: Vec<u32>,
    bus: Exhibits,
    /// Whether the bus's own tables were not looked through to their end.
    bus_is_due: bool,
    sessions: BTreeMap<SessionId, Hung>,
    due: VecDeque<Due>,
    /// Which devices are in `due`.
    is_due: Vec<bool>,
}

/// A session that is shown.
struct Hung {
    area: u32,
    exhibits: Exhibits,
    /// Whether it is in [`Gallery::due`].
    is_due: bool,
}

/// What is to be looked through.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// A session's own tables.
    Session(SessionId),
    /// A device's tables for all, then those of the sessions from this one on.
    Device { device: u32, from: SessionId },
}

/// Regions with their places in a directory, and where they are.
pub(super) type Placed = Vec<(u32, Region, Mapped)>;

impl Gallery {
    /// Opens a gallery in which the bus is shown, with `regions` in SHARED memory, and no session yet.
    pub(super) fn open(
        plan: GalleryPlan,
        backing: Backing,
        regions: &Placed,
        devices: usize,
    ) -> Result<Self, HostError> {
        let window = backing.window().clone();
        let header = plan.header;
        for (map, places) in [(header.map, &plan.session), (header.bus_map, &plan.bus)] {
            for (word, place) in (0..).zip(places) {
                let offset = place.map_or(0, |place| place.offset);
                let at = map as usize + 8 * word;
                let field = shmbus_shm::Field::<u64, _>::new(&window, at);
                let field = field.map_err(GalleryError::from)?;
                field.store(offset, core::sync::atomic::Ordering::Relaxed);
            }
        }
        let slots = header.sessions;
        let cards = header.cards as usize;
        let cards = narrow(&window, cards, window.len() - cards)?;
        let cards = TypedWriter::create(cards, slots, Epoch::FIRST, vec![0; slots as usize])?;
        let bus_area = narrow(
            &window,
            header.bus_area as usize,
            (header.areas - header.bus_area) as usize,
        )?;
        let bus = hang(&bus_area, &plan.bus, regions)?;
        let mut gallery = Self {
            plan,
            backing,
            cards,
            free: (0..slots).rev().collect(),
            bus,
            bus_is_due: true,
            sessions: BTreeMap::new(),
            due: VecDeque::new(),
            is_due: vec![false; devices],
        };
        (0..devices as u32).for_each(|device| gallery.touch(device));
        while gallery.is_behind() {
            gallery.turn();
        }
        gallery.plan.header.announce(&window)?;
        Ok(gallery)
    }

    /// The memory that inspectors at the socket get, if this is for them.
    pub(super) fn sealed(&self) -> Option<&Memory> {
        match &self.backing {
            Backing::Sealed(memory) => Some(memory),
            Backing::File(_) => None,
        }
    }

    fn show(&mut self, id: SessionId, name: &str, regions: &Placed) -> Result<(), HostError> {
        let Some(area) = self.free.pop() else {
            tracing::warn!(session = id.0, "no room left in the gallery: not shown");
            return Ok(());
        };
        let outcome = self.hang_session(id, area, name, regions);
        if outcome.is_err() {
            self.free.push(area);
        }
        outcome
    }

    fn hang_session(
        &mut self,
        id: SessionId,
        area: u32,
        name: &str,
        regions: &Placed,
    ) -> Result<(), HostError> {
        let name = GuestName::new(name).map_err(HostError::Name)?;
        let header = self.plan.header;
        let window = self.backing.window();
        let at = header.area(area) as usize;
        let window = narrow(window, at, header.area_bytes as usize)?;
        let exhibits = hang(&window, &self.plan.session, regions)?;
        let mut hung = Hung {
            area,
            exhibits,
            is_due: false,
        };
        // What there is before the card says so; the rest comes with the next turn.
        look_through(&mut hung.exhibits, None);
        let card = Card::Session { number: id.0, name };
        let _ = self.cards.publish(area, &card)?;
        let devices = hung.exhibits.keys().copied().flatten();
        let devices: Vec<u32> = devices.collect();
        self.sessions.insert(id, hung);
        self.touch_session(id);
        devices.into_iter().for_each(|device| self.touch(device));
        Ok(())
    }

    fn hide(&mut self, id: SessionId) -> Result<(), HostError> {
        if let Some(hung) = self.sessions.remove(&id) {
            let _ = self.cards.publish(hung.area, &Card::Vacant)?;
            self.free.push(hung.area);
        }
        Ok(())
    }

    fn renew(&mut self, id: SessionId, device: u32) -> Result<(), HostError> {
        let hung = self.sessions.get_mut(&id);
        let exhibits = hung.and_then(|hung| hung.exhibits.get_mut(&Some(device)));
        for exhibit in exhibits.into_iter().flatten() {
            exhibit.renew()?;
        }
        self.touch(device);
        Ok(())
    }

    fn touch(&mut self, device: u32) {
        if let Some(is_due) = self.is_due.get_mut(device as usize)
            && !std::mem::replace(is_due, true)
        {
            let from = SessionId(0);
            self.due.push_back(Due::Device { device, from });
        }
    }

    fn touch_session(&mut self, id: SessionId) {
        if let Some(hung) = self.sessions.get_mut(&id)
            && !std::mem::replace(&mut hung.is_due, true)
        {
            self.due.push_back(Due::Session(id));
        }
    }

    fn is_behind(&self) -> bool {
        self.bus_is_due || !self.due.is_empty()
    }

    fn turn(&mut self) {
        let (mut cost, is_done) = look_through(&mut self.bus, None);
        self.bus_is_due = !is_done;
        while cost < BUDGET
            && let Some(due) = self.due.pop_front()
        {
            cost += match due {
                Due::Session(id) => self.look_at_session(id),
                Due::Device { device, from } => self.look_at_device(device, from, BUDGET - cost),
            };
        }
    }

    /// Looks a session's own tables through: what it cost.
    fn look_at_session(&mut self, id: SessionId) -> u32 {
        let Some(hung) = self.sessions.get_mut(&id) else {
            return 1;
        };
        hung.is_due = false;
        let (cost, is_done) = look_through(&mut hung.exhibits, None);
        if !is_done {
            self.touch_session(id);
        }
        cost + 1
    }

    /// Looks a device's tables through, for all and then for each session from `from` on, as far as the budget goes: what
    /// it cost. What has more after its share comes again behind everything else.
    fn look_at_device(&mut self, device: u32, from: SessionId, budget: u32) -> u32 {
        let key = Some(device);
        let (mut cost, mut is_done) = (1, true);
        if from == SessionId(0) {
            // It may be called again meanwhile.
            if let Some(is_due) = self.is_due.get_mut(device as usize) {
                *is_due = false;
            }
            let (spent, all) = look_through(&mut self.bus, key);
            (cost, is_done) = (cost + spent, all);
        }
        let mut rest = None;
        for (id, hung) in self.sessions.range_mut(from..) {
            if cost >= budget {
                rest = Some(*id);
                break;
            }
            let (spent, all) = look_through(&mut hung.exhibits, key);
            cost += spent;
            is_done &= all;
        }
        if let Some(from) = rest {
            self.due.push_front(Due::Device { device, from });
        }
        if !is_done {
            self.touch(device);
        }
        cost
    }
}

/// Shows what changed of a device's tables, or of those that belong to none, as far as the share of each goes: what it
/// cost, and whether that is all.
fn look_through(exhibits: &mut Exhibits, device: Option<u32>) -> (u32, bool) {
    let (mut cost, mut is_done) = (0, true);
    for exhibit in exhibits.get_mut(&device).into_iter().flatten() {
        let (shown, more) = exhibit.update(SHARE);
        cost += 1 + shown;
        is_done &= !more;
    }
    (cost, is_done)
}

fn narrow(window: &Mapped, offset: usize, bytes: usize) -> Result<Mapped, HostError> {
    Ok(window.narrow(offset, bytes).map_err(GalleryError::from)?)
}

/// Writes the directory of an area, and finds what is to be shown there.
fn hang(area: &Mapped, places: &[Option<Place>], regions: &Placed) -> Result<Exhibits, HostError> {
    let told = regions.iter().map(|(place, region, _)| (*place, *region));
    super::write_directory(area, &told.collect::<Vec<_>>(), Writing::Enforced)?;
    let mut exhibits = Exhibits::new();
    for (place, region, source) in regions {
        let Some(Some(place)) = places.get(*place as usize) else {
            continue;
        };
        let target = narrow(area, place.offset as usize, place.layout.bytes())?;
        let exhibit = Exhibit::new(source.clone(), target, place.layout)?;
        exhibits
            .entry(region.purpose.device)
            .or_default()
            .push(exhibit);
    }
    Ok(exhibits)
}

/// The galleries of a bus: none, if nobody asked for one.
#[derive(Default)]
pub(super) struct Galleries(Vec<Gallery>);

impl Galleries {
    pub(super) fn add(&mut self, gallery: Gallery) {
        self.0.push(gallery);
    }

    /// What inspectors at the socket get.
    pub(super) fn sealed(&self) -> impl Iterator<Item = &Memory> {
        self.0.iter().filter_map(Gallery::sealed)
    }

    /// Whether nothing is shown to anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls each, and tells of what fails. Nothing a guest does makes it fail.
    fn each(&mut self, mut call: impl FnMut(&mut Gallery) -> Result<(), HostError>) {
        for gallery in &mut self.0 {
            if let Err(error) = call(gallery) {
                tracing::error!(%error, "inspectors are not shown what they should be");
            }
        }
    }

    /// A session is on the bus.
    pub(super) fn show(&mut self, id: SessionId, name: &str, regions: &Placed) {
        self.each(|gallery| gallery.show(id, name, regions));
    }

    /// A session is over.
    pub(super) fn hide(&mut self, id: SessionId) {
        self.each(|gallery| gallery.hide(id));
    }

    /// A session's driver has set a device's tables up.
    pub(super) fn renew(&mut self, id: SessionId, device: u32) {
        self.each(|gallery| gallery.renew(id, device));
    }

    /// A session's own tables may have changed.
    pub(super) fn touch_session(&mut self, id: SessionId) {
        self.each(|gallery| {
            gallery.touch_session(id);
            Ok(())
        });
    }

    /// A device's tables may have changed.
    pub(super) fn touch(&mut self, device: u32) {
        self.each(|gallery| {
            gallery.touch(device);
            Ok(())
        });
    }

    /// The counters have been published: shows what was touched, within bounds.
    pub(super) fn turn(&mut self) {
        self.each(|gallery| {
            gallery.turn();
            Ok(())
        });
    }

    /// Whether there is something left to show.
    pub(super) fn is_behind(&self) -> bool {
        self.0.iter().any(Gallery::is_behind)
    }
}
