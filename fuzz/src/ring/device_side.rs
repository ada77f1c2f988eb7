//! The device side over a driver that writes anything, before and while the device looks: chains whose buffers were
//! checked, or a fault that stays until the queue is reset.

use arbitrary::{Arbitrary, Unstructured};
use shmbus_ring::{
    Buffer, ChainHead, CompleteError, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot,
};
use shmbus_shm::{AddressError, OffsetSpace};

use super::formats::Placement;
use super::memory::{Chain, Memory, Spoilt, Tampering};
use super::program::steps;
use super::setting::MOST_ENTRIES;
use super::{Format, Setting};

/// What happens to a queue's device side.
#[derive(Debug)]
pub struct DeviceInput {
    /// How it is set up.
    pub setting: Setting,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for DeviceInput {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            setting: bytes.arbitrary()?,
            steps: steps(bytes)?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The honest driver lends a chain.
    Add(Chain),
    PublishAvailable,
    /// The honest driver takes back what it can.
    TakeBack,
    DriverNotifications(Option<u8>),
    Tamper(Tampering),
    Poll {
        spinning: bool,
    },
    /// The device takes so many chains at most.
    Take(u8),
    /// It takes one, and has little scratch memory.
    TakeShort(u8),
    /// It returns one of those that it has; without a length, all of it is written.
    Complete(u8, Option<u8>),
    /// It finds that one of them cannot be accessed.
    Fail(u8),
    PublishUsed,
    /// All that is lent is taken, completed and taken back.
    Round(u8),
    Notifications(bool),
    /// The ring is found at other addresses.
    Remap,
    Reset,
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.int_in_range(0..=23)? {
            0..=3 => Self::Add(bytes.arbitrary()?),
            4 | 5 => Self::PublishAvailable,
            6 => Self::TakeBack,
            7 => Self::DriverNotifications(bytes.arbitrary()?),
            8..=11 => Self::Tamper(bytes.arbitrary()?),
            12 | 13 => Self::Poll {
                spinning: bytes.arbitrary()?,
            },
            14 | 15 => Self::Take(bytes.arbitrary()?),
            16 => Self::TakeShort(bytes.arbitrary()?),
            17 => Self::Complete(bytes.arbitrary()?, bytes.arbitrary()?),
            18 => Self::Fail(bytes.arbitrary()?),
            19 => Self::PublishUsed,
            20 => Self::Round(bytes.arbitrary()?),
            21 => Self::Notifications(bytes.arbitrary()?),
            22 => Self::Remap,
            _ => Self::Reset,
        })
    }
}

impl Step {
    /// Whether it is more than honest peers and a careful device do.
    fn spoils(self) -> bool {
        matches!(self, Self::Tamper(_) | Self::TakeShort(_) | Self::Fail(_))
    }
}

struct Run<F: Format> {
    memory: Memory<F>,
    driver: DriverQueue<F::Driver, u8, Vec<DriverSlot<u8>>>,
    /// Chains that the driver may still lend, by number: each has an indirect table.
    free: Vec<u8>,
    device: DeviceQueue<F::Device, Vec<DeviceSlot>>,
    space: OffsetSpace<Spoilt>,
    indirect: bool,
    size: u16,
    /// Chains that the device has.
    taken: Vec<ChainHead>,
    /// How many chains it had that could not be accessed.
    failed: usize,
    /// How many chains may be taken until the next poll.
    batch: u16,
    /// Whether anything but the honest driver had a hand in what the device found.
    spoilt: bool,
}

/// Does what `input` says.
///
/// # Panics
///
/// When the device side breaks a promise.
pub fn device_side<F: Format>(input: &DeviceInput) {
    let setting = input.setting;
    let memory = Memory::<F>::new(setting);
    let position = F::Placement::position(setting);
    let driver = F::driver(memory.honest_areas(), setting);
    let device = F::device(memory.spoilt_areas(), setting);
    let mut run = Run {
        driver: DriverQueue::with_heap_at(driver, position).expect("the ring has it"),
        device: DeviceQueue::with_heap_at(device, position).expect("the ring has it"),
        free: (0..MOST_ENTRIES).collect(),
        space: memory.spoilt_space(),
        memory,
        indirect: setting.features::<F>().indirect(),
        size: F::Placement::size(setting),
        taken: Vec::new(),
        failed: 0,
        batch: 0,
        spoilt: false,
    };
    for step in &input.steps {
        if !(setting.honest && step.spoils()) {
            run.step(*step);
            run.check();
        }
    }
}

impl<F: Format> Run<F> {
    fn step(&mut self, step: Step) {
        self.spoilt |= step.spoils();
        match step {
            Step::Add(chain) => self.add(chain),
            Step::PublishAvailable => {
                let _ = self.driver.publish();
            }
            Step::TakeBack => self.take_back(),
            Step::DriverNotifications(None) => self.driver.disable_notifications(),
            Step::DriverNotifications(Some(count)) => {
                let _ = self.driver.enable_notifications_after(count.into());
            }
            Step::Tamper(tampering) => self.memory.tamper(tampering),
            Step::Poll { spinning } => self.poll(spinning),
            Step::Take(most) => {
                for _ in 0..most % (MOST_ENTRIES + 2) {
                    self.take(MOST_ENTRIES.into());
                }
            }
            Step::TakeShort(scratch) => {
                // The honest driver's chains may be longer than that.
                self.take(usize::from(scratch % MOST_ENTRIES));
            }
            Step::Complete(which, written) => self.complete(which, written),
            Step::Fail(which) => {
                if let Some(head) = self.pick(which) {
                    let reason = AddressError::Empty { address: 0 };
                    let fault = self.device.fail(head, reason);
                    assert_eq!(self.device.fault(), Some(fault));
                    self.failed += 1;
                }
            }
            Step::PublishUsed => {
                let _ = self.device.publish();
            }
            Step::Round(which) => self.round(which),
            Step::Notifications(false) => self.device.disable_notifications(),
            Step::Notifications(true) => {
                let _ = self.device.enable_notifications();
            }
            Step::Remap => {
                self.memory.remap();
                let rebound = self.driver.rebind(self.memory.honest_areas());
                rebound.expect("the same size");
                let rebound = self.device.rebind(self.memory.spoilt_areas());
                rebound.expect("the same size");
            }
            Step::Reset => self.reset(),
        }
    }

