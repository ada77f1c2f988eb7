//! Both sides of a ring of ours, on a processor each: the work of the Linux kernel's `tools/virtio/ringtest`.
//!
//! As there, the driver adds a buffer, looks for a used one, and goes on as long as one of the two succeeds; then it
//! waits. The device takes what it finds buffer by buffer. Each element is published by itself, on both sides, and
//! waiting means looking again, without a pause. An element is a device-writable buffer of 64 bytes, which the device
//! uses completely (ringtest's says one byte less than it was given); and a cookie of a pointer's size, as ringtest's. The
//! buffers' addresses differ from element to element (ringtest's is always the same), and no payload is touched.

mod batches;
mod bells;
mod device;
mod driver;
mod lockstep;
mod shapes;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use shmbus_benches::{Comparison, Contender, Partner, SetUpError};
use shmbus_ring::{DeviceQueue, DeviceSlot, DriverQueue, DriverSlot};
use shmbus_shm::{Mapped, OffsetSpace, SharedMemory, Writers};
use shmbus_virtio::Features;

use super::OURS;
use super::format::{Format, RING_BYTES};
use bells::{Bell, Deciding, Decision, Polling, Sleeping};
use shapes::{Chain2, Indirect4, One, Shape};

/// What comes back with a buffer.
type Cookie = &'static [u8; 13];
const COOKIE: Cookie = b"Hello, world!";

type Driver<D> = DriverQueue<D, Cookie, Vec<DriverSlot<Cookie>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// So many elements may be with the device as the ring holds.
const UNLIMITED: u64 = u64::MAX;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Plain,
    Lazy,
    Shuffled,
    Outstanding1,
    Outstanding16,
    Sleep,
    SleepEach,
    Batch32,
    EventIdx,
    Chain2,
    Indirect4,
}

impl Work {
    const ALL: [(Self, &str, &str); 11] = [
        (
            Self::Plain,
            "ringtest",
            "two threads poll: add and get on one, use on the other, each element published by itself",
        ),
        (
            Self::Lazy,
            "ringtest-lazy",
            "the same; after an empty look the driver leaves out a few looks while it can add",
        ),
        (
            Self::Shuffled,
            "ringtest-shuffled",
            "the same; the device completes out of order, with random lengths",
        ),
        (
            Self::Outstanding1,
            "out1",
            "the same, with one element at a time",
        ),
        (
            Self::Outstanding16,
            "out16",
            "the same, with at most 16 elements at a time",
        ),
        (
            Self::Sleep,
            "sleep",
            "the same with EVENT_IDX; who has nothing to do sleeps until an eventfd is written; a decision at a burst's ends",
        ),
        (
            Self::SleepEach,
            "sleep-each",
            "the same, with a decision on the notification for each element",
        ),
        (
            Self::Batch32,
            "batch32",
            "the same, published in batches of 32 on both sides",
        ),
        (
            Self::EventIdx,
            "eventidx",
            "the same with EVENT_IDX and a decision on the notification for each element, nobody asleep",
        ),
        (
            Self::Chain2,
            "chain2",
            "the same with chains of a buffer to read and one to write",
        ),
        (
            Self::Indirect4,
            "indirect4",
            "the same with indirect tables of two buffers to read and two to write",
        ),
    ];

    fn features(self) -> Features {
        match self {
            Self::Sleep | Self::SleepEach | Self::EventIdx => Features::EVENT_IDX,
            Self::Indirect4 => Features::INDIRECT_DESC,
            _ => Features::empty(),
        }
    }
}

/// All that is done with this format.
pub(super) fn add<F: Format>(all: &mut Vec<Comparison>) {
    for (work, name, about) in Work::ALL {
        if work == Work::Shuffled && F::FEATURES.contains(Features::IN_ORDER) {
            continue;
        }
        let name = format!("{}/{name}", F::NAME);
        all.push(Comparison::new(name, about, move || {
            Ok(vec![contender::<F>(work)?])
        }));
    }
    let name = format!("{}/lockstep", F::NAME);
    all.push(Comparison::new(name, lockstep::ABOUT, || {
        shmbus_benches::pin_to_first_processor()?;
        Ok(vec![lockstep::contender(Sides::<F>::new(
            Features::empty(),
        )?)])
    }));
}

