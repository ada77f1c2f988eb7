//! The clock device on the bus: one table of clocks that every guest reads, and for each guest whose driver is ready
//! what belongs to its counter.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use shmbus_ring::RingFeatures;
use shmbus_shm::{Mapped, RegionKind, Section};
use shmbus_signal::Priority;
use shmbus_table::{LayoutError, TableLayout, TypedWriter, Value, layout_of};
use shmbus_virtio::DeviceId;

use super::control::{Disruption, Orders};
use super::exchange::{Answerer, set_up};
use super::host::{HostClocks, Samples};
use super::table::{ClockPublisher, clock_table};
use super::vmclock::{VMCLOCK_BYTES, VmclockPage};
use super::{
    Answer, ClockControl, ClockKind, ClockTables, Counter, CounterNotice, CounterTransform,
    Question, Ticks, monotonic_ns,
};
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};

/// The roles of the device's regions.
pub mod role {
    /// Table of [`ClockSample`](crate::clock::ClockSample), a slot for each kind of clock; one for all guests.
    pub const CLOCKS: u16 = 0;
    /// Table of one [`CounterNotice`](crate::clock::CounterNotice): the host's word on the guest's counter. Signalled
    /// with each disruption.
    pub const NOTICES: u16 = 1;
    /// Table of one [`Question`](crate::clock::Question); the guest writes, and signals.
    pub const QUESTIONS: u16 = 2;
    /// Table of one [`Answer`](crate::clock::Answer); not signalled.
    pub const ANSWERS: u16 = 3;
    /// A clock as a VMClock page, if the device was asked for it.
    pub const VMCLOCK: u16 = 4;
}

/// What [`Device::counters`] gives; the bound is that of the monotonic clock when it was last measured.
pub(crate) const COUNTER_NAMES: [&str; 5] = [
    "published",
    "disruptions",
    "error_bound_ns",
    "guest_disruptions",
    "answers",
];

/// How often the clocks are measured and published.
const PERIOD_NS: u64 = 50_000_000;

/// How a guest's counter relates to the host's.
type TransformOf = Box<dyn FnMut(SessionId) -> CounterTransform + Send>;

/// The host's clocks, as one device of the bus. Guests on the host's own processors read the table of clocks without
/// telling anybody. A guest whose driver is ready is told besides how its counter relates to the host's, and of
/// disruptions.
pub struct ClockDevice {
    clocks: HostClocks<Counter>,
    layout: TableLayout,
    publisher: Option<ClockPublisher<Mapped>>,
    transform_of: TransformOf,
    page: Option<ClockKind>,
    orders: Option<Orders>,
    guests: BTreeMap<SessionId, Guest>,
    faults: VecDeque<(SessionId, String)>,
    next_ns: u64,
    published: u64,
    guest_disruptions: u64,
    answers: u64,
}

/// A guest whose driver is ready.
struct Guest {
    notice: CounterNotice,
    notices: TypedWriter<CounterNotice, Mapped, Vec<u64>>,
    answerer: Answerer<Mapped>,
    page: Option<VmclockPage<Mapped>>,
}

impl ClockDevice {
    /// Serves `clocks`, which several devices may share the calibration of, to guests with the host's own counter.
    ///
    /// # Errors
    ///
    /// [`LayoutError`]; not expected.
    pub fn new(clocks: HostClocks<Counter>) -> Result<Self, LayoutError> {
        let domain = clocks.counter().domain();
        Ok(Self {
            clocks,
            layout: clock_table()?,
            publisher: None,
            transform_of: Box::new(move |_| CounterTransform::identity(domain)),
            page: None,
            orders: None,
            guests: BTreeMap::new(),
            faults: VecDeque::new(),
            next_ns: 0,
            published: 0,
            guest_disruptions: 0,
            answers: 0,
        })
    }

    /// Serves guests with counters of their own: what the VMM programmed into the processor, or
    /// [unknown](CounterTransform::unknown), and the guest estimates.
    #[must_use]
    pub fn guest_counters(
        mut self,
        transform_of: impl FnMut(SessionId) -> CounterTransform + Send + 'static,
    ) -> Self {
        self.transform_of = Box::new(transform_of);
        self
    }

    /// Gives each guest a VMClock page of a clock besides, for its VMM to map: a page of memory for each guest.
    #[must_use]
    pub fn with_vmclock(mut self, clock: ClockKind) -> Self {
        self.page = Some(clock);
        self
    }

    /// By which the device is told of disruptions while a bus runs it. To be asked for before the bus listens.
    ///
    /// # Errors
    ///
    /// If there are no descriptors left.
    pub fn control(&mut self) -> io::Result<ClockControl> {
        match &self.orders {
            Some(orders) => orders.control(),
            None => self.orders.insert(Orders::new()?).control(),
        }
    }