    fn add(&mut self, chain: Chain) {
        let Some(number) = self.free.pop() else {
            return;
        };
        let (readable, writable) = chain.buffers();
        let added = if chain.indirect && self.indirect {
            let (address, table) = self.memory.table(number);
            self.driver
                .add_indirect(&readable, &writable, &table, address, number)
        } else {
            self.driver.add(&readable, &writable, number)
        };
        if let Err(rejected) = added {
            self.free.push(rejected.cookie);
        }
    }

    fn poll(&mut self, spinning: bool) {
        let found = if spinning {
            self.device.poll_spinning()
        } else {
            self.device.poll()
        };
        let found = found.unwrap_or(0);
        assert!(found <= self.size);
        self.batch = if F::COUNTS || found == 0 {
            found
        } else {
            self.size
        };
    }

    fn take(&mut self, scratch: usize) {
        let mut segments = [Buffer::default(); MOST_ENTRIES as usize];
        let taken = self
            .device
            .take(&self.space, &mut segments[..scratch])
            .unwrap_or_default();
        let Some(chain) = taken else {
            return;
        };
        assert!(self.batch > 0, "more than the poll found");
        self.batch -= 1;
        let (readable, writable) = (chain.readable(), chain.writable());
        assert!(readable.len() + writable.len() <= scratch.min(self.size.into()));
        let bytes = |buffers: &[Buffer]| buffers.iter().map(|buffer| u64::from(buffer.len)).sum();
        let (sum, other): (u64, u64) = (bytes(readable), bytes(writable));
        assert_eq!(
            (sum, other),
            (chain.readable_bytes(), chain.writable_bytes())
        );
        assert!(sum + other <= 1 << 32);
        assert!(chain.index() < self.size);
        let index = chain.index();
        assert!(self.taken.iter().all(|head| head.index() != index));
        // Addresses are the driver's word, and are checked here: bytes, or a typed error.
        let read = chain.read(&self.space, 0, &mut [0; 64]);
        let written = chain.write(&self.space, 0, &[7; 64]);
        assert!(self.spoilt || (read.is_ok() && written.is_ok()));
        self.taken.push(chain.into_head());
    }

    fn complete(&mut self, which: u8, written: Option<u8>) {
        let Some(head) = self.pick(which) else {
            return;
        };
        let most = u32::try_from(head.writable_bytes()).unwrap_or(u32::MAX);
        let written = written.map_or(most, u32::from);
        let completed = self.device.complete(head, written);
        if written <= most {
            completed.expect("it was taken, and has that many bytes");
        } else {
            let uncompleted = completed.expect_err("it has fewer bytes");
            assert!(matches!(uncompleted.reason, CompleteError::TooLong { .. }));
            let completed = self.device.complete(uncompleted.chain, most);
            completed.expect("it was taken, and has that many bytes");
        }
    }

    fn take_back(&mut self) {
        let _ = self.driver.poll();
        while let Ok(Some(used)) = self.driver.take() {
            self.free.push(used.cookie);
        }
    }

    fn round(&mut self, which: u8) {
        let _ = self.driver.publish();
        self.poll(false);
        for _ in 0..=self.size {
            self.take(MOST_ENTRIES.into());
        }
        while !self.taken.is_empty() {
            self.complete(which, None);
        }
        let _ = self.device.publish();
        self.take_back();
        let lent = self.driver.positions().in_flight;
        assert!(self.spoilt || lent == 0, "{lent} chains are lost");
    }

    fn pick(&mut self, which: u8) -> Option<ChainHead> {
        let count = self.taken.len().max(1);
        let which = usize::from(which) % count;
        (which < self.taken.len()).then(|| self.taken.swap_remove(which))
    }

    /// As when the driver resets the device, or this queue: whatever happened, all is well again.
    fn reset(&mut self) {
        self.device.reset();
        let free = &mut self.free;
        self.driver.reset(|chain| free.push(chain));
        assert_eq!(free.len(), usize::from(MOST_ENTRIES), "all chains are back");
        for head in self.taken.drain(..) {
            let completed = self.device.complete(head, 0);
            let reason = completed.expect_err("it was taken before").reason;
            assert!(matches!(reason, CompleteError::NotTaken { .. }));
        }
        self.failed = 0;
        self.batch = 0;
        self.memory.stop_lying();
        self.spoilt = false;
    }

    /// What holds between any two steps.
    fn check(&mut self) {
        let in_flight = self.taken.len() + self.failed;
        assert_eq!(usize::from(self.device.positions().in_flight), in_flight);
        assert!(in_flight <= self.size.into());
        if let Some(fault) = self.device.fault() {
            assert!(self.spoilt, "{fault}, and the driver was honest");
            assert_eq!(self.device.poll(), Err(fault));
            let taken = self.device.take(&self.space, &mut []);
            assert_eq!(taken.err(), Some(fault));
        }
        if let Some(fault) = self.driver.fault() {
            assert!(self.spoilt, "{fault}, and the device was honest");
        }
    }
}