fn contender<F: Format>(work: Work) -> Result<Contender, SetUpError> {
    let sides = Sides::<F>::new(work.features())?;
    match work {
        Work::Plain => sides.plain(UNLIMITED, One, Polling),
        Work::Outstanding1 => sides.plain(1, One, Polling),
        Work::Outstanding16 => sides.plain(16, One, Polling),
        Work::EventIdx => sides.plain(UNLIMITED, One, Deciding),
        Work::Chain2 => sides.plain(UNLIMITED, Chain2, Polling),
        Work::Indirect4 => {
            let tables = Indirect4::new(sides.space.clone());
            sides.plain(UNLIMITED, tables, Polling)
        }
        Work::Sleep | Work::SleepEach => {
            let bell = Sleeping::new(if work == Work::Sleep {
                Decision::Burst
            } else {
                Decision::Each
            })?;
            let notifications = bell.rung();
            let contender = sides.plain(UNLIMITED, One, bell)?;
            Ok(Contender {
                notifications,
                ..contender
            })
        }
        Work::Lazy => sides.run(driver::drive_lazily, |device, space, operations| {
            device::serve(device, space, &Polling, operations)
        }),
        Work::Shuffled => {
            let mut shuffle = device::Shuffle::new();
            sides.run(
                |driver, operations| {
                    driver::drive(driver, &One, &Polling, UNLIMITED, operations);
                },
                move |device, space, operations| shuffle.serve(device, space, operations),
            )
        }
        Work::Batch32 => sides.run(batches::drive, batches::serve),
    }
}

/// Both sides of a ring, and where its buffers and indirect tables lie.
struct Sides<F: Format> {
    driver: Driver<F::Driver>,
    device: Device<F::Device>,
    space: OffsetSpace<Mapped>,
}

impl<F: Format> Sides<F> {
    fn new(features: Features) -> Result<Self, SetUpError> {
        let memory = |bytes| -> Result<Mapped, SetUpError> {
            let memory = SharedMemory::create("bench", bytes, Writers::Everybody)?;
            Ok(memory.window().clone())
        };
        let (driver, device) = F::sides(&memory(RING_BYTES as u64)?, F::features(features))?;
        Ok(Self {
            driver: DriverQueue::with_heap(driver),
            device: DeviceQueue::with_heap(device),
            space: OffsetSpace::new(memory(shapes::BYTES)?),
        })
    }

    /// As ringtest does it.
    fn plain(
        self,
        outstanding: u64,
        shape: impl Shape + 'static,
        bell: impl Bell + Clone + Send + 'static,
    ) -> Result<Contender, SetUpError> {
        let device_bell = bell.clone();
        self.run(
            move |driver, operations| {
                driver::drive(driver, &shape, &bell, outstanding, operations);
            },
            move |device, space, operations| {
                device::serve(device, space, &device_bell, operations);
            },
        )
    }

    fn run(
        self,
        mut drive: impl FnMut(&mut Driver<F::Driver>, u64) + 'static,
        mut serve: impl FnMut(&mut Device<F::Device>, &OffsetSpace<Mapped>, u64) + Send + 'static,
    ) -> Result<Contender, SetUpError> {
        let Self {
            mut driver,
            mut device,
            space,
        } = self;
        let partner = Partner::spawn(move |operations| serve(&mut device, &space, operations))?;
        Ok(Contender::new(OURS, move |operations| {
            partner.beside(operations, || drive(&mut driver, operations))
        }))
    }
}

/// How often a side has rung.
type Rung = Arc<AtomicU64>;