    /// What was last measured.
    fn samples(&self) -> Samples {
        match &self.publisher {
            Some(publisher) => publisher.clocks().samples(),
            None => self.clocks.samples(),
        }
    }

    fn markers(&self) -> [u64; ClockKind::ALL.len()] {
        self.samples()
            .map(|sample| sample.map_or(0, |sample| sample.disruption))
    }

    /// Publishes the clocks; tells the guests if one of them was disrupted.
    fn publish(&mut self, outbox: &mut Outbox) {
        let before = self.markers();
        let Some(publisher) = &mut self.publisher else {
            return;
        };
        match publisher.publish() {
            // Guests poll: there is nobody to tell.
            Ok(_) => self.published += 1,
            Err(error) => tracing::error!(%error, "the clocks cannot be published"),
        }
        let after = self.markers();
        // A clock that is served from now on was not disrupted.
        let disrupted = before
            .iter()
            .zip(after)
            .filter(|(before, after)| **before != 0 && **before != *after)
            .count() as u64;
        if disrupted > 0 {
            let sessions: Vec<SessionId> = self.guests.keys().copied().collect();
            for session in sessions {
                self.tell(session, outbox, |notice| {
                    notice.disruptions = notice.disruptions.wrapping_add(disrupted);
                });
            }
        }
        self.project_all();
    }

    /// Changes a guest's notice, and signals it.
    fn tell(
        &mut self,
        session: SessionId,
        outbox: &mut Outbox,
        change: impl FnOnce(&mut CounterNotice),
    ) {
        let Some(guest) = self.guests.get_mut(&session) else {
            return;
        };
        change(&mut guest.notice);
        match guest.notices.publish(0, &guest.notice) {
            Ok((_, notify)) => outbox.send(session, role::NOTICES, notify),
            Err(error) => self.faults.push_back((session, error.to_string())),
        }
    }

    fn disrupt(&mut self, session: SessionId, transform: CounterTransform, outbox: &mut Outbox) {
        self.guest_disruptions += 1;
        self.tell(session, outbox, |notice| {
            notice.transform = transform;
            notice.disruption = notice.disruption.wrapping_add(1);
            notice.disruptions = notice.disruptions.wrapping_add(1);
        });
        self.project_all();
    }

    /// Writes the guests' VMClock pages.
    fn project_all(&mut self) {
        let Some(clock) = self.page else {
            return;
        };
        let samples = self.samples();
        let Some(sample) = samples
            .iter()
            .flatten()
            .find(|sample| sample.clock == clock)
        else {
            return;
        };
        let tai_offset_s = match &self.publisher {
            Some(publisher) => publisher.clocks().tai_offset_s(),
            None => None,
        };
        for guest in self.guests.values_mut() {
            if let Some(page) = &mut guest.page {
                page.publish(sample, &guest.notice, tai_offset_s);
            }
        }
    }
}

impl Device for ClockDevice {
    fn id(&self) -> DeviceId {
        DeviceId::CLOCK
    }

    fn config(&mut self, _: SessionId) -> [u64; CONFIG_WORDS] {
        [0; CONFIG_WORDS]
    }

    fn regions(&self) -> Vec<RegionRequest> {
        let table = |role, section, layout: TableLayout, signal| RegionRequest {
            role,
            kind: RegionKind::Table {
                slots: layout.slots(),
                slot_bytes: layout.slot_bytes(),
            },
            section,
            bytes: layout.bytes(),
            signal,
        };
        let mut regions = vec![table(role::CLOCKS, Section::Shared, self.layout, None)];
        // Of one slot each: their layouts exist.
        for (role, section, layout, signal) in [
            (
                role::NOTICES,
                Section::Host,
                one::<CounterNotice>(),
                Some(Priority::HIGHEST),
            ),
            (
                role::QUESTIONS,
                Section::Guest,
                one::<Question>(),
                Some(Priority::HIGHEST),
            ),
            (role::ANSWERS, Section::Host, one::<Answer>(), None),
        ] {
            regions.extend(layout.map(|layout| table(role, section, layout, signal)));
        }
        if let Some(clock) = self.page {
            regions.push(RegionRequest {
                role: role::VMCLOCK,
                kind: RegionKind::Raw {
                    params: [clock as u64, 0],
                },
                section: Section::Host,
                bytes: VMCLOCK_BYTES,
                signal: None,
            });
        }
        regions
    }

