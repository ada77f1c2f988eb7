//! Rings whose format is known at run time only.

use shmbus_ring::any::{Areas, DeviceRing, DriverRing, Layout};
use shmbus_ring::{
    Buffer, DeviceQueue, DriverQueue, Positions, RingFeatures, RingKind, SetupError,
};
use shmbus_shm::testing::{Counting, Probed};
use shmbus_shm::{Mapped, OffsetSpace, RingFormat, heap};
use shmbus_virtio::Features;

const SPLIT: RingKind = RingKind::plain(RingFormat::Split);
const PACKED: RingKind = RingKind::plain(RingFormat::Packed);

const TAGGED: RingKind = RingKind::plain(RingFormat::Tagged);

/// The memories of a ring: what the driver writes, what the device writes, what both write.
struct Memories {
    layout: Layout,
    driver: Mapped,
    device: Mapped,
    common: Option<Mapped>,
}

impl Memories {
    fn new(kind: RingKind, size: u16) -> Self {
        let layout = Layout::new(kind.format, size).unwrap();
        let common = layout.common_bytes();
        Self {
            layout,
            driver: heap(layout.driver_bytes()),
            device: heap(layout.device_bytes()),
            common: (common > 0).then(|| heap(common)),
        }
    }

    fn areas(&self) -> Areas<Mapped> {
        let common = self.common.as_ref();
        Areas::in_memories(self.layout, &self.driver, &self.device, common).unwrap()
    }

    /// As a side sees them that counts its stores to the other's memory.
    fn counted(&self, driver: &Counting, device: &Counting) -> Areas<Probed<Mapped, Counting>> {
        let probed = |window: &Mapped, count: &Counting| Probed::new(window.clone(), count.clone());
        let common = self.common.as_ref();
        let common = common.map(|common| probed(common, &Counting::default()));
        let (driver, device) = (probed(&self.driver, driver), probed(&self.device, device));
        Areas::in_memories(self.layout, &driver, &device, common.as_ref()).unwrap()
    }
}

fn features(kind: RingKind) -> RingFeatures {
    let base = Features::VERSION_1 | Features::EVENT_IDX;
    RingFeatures::from(base | kind.features()).with_private(kind.private_features())
}

/// A few laps with chains of one and of two buffers. What lies in a memory that is named after a side, that side alone
/// writes.
#[test]
fn each_format_works_and_keeps_to_its_own_memories() {
    for kind in RingKind::ALL {
        let memories = Memories::new(kind, 8);
        let (of_driver, of_device, count) = <(Counting, Counting, Counting)>::default();
        let ring = DriverRing::new(memories.counted(&count, &of_device), features(kind));
        let mut driver = DriverQueue::with_heap(ring.unwrap());
        let ring = DeviceRing::new(memories.counted(&of_driver, &count), features(kind));
        let mut device = DeviceQueue::with_heap(ring.unwrap());
        assert_eq!((driver.kind(), device.kind()), (kind, kind));

        let space = OffsetSpace::new(heap(4096));
        let mut segments = [Buffer::default(); 8];
        for round in 0..50_u64 {
            for number in 0..3 {
                let buffer = |at| Buffer::new(at, 16);
                let written = [buffer(64 * number)];
                let read = [buffer(2048), buffer(2064)];
                let chain = (round + number) as usize % 3;
                driver
                    .add(&read[..chain], &written, (round, number))
                    .unwrap();
            }
            let _ = driver.publish();
            let lag = lag(kind, driver.positions(), device.positions());
            assert!(lag.0 >= 3, "{kind}: {lag:?}");
            let mut served = 0;
            while device.poll().unwrap() > 0 {
                while let Some(chain) = device.take(&space, &mut segments).unwrap() {
                    let written = chain.write(&space, 0, &[round as u8; 16]).unwrap();
                    device.complete(chain, written as u32).unwrap();
                    served += 1;
                }
            }
            let _ = device.publish();
            assert_eq!(served, 3, "{kind}");
            let lag = self::lag(kind, driver.positions(), device.positions());
            assert!(lag.0 == 0 && lag.1 >= 3, "{kind}: {lag:?}");
            let mut next = 0;
            while driver.poll().unwrap() > 0 {
                while let Some(used) = driver.take().unwrap() {
                    assert_eq!((used.cookie, used.written), ((round, next), 16));
                    next += 1;
                }
            }
            assert_eq!(next, 3, "{kind}");
        }
        assert_eq!(lag(kind, driver.positions(), device.positions()), (0, 0));
        for (count, whose) in [(of_driver, "driver"), (of_device, "device")] {
            assert_eq!(count.stores(), 0, "{kind}: the {whose}'s memory");
        }
        driver.reset(|_| {});
        assert_eq!(driver.positions().used, kind.origin());
    }
}

fn lag(kind: RingKind, driver: Positions, device: Positions) -> (u16, u16) {
    let lag = Positions::lag(&driver, &device, kind, 8);
    (lag.available.unwrap(), lag.used.unwrap())
}

#[test]
fn areas_of_another_format_than_was_negotiated_are_refused() {
    let [split, packed, tagged] = [SPLIT, PACKED, TAGGED].map(|kind| Memories::new(kind, 8));
    for (areas, kind, error) in [
        (
            split.areas(),
            PACKED,
            SetupError::Unsupported { bits: 1 << 34 },
        ),
        (packed.areas(), SPLIT, SetupError::Missing { bits: 1 << 34 }),
        (
            packed.areas(),
            TAGGED,
            SetupError::Missing { bits: 1 << 34 },
        ),
        (
            split.areas(),
            TAGGED,
            SetupError::UnsupportedPrivate { bits: 1 << 3 },
        ),
        (
            tagged.areas(),
            SPLIT,
            SetupError::MissingPrivate { bits: 1 << 3 },
        ),
    ] {
        let features = features(kind);
        assert_eq!(DriverRing::new(areas.clone(), features).unwrap_err(), error);
        assert_eq!(DeviceRing::new(areas, features).unwrap_err(), error);
    }
    for memories in [&packed, &tagged] {
        let none = Areas::in_memories(memories.layout, &memories.driver, &memories.device, None);
        assert!(matches!(
            none,
            Err(SetupError::Area {
                area: "descriptor area",
                ..
            })
        ));
    }
    for format in [RingFormat::Split, RingFormat::Tagged] {
        assert!(Layout::new(format, 3).is_err());
    }
    assert_eq!(Layout::new(RingFormat::Packed, 3).unwrap().size(), 3);
}

#[test]
fn a_ring_is_rebound_to_areas_of_its_own_format() {
    for kind in RingKind::ALL {
        let memories = Memories::new(kind, 4);
        let ring = DriverRing::new(memories.areas(), features(kind)).unwrap();
        let mut driver = DriverQueue::<_, (), _>::with_heap(ring);
        let ring = DeviceRing::new(memories.areas(), features(kind)).unwrap();
        let mut device = DeviceQueue::with_heap(ring);
        driver.rebind(memories.areas()).unwrap();
        device.rebind(memories.areas()).unwrap();
        let other = match kind.format {
            RingFormat::Packed => SPLIT,
            _ => PACKED,
        };
        let other = Memories::new(other, 4);
        assert_eq!(driver.rebind(other.areas()), Err(SetupError::OtherFormat));
        assert_eq!(device.rebind(other.areas()), Err(SetupError::OtherFormat));
    }
}
