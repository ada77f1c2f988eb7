//! The clock device's twin over rings, for comparison: each guest is sent every sample.
//!
//! Measuring, publishing and telling the time are the clock's own: on the host a [`ClockPublisher`] fills a table that
//! stays private, and each new sample in it goes to every guest as an element; on the guest samples are put into a private
//! table, over which a [`ClockReader`] tells the time. What lies between the two is all that differs.
//!
//! A guest that reads seldom finds its ring full of samples that were superseded. The host keeps the newest of each clock
//! then, and posts it when buffers are lent again: so the first sample that such a guest gets at is as old as its ring is
//! long, and it has to be signalled where a table's reader only looks.

use core::ops::ControlFlow;
use std::collections::{BTreeMap, VecDeque};

use shmbus_ring::RingFeatures;
use shmbus_shm::{Mapped, Notify, heap};
use shmbus_signal::Priority;
use shmbus_table::{Epoch, TypedReader, TypedWriter};
use shmbus_virtio::DeviceId;

use super::{
    ClockError, ClockKind, ClockPublisher, ClockReader, ClockSample, Counter, HostClocks, Reading,
    clock_table, monotonic_ns,
};
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};
use crate::lane::{
    Carrier, Direction, Inlet, InletError, Lane, LaneError, LaneRoles, Outlet, OutletError,
    Reading as Elements, RingCarrier, requests,
};

/// The roles of the twin's regions in a session.
pub mod role {
    /// What the host writes of the ring of samples; it signals by it.
    pub const SAMPLES: u16 = 16;
    /// What the guest writes of the ring; it signals by it that buffers are lent again.
    pub const SAMPLES_DRIVER: u16 = 17;
    /// What both write of the ring; not of a split one.
    pub const SAMPLES_COMMON: u16 = 18;
    /// The elements; the host writes.
    pub const SAMPLES_ELEMENTS: u16 = 19;
}

const ROLES: LaneRoles = LaneRoles {
    values: role::SAMPLES,
    receiver: role::SAMPLES_DRIVER,
    common: role::SAMPLES_COMMON,
    elements: role::SAMPLES_ELEMENTS,
};

/// A slot for each kind of clock, as in the table.
const SLOTS: u32 = ClockKind::ALL.len() as u32;

/// How often the clocks are measured and sent, as the clock device does.
const PERIOD_NS: u64 = 50_000_000;

/// A table of samples in this process alone.
struct PrivateTable<T> {
    window: Mapped,
    table: T,
}

/// The host's clocks over rings, as one device of the bus.
pub struct ClockTwin {
    clocks: HostClocks<Counter>,
    rings: RingCarrier,
    regions: Vec<RegionRequest>,
    publisher: Option<ClockPublisher<Mapped>>,
    published: PrivateTable<TypedReader<ClockSample, Mapped, Vec<u64>>>,
    guests: BTreeMap<SessionId, Outlet<ClockSample, Mapped>>,
    faults: VecDeque<(SessionId, String)>,
    next_ns: u64,
    sent: u64,
}

impl ClockTwin {
    /// Sends `clocks` over such rings.
    ///
    /// # Errors
    ///
    /// [`LaneError`] for rings that there are not.
    pub fn new(clocks: HostClocks<Counter>, rings: RingCarrier) -> Result<Self, LaneError> {
        let window = heap(clock_table()?.bytes());
        let carrier = Carrier::Ring(rings);
        let urgent = Priority::HIGHEST;
        let regions = requests::<ClockSample>(carrier, Direction::ToGuest, ROLES, SLOTS, urgent)?;
        let mut publisher = ClockPublisher::new(window.clone(), clocks.clone())?;
        let _ = publisher.publish()?;
        Ok(Self {
            clocks,
            rings,
            regions: regions.into_iter().map(signalled_back).collect(),
            publisher: None,
            published: private_reader(window)?,
            guests: BTreeMap::new(),
            faults: VecDeque::new(),
            next_ns: 0,
            sent: 0,
        })
    }

    /// The samples that were last published. A clock that is not served has none.
    fn samples(&mut self) -> Samples {
        let slots = ClockKind::ALL.map(ClockKind::slot);
        slots.map(|slot| {
            self.published
                .table
                .read(slot)
                .ok()
                .map(|(sample, _)| sample)
        })
    }

    /// Sends samples to the guests that `is_meant`.
    fn send(
        &mut self,
        samples: &Samples,
        outbox: &mut Outbox,
        is_meant: impl Fn(SessionId) -> bool,
    ) {
        let Self {
            guests,
            faults,
            sent,
            ..
        } = self;
        guests.retain(|session, outlet| {
            if !is_meant(*session) {
                return true;
            }
            match place(outlet, samples) {
                Ok(notify) => {
                    *sent += samples.iter().flatten().count() as u64;
                    outbox.send(*session, role::SAMPLES, notify);
                    true
                }
                Err(fault) => {
                    faults.push_back((*session, fault.to_string()));
                    false
                }
            }
        });
    }
}

/// A sample of each clock, at its number.
type Samples = [Option<ClockSample>; SLOTS as usize];

