//! The clock device on the bus: one table that every guest reads.

use shmbus_ring::RingFeatures;
use shmbus_shm::{Mapped, RegionKind, Section};
use shmbus_signal::Priority;
use shmbus_table::{LayoutError, TableLayout};
use shmbus_virtio::DeviceId;

use super::host::HostClocks;
use super::table::{ClockPublisher, clock_table};
use super::{Counter, monotonic_ns};
use crate::device::{
    ActivateError, CONFIG_WORDS, COUNTERS, Device, Outbox, Progress, RegionRequest, Regions,
    SessionId,
};

/// The roles of the device's regions.
pub mod role {
    /// Table of [`ClockSample`](crate::clock::ClockSample), a slot for each kind of clock; one for all guests.
    pub const CLOCKS: u16 = 0;
}

/// What [`Device::counters`] gives; the bound is that of the monotonic clock when it was last measured.
pub(crate) const COUNTER_NAMES: [&str; 3] = ["published", "disruptions", "error_bound_ns"];

/// How often the clocks are measured and published.
const PERIOD_NS: u64 = 50_000_000;

/// The host's clocks, as one device of the bus. Guests read it without telling anybody: it needs no driver.
pub struct ClockDevice {
    clocks: HostClocks<Counter>,
    layout: TableLayout,
    publisher: Option<ClockPublisher<Mapped>>,
    next_ns: u64,
    published: u64,
}

impl ClockDevice {
    /// Serves `clocks`, which several devices may share the calibration of.
    ///
    /// # Errors
    ///
    /// [`LayoutError`]; not expected.
    pub fn new(clocks: HostClocks<Counter>) -> Result<Self, LayoutError> {
        Ok(Self {
            clocks,
            layout: clock_table()?,
            publisher: None,
            next_ns: 0,
            published: 0,
        })
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
        vec![RegionRequest {
            role: role::CLOCKS,
            kind: RegionKind::Table {
                slots: self.layout.slots(),
                slot_bytes: self.layout.slot_bytes(),
            },
            section: Section::Shared,
            bytes: self.layout.bytes(),
            signal: None::<Priority>,
        }]
    }

    fn start(&mut self, shared: &Regions) -> Result<(), ActivateError> {
        let window = shared.get(role::CLOCKS)?.clone();
        self.publisher = Some(ClockPublisher::new(window, self.clocks.clone())?);
        self.next_ns = monotonic_ns() + PERIOD_NS;
        Ok(())
    }

    fn activate(
        &mut self,
        _: SessionId,
        _: &Regions,
        _: RingFeatures,
    ) -> Result<(), ActivateError> {
        Ok(())
    }

    fn deactivate(&mut self, _: SessionId) {}

    fn signalled(&mut self, _: SessionId, _: u16, _: &mut Outbox) -> Progress {
        Progress::Idle
    }

    fn next_tick(&self) -> Option<u64> {
        self.publisher.as_ref().map(|_| self.next_ns)
    }

    fn tick(&mut self, now: u64, _: &mut Outbox) -> Progress {
        self.next_ns = now + PERIOD_NS;
        if let Some(publisher) = &mut self.publisher {
            match publisher.publish() {
                // Guests poll: there is nobody to tell.
                Ok(_) => self.published += 1,
                Err(error) => tracing::error!(%error, "the clocks cannot be published"),
            }
        }
        Progress::Idle
    }

    fn counters(&self, values: &mut [u64; COUNTERS]) {
        values[0] = self.published;
        if let Some(publisher) = &self.publisher {
            let [_, monotonic] = publisher.clocks().samples();
            values[1] = publisher.clocks().disruptions();
            values[2] = monotonic.error_ns;
        }
    }
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
