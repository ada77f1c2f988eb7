//! A virtio-pci driver's whole life, its queues' too, over a device that says what the fuzzer says.
//!
//! The device is emulated, and honest as long as it is not told otherwise: an honest one never makes a fault, and never
//! sees its driver do what no driver may do, whatever is asked of the driver.

use std::os::fd::AsFd;

use arbitrary::Arbitrary;
use shmbus_ring::any::{Areas, DriverRing, Layout};
use shmbus_ring::{Buffer, DriverQueue, DriverSlot};
use shmbus_shm::testing::Probed;
use shmbus_shm::{Mapped, RingFormat, Window};
use shmbus_signal::os::Waiter;
use shmbus_transports::pci::emulated::{
    Blueprint, Claim, EmulatedDevice, EmulatedDma, EmulatedFunction, Lie,
};
use shmbus_transports::pci::virtio::{DeviceError, Patience, QueueNotifier, QueueSetup, VirtioPci};
use shmbus_transports::pci::{DmaMemory, DmaRegion, Function};
use shmbus_virtio::{DeviceId, Features};

use crate::{Script, scripted, tamper};

/// What a driver is told to do, and what the device says.
#[derive(Arbitrary, Debug)]
pub struct DeviceInput {
    /// Changes of the device's claims.
    claims: Vec<(u8, Change)>,
    /// The maximal sizes of its queues, and where they are notified.
    queues: Vec<(u16, u16)>,
    multiplier: Option<u32>,
    /// How it is brought up before the steps; most deep states are behind that.
    up: Option<BringUp>,
    steps: Vec<Step>,
    /// What registers read as: each read takes one byte. A zero byte, or the end, leaves it honest; any other is
    /// followed by four bytes that are read instead.
    registers: Vec<u8>,
    /// The same of the loads from queues.
    memory: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Kind(u8),
    CapLen(u8),
    Bar(u8),
    Id(u8),
    Offset(u64),
    Len(u64),
}

/// All that a driver does until its device runs.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct BringUp {
    features: u64,
    log_size: u8,
    vector: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Reset,
    BringUp(BringUp),
    /// Accepts of what is offered what these bits leave, and what every driver needs.
    Negotiate(u64),
    Vectors(u8),
    ConfigVector(Option<u8>),
    QueueSize(u8),
    Enable {
        queue: u8,
        log_size: u8,
        vector: Option<u8>,
    },
    Start,
    ResetQueue(u8),
    ReadConfig(u8),
    InterruptStatus,
    Check,
    MapShared(u8),
    /// Lends a buffer, publishes, notifies.
    Lend(u8),
    /// Looks for what came back.
    TakeBack(u8),
    /// The device writes what it likes.
    Tamper(u8, u16, u16),
}

type Spoilt = Probed<Mapped, Script>;
type Registers = <EmulatedFunction as Function>::Registers;

struct Queue {
    number: u16,
    memory: DmaRegion,
    driver: DriverQueue<DriverRing<Spoilt>, u16, Vec<DriverSlot<u16>>>,
    notifier: QueueNotifier<Registers>,
    lent: u16,
}

struct Run<'a> {
    input: &'a DeviceInput,
    dma: EmulatedDma,
    device: EmulatedDevice,
    driver: VirtioPci<EmulatedFunction>,
    queues: Vec<Queue>,
    started: bool,
    bells: Vec<Waiter>,
    honest: bool,
}

/// No step takes more register accesses: 64 reads of a configuration, of 14 accesses each at most.
const MOST_ACCESSES: u64 = 2_000;
const HASTY: Patience = Patience {
    polls: 3,
    pause: std::time::Duration::ZERO,
};

/// Does what `input` says.
///
/// # Panics
///
/// When the driver breaks a promise.
pub fn device(input: &DeviceInput) {
    let dma = EmulatedDma::new(1 << 16);
    let blueprint = blueprint(input);
    let (function, device) = blueprint.build(&dma);
    let honest = input.claims.is_empty()
        && input.queues.is_empty()
        && input.multiplier.is_none()
        && input.registers.is_empty();
    let opened = VirtioPci::open_with(function, HASTY);
    assert_eq!(device.strayed(), 0);
    let driver = match opened {
        Ok(driver) => driver,
        Err(error) => {
            assert!(!honest, "{error}");
            return;
        }
    };
    // Configuration space of any bytes is another target's.
    device.lie(script(&input.registers));
    let mut run = Run {
        input,
        dma,
        device,
        driver,
        queues: Vec::new(),
        started: false,
        bells: Vec::new(),
        honest,
    };
    for step in input.up.map(Step::BringUp).iter().chain(&input.steps) {
        run.step(step);
    }
    let Run { device, driver, .. } = run;
    drop(driver);
    assert!(!device.is_bus_master());
    assert_eq!(device.eventfds(), 0);
    assert_eq!(device.strayed(), 0);
    if honest {
        assert_eq!(device.breaches(), [""; 0]);
    }
}