fn place(
    outlet: &mut Outlet<ClockSample, Mapped>,
    samples: &Samples,
) -> Result<Notify, OutletError> {
    for sample in samples.iter().flatten() {
        outlet.place(sample.clock.slot(), *sample)?;
    }
    outlet.flush()
}

/// The guest signals by the region that it writes: there is no lane the other way that does.
fn signalled_back(request: RegionRequest) -> RegionRequest {
    if request.role == role::SAMPLES_DRIVER {
        RegionRequest {
            signal: Some(Priority::HIGHEST),
            ..request
        }
    } else {
        request
    }
}

fn private_reader(
    window: Mapped,
) -> Result<PrivateTable<TypedReader<ClockSample, Mapped, Vec<u64>>>, LaneError> {
    let storage = || vec![0; SLOTS as usize];
    Ok(PrivateTable {
        table: TypedReader::attach(window.clone(), storage(), storage())?,
        window,
    })
}

impl Device for ClockTwin {
    fn id(&self) -> DeviceId {
        DeviceId::CLOCK
    }

    fn features(&self) -> RingFeatures {
        self.rings.features()
    }

    fn config(&mut self, _: SessionId) -> [u64; CONFIG_WORDS] {
        let mut words = [0; CONFIG_WORDS];
        words[1] = Carrier::Ring(self.rings).number();
        words
    }

    fn regions(&self) -> Vec<RegionRequest> {
        self.regions.clone()
    }

    fn start(&mut self, _: &Regions) -> Result<(), ActivateError> {
        let window = self.published.window.clone();
        self.publisher = Some(ClockPublisher::new(window.clone(), self.clocks.clone())?);
        self.published = private_reader(window)?;
        self.next_ns = monotonic_ns() + PERIOD_NS;
        Ok(())
    }

    fn activate(
        &mut self,
        session: SessionId,
        regions: &Regions,
        features: RingFeatures,
    ) -> Result<(), ActivateError> {
        self.deactivate(session);
        let lane = Lane::find(
            regions,
            Direction::ToGuest,
            ROLES,
            self.rings.reading,
            features,
        )?;
        let outlet = Outlet::at_host(lane, SLOTS)?;
        self.guests.insert(session, outlet);
        // The guest waits for its device to be ready, and looks then.
        let samples = self.samples();
        self.send(&samples, &mut Outbox::default(), |guest| guest == session);
        Ok(())
    }

    fn deactivate(&mut self, session: SessionId) {
        if let Some(outlet) = self.guests.remove(&session) {
            outlet.close();
        }
        self.faults.retain(|(faulted, _)| *faulted != session);
    }

    fn signalled(&mut self, session: SessionId, _: u16, outbox: &mut Outbox) -> Progress {
        self.send(&Samples::default(), outbox, |guest| guest == session);
        Progress::Idle
    }

    fn faulted(&mut self) -> Option<(SessionId, String)> {
        self.faults.pop_front()
    }

    fn next_tick(&self) -> Option<u64> {
        self.publisher.as_ref().map(|_| self.next_ns)
    }

    fn tick(&mut self, now: u64, outbox: &mut Outbox) -> Progress {
        self.next_ns = now + PERIOD_NS;
        if let Some(publisher) = &mut self.publisher
            && let Err(error) = publisher.publish()
        {
            tracing::error!(%error, "the clocks cannot be measured");
            return Progress::Idle;
        }
        let samples = self.samples();
        self.send(&samples, outbox, |_| true);
        Progress::Idle
    }

    fn counters(&self, values: &mut [u64; COUNTERS]) {
        values[0] = self.sent;
        if let Some(publisher) = &self.publisher {
            values[1] = publisher.clocks().disruptions();
        }
    }
}

/// A guest's reader of the twin's clocks: as a [`ClockReader`], behind a ring.
pub struct TwinClockReader {
    samples: Inlet<ClockSample, Mapped>,
    received: PrivateTable<TypedWriter<ClockSample, Mapped, Vec<u64>>>,
    reader: Option<ClockReader<Mapped>>,
    taken: u64,
    fault: Option<InletError>,
}