    fn start(&mut self, shared: &Regions) -> Result<(), ActivateError> {
        let window = shared.get(role::CLOCKS)?.clone();
        self.publisher = Some(ClockPublisher::new(window, self.clocks.clone())?);
        self.next_ns = monotonic_ns() + PERIOD_NS;
        Ok(())
    }

    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        _: RingFeatures,
    ) -> Result<(), ActivateError> {
        let notice = CounterNotice {
            transform: (self.transform_of)(session),
            disruption: 0,
            disruptions: 0,
        };
        let mut notices = set_up(regions.get(role::NOTICES)?.clone())?;
        // The driver is told that it is ready after this, and reads then: nobody waits yet.
        let _ = notices.publish(0, &notice)?;
        let questions = regions.get(role::QUESTIONS)?.clone();
        let page = match self.page {
            Some(clock) => {
                let window = regions.get(role::VMCLOCK)?;
                Some(VmclockPage::new(window, clock, notice.transform.reader)?)
            }
            None => None,
        };
        let guest = Guest {
            notice,
            notices,
            answerer: Answerer::new(questions, regions.get(role::ANSWERS)?.clone())?,
            page,
        };
        self.guests.insert(session, guest);
        self.project_all();
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        self.guests.remove(&session);
    }

    fn signalled(&mut self, session: SessionId, _: u16, _: &mut Outbox) -> Progress {
        if let Some(guest) = self.guests.get_mut(&session) {
            match guest.answerer.answer(self.clocks.counter()) {
                Ok(answers) => self.answers += answers,
                Err(error) => self.faults.push_back((session, error.to_string())),
            }
        }
        Progress::Idle
    }

    fn descriptors(&self) -> Vec<(BorrowedFd<'_>, Priority)> {
        match &self.orders {
            Some(orders) => vec![(orders.as_fd(), Priority::HIGHEST)],
            None => Vec::new(),
        }
    }

    fn ready(&mut self, _: usize, outbox: &mut Outbox) -> Progress {
        let orders = match &self.orders {
            Some(orders) => orders.take(),
            None => VecDeque::new(),
        };
        for Disruption { session, transform } in orders {
            let sessions = match session {
                Some(session) => vec![session],
                None => self.guests.keys().copied().collect(),
            };
            for session in sessions {
                self.disrupt(session, transform, outbox);
            }
        }
        Progress::Idle
    }

    fn faulted(&mut self) -> Option<(SessionId, String)> {
        let (session, fault) = self.faults.pop_front()?;
        self.guests.remove(&session);
        Some((session, fault))
    }

    fn next_tick(&self) -> Option<u64> {
        self.publisher.as_ref().map(|_| self.next_ns)
    }

    fn tick(&mut self, now: u64, outbox: &mut Outbox) -> Progress {
        self.next_ns = now + PERIOD_NS;
        self.publish(outbox);
        Progress::Idle
    }

    fn counters(&self, values: &mut [u64; COUNTERS]) {
        values[0] = self.published;
        if let Some(publisher) = &self.publisher {
            let [.., monotonic] = publisher.clocks().samples();
            values[1] = publisher.clocks().disruptions();
            values[2] = monotonic.map_or(0, |sample| sample.error_ns);
        }
        values[3] = self.guest_disruptions;
        values[4] = self.answers;
    }
}

/// The layout of a table of one value.
fn one<V: Value>() -> Option<TableLayout> {
    layout_of::<V>(1).ok()
}

/// The guest's tables over a session's regions: the first of two steps to its driver. Between them the host is told
/// that the driver is ready.
///
/// # Errors
///
/// If the regions are not what a clock device has.
pub fn prepare(regions: &Regions) -> Result<ClockTables<Mapped>, ActivateError> {
    let window = |role| regions.get(role).cloned();
    Ok(ClockTables::new(
        window(role::CLOCKS)?,
        window(role::NOTICES)?,
        window(role::ANSWERS)?,
        window(role::QUESTIONS)?,
    )?)
}

#[cfg(test)]
mod tests {
    use shmbus_shm::heap;

    use super::*;
    use crate::clock::{ClockKind, ClockReader, DisciplineLimits};

    #[test]
    fn a_started_device_tells_the_time_and_ticks() {
        let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default()).unwrap();
        let mut device = ClockDevice::new(clocks).unwrap();
        assert_eq!(device.next_tick(), None);
        assert!(device.start(&Regions::default()).is_err());
        let request = device.regions()[0];
        let window = heap(request.bytes);
        let mut regions = Regions::default();
        regions.insert(request.role, request.kind, window.clone());
        device.start(&regions).unwrap();

        let mut guest = ClockReader::local(window).unwrap();
        let first = guest.sample(ClockKind::Monotonic).unwrap();
        let due = device.next_tick().unwrap();
        let progress = device.tick(due, &mut Outbox::default());
        assert_eq!(progress, Progress::Idle);
        let second = guest.sample(ClockKind::Monotonic).unwrap();
        assert!(second.counter > first.counter);
        assert_eq!(device.next_tick(), Some(due + PERIOD_NS));
        let mut counters = [0; COUNTERS];
        device.counters(&mut counters);
        assert_eq!(counters[0], 1);
        assert_eq!(counters[2], second.error_ns);
    }
}