fn blueprint(input: &DeviceInput) -> Blueprint {
    // Memory on the heap is not ordered for devices.
    let never = Features::BAD_FEATURE | Features::NOTIFY_ON_EMPTY | Features::ORDER_PLATFORM;
    let mut blueprint = Blueprint::new(DeviceId::NET, Features::all() - never, 3, &[1; 20]);
    for (index, change) in &input.claims {
        let count = blueprint.claims.len();
        let claim = &mut blueprint.claims[usize::from(*index) % count];
        match *change {
            Change::Kind(kind) => claim.kind = kind,
            Change::CapLen(len) => claim.cap_len = len,
            Change::Bar(bar) => claim.bar = bar,
            Change::Id(id) => claim.id = id,
            Change::Offset(offset) => claim.offset = offset,
            Change::Len(len) => claim.len = len,
        }
    }
    if let Some(multiplier) = input.multiplier {
        for claim in blueprint
            .claims
            .iter_mut()
            .filter(|c| c.kind == Claim::NOTIFY)
        {
            claim.multiplier = multiplier;
        }
    }
    for (queue, (max_size, notify_off)) in blueprint.queues.iter_mut().zip(&input.queues) {
        (queue.max_size, queue.notify_off) = (*max_size, *notify_off);
    }
    blueprint
}

