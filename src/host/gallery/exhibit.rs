//! One table, and what is shown of it.

use core::sync::atomic::Ordering::Relaxed;

use shmbus_devices::RingState;
use shmbus_devices::clock::{Answer, ClockSample, CounterNotice, Question};
use shmbus_devices::intc::{Control, Wire};
use shmbus_devices::timer::{Deadline, Expiration};
use shmbus_shm::{Field, Mapped};
use shmbus_table::{Epoch, Header, Mirror, TableError, TableLayout, Value};

use crate::control::{DeviceOffer, DriverState};
use crate::counters::Counters;

type Shown = Mirror<Mapped, Mapped, Vec<u64>>;

/// A table of the bus, a session or a device, and where it is shown.
pub(super) struct Exhibit {
    source: Mapped,
    target: Mapped,
    layout: TableLayout,
    /// The epoch that what is shown next begins under.
    epoch: Epoch,
    /// None as long as the source is not a table yet: a driver makes its own when it starts.
    mirror: Option<Shown>,
}

impl Exhibit {
    /// Shows nothing yet, and what the target showed before no more.
    pub(super) fn new(
        source: Mapped,
        target: Mapped,
        layout: TableLayout,
    ) -> Result<Self, TableError> {
        let exhibit = Self {
            source,
            target,
            layout,
            epoch: Epoch::FIRST,
            mirror: None,
        };
        exhibit.withdraw()?;
        Ok(exhibit)
    }

    /// A table's first word says that it is one.
    fn withdraw(&self) -> Result<(), TableError> {
        Field::<u64, _>::new(&self.target, 0)?.store(0, Relaxed);
        Ok(())
    }

    /// The source is set up anew, or was.
    pub(super) fn renew(&mut self) -> Result<(), TableError> {
        if let Some(mirror) = self.mirror.take() {
            self.epoch = mirror.epoch().next().unwrap_or(Epoch::FIRST);
        }
        self.withdraw()
    }

    /// Shows what changed, at most so many slots: how many, and whether there is more. A source that is no table, or of
    /// values that nobody here can check, is not shown.
    pub(super) fn update(&mut self, budget: u32) -> (u32, bool) {
        if self.mirror.is_none() {
            self.mirror = self.begin();
        }
        let Some(mirror) = &mut self.mirror else {
            return (0, false);
        };
        // What it keeps, because the source holds nonsense there, is its guest's own affair.
        let done = mirror.update(budget);
        (done.published + done.kept, done.more)
    }

    fn begin(&self) -> Option<Shown> {
        let type_id = Header::read(&self.source).ok()?.type_id;
        let check = check_of(type_id)?;
        let header = Header {
            layout: self.layout,
            type_id,
            epoch: self.epoch,
        };
        let storage = || vec![0; self.layout.slots() as usize];
        let storage = [storage(), storage(), storage()];
        let mirror = Mirror::create(self.source.clone(), self.target.clone(), header, storage);
        mirror.and_then(check).ok()
    }
}

type Checked = fn(Shown) -> Result<Shown, TableError>;

/// How the values of a type are checked before they are shown.
fn check_of(type_id: u32) -> Option<Checked> {
    fn known<V: Value>() -> (u32, Checked) {
        (V::TYPE_ID, Mirror::of_values::<V>)
    }
    let types = [
        known::<DeviceOffer>(),
        known::<DriverState>(),
        known::<Counters>(),
        known::<RingState>(),
        known::<ClockSample>(),
        known::<CounterNotice>(),
        known::<Question>(),
        known::<Answer>(),
        known::<Deadline>(),
        known::<Expiration>(),
        known::<Wire>(),
        known::<Control>(),
    ];
    let found = types.into_iter().find(|(known, _)| *known == type_id);
    found.map(|(_, check)| check)
}