/// The time could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinClockError {
    /// The host broke the rules of the ring; from then on.
    #[error("samples: {0}")]
    Samples(#[from] InletError),
    /// The samples that came do not tell it, or none came yet.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

impl TwinClockReader {
    /// A reader over a session's regions; the device is to be activated then, with `features`. `config` is the device's.
    ///
    /// # Errors
    ///
    /// If the regions are not what a twin has.
    pub fn attach(
        regions: &Regions,
        config: &[u64; CONFIG_WORDS],
        features: RingFeatures,
    ) -> Result<Self, ActivateError> {
        let reading = Elements::from_number(config[1]).unwrap_or(Elements::Last);
        let lane = Lane::find(regions, Direction::ToGuest, ROLES, reading, features)?;
        let window = heap(clock_table()?.bytes());
        let storage = vec![0; SLOTS as usize];
        Ok(Self {
            samples: Inlet::at_guest(lane, SLOTS)?,
            received: PrivateTable {
                table: TypedWriter::create(window.clone(), SLOTS, Epoch::FIRST, storage)?,
                window,
            },
            reader: None,
            taken: 0,
            fault: None,
        })
    }

    /// What a clock shows now, by the newest sample that was [received](Self::receive), as [`ClockReader::now`] tells it.
    ///
    /// # Errors
    ///
    /// [`TwinClockError`]; a later call may succeed, when more has come.
    pub fn now(&mut self, clock: ClockKind) -> Result<Reading, TwinClockError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            // It needs a sample to know the counter by.
            None => self
                .reader
                .insert(ClockReader::local(self.received.window.clone())?),
        };
        Ok(reader.now(clock)?)
    }

    /// Takes what has come, and says whether to signal the host, of buffers that were lent to it again. To be called when
    /// the host has signalled; until it found nothing, the host does not signal again.
    ///
    /// # Errors
    ///
    /// [`TwinClockError::Samples`], from then on.
    pub fn receive(&mut self) -> Result<Notify, TwinClockError> {
        const MOST_ROUNDS: usize = 1 << 10;
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let Self {
            samples,
            received,
            taken,
            ..
        } = self;
        for _ in 0..MOST_ROUNDS {
            let more = samples.take(usize::MAX, |slot, sample, _| {
                *taken += 1;
                // This table is the guest's own and has the slot.
                let _ = received.table.publish(slot, &sample);
                ControlFlow::Continue(())
            });
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(fault.into());
                }
            }
        }
        Ok(self.samples.flush())
    }

    /// How many samples were looked at so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::DisciplineLimits;
    use crate::lane::tests::twins;

    const SESSION: SessionId = SessionId(4);

    struct Bus {
        device: ClockTwin,
        reader: TwinClockReader,
        outbox: Outbox,
    }

    impl Bus {
        fn new(rings: RingCarrier) -> Self {
            let clocks =
                HostClocks::calibrate(Counter::detect(), DisciplineLimits::default()).unwrap();
            let mut device = ClockTwin::new(clocks, rings).unwrap();
            device.start(&Regions::default()).unwrap();
            let mut regions = Regions::default();
            for request in device.regions() {
                regions.insert(request.role, request.kind, heap(request.bytes));
            }
            let (config, features) = (device.config(SESSION), device.features());
            let reader = TwinClockReader::attach(&regions, &config, features).unwrap();
            device.activate(SESSION, &regions, features).unwrap();
            Self {
                device,
                reader,
                outbox: Outbox::default(),
            }
        }

        fn tick(&mut self) {
            let due = self.device.next_tick().unwrap();
            let _ = self.device.tick(due, &mut self.outbox);
        }

        /// The guest looks for samples; the host hears of the buffers that it lends again.
        fn receive(&mut self) {
            if self.reader.receive().unwrap().is_needed() {
                let _ = self
                    .device
                    .signalled(SESSION, role::SAMPLES_DRIVER, &mut self.outbox);
            }
        }
    }

    /// The twins tell the host's time within the bound, as the clock over its table does.
    #[test]
    fn a_twin_tells_the_host_s_time_within_the_bound() {
        for carrier in twins() {
            let Carrier::Ring(rings) = carrier else {
                continue;
            };
            let mut bus = Bus::new(rings);
            let mut last = 0;
            for round in 0..if cfg!(miri) { 3 } else { 40 } {
                // Sometimes it reads after many samples, sometimes often.
                for _ in 0..round % 7 {
                    bus.tick();
                }
                // A sample of each clock, over a ring that may hold one.
                for _ in 0..SLOTS {
                    bus.receive();
                }
                let before = monotonic_ns();
                let reading = bus.reader.now(ClockKind::Monotonic).unwrap();
                let after = monotonic_ns();
                let earliest = before.saturating_sub(reading.error_ns);
                let latest = after.saturating_add(reading.error_ns);
                assert!(
                    (earliest..=latest).contains(&reading.time_ns),
                    "{carrier:?}: {reading:?} outside {before}..={after}"
                );
                assert!(reading.time_ns >= last);
                last = reading.time_ns;
            }
            assert_eq!(bus.device.faulted(), None);
        }
    }

    /// Where the ring is full of samples, a reader gets at the newest in the end; and it is signalled.
    #[test]
    fn the_newest_sample_comes_when_there_is_room() {
        for carrier in twins() {
            let Carrier::Ring(rings) = carrier else {
                continue;
            };
            let mut bus = Bus::new(rings);
            // Who has looked is told of the next sample.
            for _ in 0..SLOTS {
                bus.receive();
            }
            for _ in 0..40 {
                bus.tick();
            }
            let told = bus.outbox.drain().count();
            assert!(told > 0, "{carrier:?}");
            for _ in 0..8 {
                bus.receive();
            }
            let slot = ClockKind::Monotonic.slot();
            let (newest, _) = bus.device.published.table.read(slot).unwrap();
            let window = bus.reader.received.window.clone();
            let mut received = private_reader(window).unwrap().table;
            assert_eq!(received.read(slot).unwrap().0, newest, "{carrier:?}");
        }
    }
}