fn script(bytes: &[u8]) -> Lie {
    let mut bytes = bytes.to_vec().into_iter();
    Box::new(move |_, honest| match bytes.next() {
        None | Some(0) => honest,
        Some(_) => {
            let mut lie = [0; 4];
            lie.fill_with(|| bytes.next().unwrap_or_default());
            u32::from_le_bytes(lie)
        }
    })
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        let before = self.device.accesses();
        let result = self.work(step);
        assert!(self.device.accesses() - before < MOST_ACCESSES);
        assert_eq!(self.device.strayed(), 0);
        if let Err(error) = result {
            assert!(!(self.honest && error.is_fault()), "{error}");
            if error.is_fault() {
                self.started = false;
                let before = self.device.accesses();
                let latched = self.driver.check();
                assert!(
                    matches!(latched, Err(DeviceError::Latched { .. })),
                    "{latched:?}"
                );
                assert_eq!(self.device.accesses(), before, "nothing is asked any more");
            }
        }
    }

    fn work(&mut self, step: &Step) -> Result<(), DeviceError> {
        match *step {
            Step::Reset => {
                self.queues.clear();
                self.started = false;
                self.driver.reset()?;
            }
            Step::BringUp(up) => {
                self.work(&Step::Reset)?;
                self.work(&Step::Negotiate(up.features))?;
                self.work(&Step::Vectors(2))?;
                for queue in 0..3 {
                    let (log_size, vector) = (up.log_size, up.vector.then_some(queue % 2));
                    let enable = Step::Enable {
                        queue,
                        log_size,
                        vector,
                    };
                    // A queue may be unavailable, or too small.
                    if let Err(error) = self.work(&enable)
                        && error.is_fault()
                    {
                        return Err(error);
                    }
                }
                self.work(&Step::Start)?;
            }
            Step::Negotiate(bits) => {
                let needed = Features::VERSION_1 | Features::ACCESS_PLATFORM;
                let wanted = Features::from_bits_retain(bits.into()) | needed;
                // Of the rest of the 128, a few in the upper half.
                let wanted = wanted | Features::from_bits_retain(u128::from(bits >> 60) << 100);
                self.driver
                    .negotiate(wanted.choose(self.driver.offered()))?;
            }
            Step::Vectors(count) => {
                self.bells = (0..count % 6)
                    .map(|_| Waiter::new().expect("a descriptor"))
                    .collect();
                let bells: Vec<_> = self.bells.iter().map(AsFd::as_fd).collect();
                self.driver.enable_vectors(&bells)?;
            }
            Step::ConfigVector(vector) => {
                self.driver.set_config_vector(vector.map(u16::from))?;
            }
            Step::QueueSize(queue) => {
                let found = self.driver.queue_size(u16::from(queue % 4))?;
                assert!(found != Some(0));
            }
            Step::Enable {
                queue,
                log_size,
                vector,
            } => self.enable(queue, log_size, vector)?,
            Step::Start => {
                self.driver.start()?;
                self.started = true;
            }
            Step::ResetQueue(queue) => {
                let queue = u16::from(queue % 4);
                self.driver.reset_queue(queue)?;
                self.queues.retain(|kept| kept.number != queue);
            }
            Step::ReadConfig(offset) => {
                let at = u64::from(offset) * 16;
                self.driver.read_config(|config| {
                    config.read_bytes::<6>(at)?;
                    config.read_u16(at + 6)?;
                    config.read_u64(at + 8)
                })?;
            }
            Step::InterruptStatus => {
                self.driver.interrupt_status()?;
            }
            Step::Check => self.driver.check()?,
            Step::MapShared(id) => {
                let region = self
                    .driver
                    .shared_memory()
                    .iter()
                    .find(|region| region.id == id);
                let len = region.map(|region| region.place.len);
                let mapped = self.driver.map_shared_memory(id)?;
                assert_eq!(Some(mapped.len() as u64), len);
            }
            Step::Lend(queue) => self.lend(queue)?,
            Step::TakeBack(queue) => self.take_back(queue),
            Step::Tamper(queue, word, value) => {
                if let Some(queue) = self.queue(queue) {
                    tamper(&queue.memory.window, &[(word % 0x1800, value)]);
                }
            }
        }
        Ok(())
    }

    fn enable(&mut self, queue: u8, log_size: u8, vector: Option<u8>) -> Result<(), DeviceError> {
        let number = u16::from(queue % 4);
        let features = self.driver.features();
        let format = match features.contains(Features::RING_PACKED) {
            true => RingFormat::Packed,
            false => RingFormat::Split,
        };
        // Up to 64 entries, and a page for each memory of the ring.
        let size = 1 << (log_size % 7);
        let memory = self.dma.allocate(3 << 12).expect("there is room");
        let layout = Layout::new(format, size).expect("a power of two");
        let base = memory.address;
        let (descriptor_area, driver_area, device_area) = match layout {
            Layout::Split(ring) => (
                base + ring.descriptors_offset() as u64,
                base + ring.available_offset() as u64,
                base + 0x1000 + ring.used_offset() as u64,
            ),
            Layout::Packed(_) | Layout::Tagged(_) => (base + 0x2000, base, base + 0x1000),
        };
        let setup = QueueSetup {
            size,
            descriptor_area,
            driver_area,
            device_area,
            vector: vector.map(u16::from),
        };
        let notifier = self.driver.enable_queue(number, &setup)?;
        let spoilt = scripted(&memory.window, &self.input.memory);
        let [driver, device, common] =
            [0, 1, 2].map(|page| spoilt.narrow(page << 12, 1 << 12).expect("three pages"));
        let areas = Areas::in_memories(layout, &driver, &device, Some(&common));
        let ring = DriverRing::new(areas.expect("a page each"), features);
        self.queues.push(Queue {
            number,
            memory,
            driver: DriverQueue::with_heap(ring.expect("the driver took them for granted")),
            notifier,
            lent: 0,
        });
        Ok(())
    }

    fn queue(&mut self, which: u8) -> Option<&mut Queue> {
        let count = self.queues.len();
        self.queues.get_mut(usize::from(which) % count.max(1))
    }

    fn lend(&mut self, which: u8) -> Result<(), DeviceError> {
        let started = self.started;
        let Some(queue) = self.queue(which) else {
            return Ok(());
        };
        let buffer = Buffer::new(queue.memory.address, 64);
        if queue.driver.add(&[], &[buffer], queue.lent).is_ok() {
            queue.lent += 1;
        }
        if queue.driver.publish().is_needed() && started {
            let data = queue.driver.notification_data(queue.number);
            queue.notifier.notify(data.available)?;
        }
        Ok(())
    }

    /// Each chain comes back once, with no more bytes than were lent; or there is a fault.
    fn take_back(&mut self, which: u8) {
        let Some(queue) = self.queue(which) else {
            return;
        };
        if queue.driver.poll().is_err() {
            assert!(queue.driver.fault().is_some());
            return;
        }
        for _ in 0..queue.driver.size() {
            match queue.driver.take() {
                Ok(Some(used)) => assert!(used.written <= 64 && used.cookie < queue.lent),
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(queue.driver.fault(), Some(fault));
                    break;
                }
            }
        }
    }
}
