//! The driver side over a device that writes anything, before and while the driver looks: each chain comes back at most
//! once, with no more bytes than were lent, or a fault stays until the queue is reset, which gives back all the rest.

use std::collections::{HashMap, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use shmbus_ring::{
    AddError, Buffer, ChainHead, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot, Rejected,
};

use super::formats::Placement;
use super::memory::{Chain, Memory, Tampering};
use super::program::steps;
use super::setting::MOST_ENTRIES;
use super::{Format, Setting};

/// What happens to a queue's driver side.
#[derive(Debug)]
pub struct DriverInput {
    /// How it is set up.
    pub setting: Setting,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for DriverInput {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            setting: bytes.arbitrary()?,
            steps: steps(bytes)?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(Chain),
    PublishAvailable,
    /// The honest device takes what is there.
    Take,
    /// It returns one of the chains that it has; without a length, all of it is written.
    Complete(u8, Option<u8>),
    PublishUsed,
    /// It returns all that there is.
    Serve(u8, Option<u8>),
    /// All that is lent comes back.
    Round(u8),
    DeviceNotifications(bool),
    Tamper(Tampering),
    Poll {
        spinning: bool,
    },
    /// The driver takes back so many chains at most.
    TakeBack(u8),
    Notifications(Option<u8>),
    /// The ring is found at other addresses.
    Remap,
    Reset,
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match bytes.int_in_range(0..=23)? {
            0..=3 => Self::Add(bytes.arbitrary()?),
            4 | 5 => Self::PublishAvailable,
            6 => Self::Take,
            7 | 8 => Self::Complete(bytes.arbitrary()?, bytes.arbitrary()?),
            9 => Self::PublishUsed,
            10 | 11 => Self::Serve(bytes.arbitrary()?, bytes.arbitrary()?),
            12 => Self::Round(bytes.arbitrary()?),
            13 => Self::DeviceNotifications(bytes.arbitrary()?),
            14..=16 => Self::Tamper(bytes.arbitrary()?),
            17 | 18 => Self::Poll {
                spinning: bytes.arbitrary()?,
            },
            19 | 20 => Self::TakeBack(bytes.arbitrary()?),
            21 => Self::Notifications(bytes.arbitrary()?),
            22 => Self::Remap,
            _ => Self::Reset,
        })
    }
}

impl Step {
    /// Whether it is more than an honest device does.
    fn spoils(self) -> bool {
        matches!(self, Self::Tamper(_))
    }
}

/// A chain that the device has. It is no copy, so it cannot come back twice.
#[derive(Debug)]
struct Lent {
    number: u32,
    writable: u32,
    descriptors: u16,
}

struct Run<F: Format> {
    memory: Memory<F>,
    driver: DriverQueue<F::Driver, Lent, Vec<DriverSlot<Lent>>>,
    device: DeviceQueue<F::Device, Vec<DeviceSlot>>,
    indirect: bool,
    /// How many descriptors may be lent.
    capacity: u16,
    /// The numbers of the chains that are lent, oldest first.
    lent: VecDeque<u32>,
    /// How many chains were ever added, and were when the driver published last.
    added: u32,
    published: u32,
    /// How many descriptors are lent.
    descriptors: u16,
    /// How many chains may come back until the next poll.
    batch: u16,
    /// How many chains the device ever took, if it is not spoilt.
    numbered: u32,
    /// What the device has, by number.
    taken: Vec<(u32, ChainHead)>,
    /// What the device said of chains that it returned, by number.
    told: HashMap<u32, u32>,
    /// Whether anything but the honest device had a hand in what the driver found.
    spoilt: bool,
}

/// Does what `input` says.
///
/// # Panics
///
/// When the driver side breaks a promise.
pub fn driver_side<F: Format>(input: &DriverInput) {
    let setting = input.setting;
    let memory = Memory::<F>::new(setting);
    let position = F::Placement::position(setting);
    let driver = F::driver(memory.spoilt_areas(), setting);
    let device = F::device(memory.honest_areas(), setting);
    let driver = DriverQueue::with_heap_at(driver, position).expect("the ring has it");
    let capacity = driver.capacity();
    let mut run = Run {
        driver,
        device: DeviceQueue::with_heap_at(device, position).expect("the ring has it"),
        memory,
        indirect: setting.features::<F>().indirect(),
        capacity,
        lent: VecDeque::new(),
        added: 0,
        published: 0,
        descriptors: 0,
        batch: 0,
        numbered: 0,
        taken: Vec::new(),
        told: HashMap::new(),
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
            Step::PublishAvailable => self.publish(),
            Step::Take => self.take(),
            Step::Complete(which, written) => self.complete(which, written),
            Step::PublishUsed => {
                let _ = self.device.publish();
            }
            Step::Serve(which, written) => self.serve(which, written),
            Step::Round(which) => self.round(which),
            Step::DeviceNotifications(false) => self.device.disable_notifications(),
            Step::DeviceNotifications(true) => {
                let _ = self.device.enable_notifications();
            }
            Step::Tamper(tampering) => self.memory.tamper(tampering),
            Step::Poll { spinning } => self.poll(spinning),
            Step::TakeBack(most) => {
                for _ in 0..most % (MOST_ENTRIES + 2) {
                    self.take_back();
                }
            }
            Step::Notifications(None) => self.driver.disable_notifications(),
            Step::Notifications(Some(count)) => {
                let _ = self.driver.enable_notifications_after(count.into());
            }
            Step::Remap => {
                self.memory.remap();
                let rebound = self.driver.rebind(self.memory.spoilt_areas());
                rebound.expect("the same size");
                let rebound = self.device.rebind(self.memory.honest_areas());
                rebound.expect("the same size");
            }
            Step::Reset => self.reset(),
        }
    }

    fn add(&mut self, chain: Chain) {
        let indirect = chain.indirect;
        let (readable, writable) = chain.buffers();
        let number = self.added;
        let needed = readable.len() + writable.len();
        let descriptors = if indirect { 1 } else { needed as u16 };
        let cookie = Lent {
            number,
            writable: writable.iter().map(|buffer| buffer.len).sum(),
            descriptors,
        };
        let added = if indirect {
            // The device has read the tables of chains older than a ring's worth.
            let (address, table) = self.memory.table(number as u8);
            self.driver
                .add_indirect(&readable, &writable, &table, address, cookie)
        } else {
            self.driver.add(&readable, &writable, cookie)
        };
        match added {
            Ok(()) => {
                self.lent.push_back(number);
                self.added += 1;
                self.descriptors += descriptors;
            }
            Err(Rejected { reason, cookie }) => {
                assert_eq!(cookie.number, number, "another chain's cookie");
                match reason {
                    AddError::Empty => assert_eq!(needed, 0),
                    AddError::TooManyDescriptors { .. } => assert!(needed > self.capacity.into()),
                    AddError::IndirectNotNegotiated => assert!(indirect && !self.indirect),
                    AddError::Full { .. } => {
                        assert!(self.descriptors + descriptors > self.capacity);
                    }
                    AddError::Faulted(fault) => assert_eq!(self.driver.fault(), Some(fault)),
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn complete(&mut self, which: u8, written: Option<u8>) {
        if self.taken.is_empty() {
            return;
        }
        let which = usize::from(which) % self.taken.len();
        let (number, head) = self.taken.swap_remove(which);
        let most = head.writable_bytes();
        let written = written.map_or(most, |written| most.min(written.into()));
        self.told.insert(number, written as u32);
        let completed = self.device.complete(head, written as u32);
        completed.expect("it was taken, and has that many bytes");
    }

    fn publish(&mut self) {
        let _ = self.driver.publish();
        if self.driver.fault().is_none() {
            self.published = self.added;
        }
    }

    /// The device looks at what is there, spoilt or not.
    fn take(&mut self) {
        let space = self.memory.honest_space();
        let mut segments = [Buffer::default(); MOST_ENTRIES as usize];
        let _ = self.device.poll();
        while let Ok(Some(chain)) = self.device.take(&space, &mut segments) {
            self.taken.push((self.numbered, chain.into_head()));
            self.numbered += 1;
        }
    }

    fn poll(&mut self, spinning: bool) {
        let found = if spinning {
            self.driver.poll_spinning()
        } else {
            self.driver.poll()
        };
        let found = found.unwrap_or(0);
        let in_flight = self.driver.positions().in_flight;
        assert!(found <= in_flight);
        self.batch = if F::COUNTS || found == 0 {
            found
        } else {
            in_flight
        };
    }

    fn serve(&mut self, which: u8, written: Option<u8>) {
        self.take();
        for at in 0..self.taken.len() {
            // Not of every chain is all written, or all that is said.
            self.complete(which, written.filter(|_| at % 2 == 0));
        }
        let _ = self.device.publish();
    }

    fn round(&mut self, which: u8) {
        self.publish();
        self.serve(which, None);
        self.poll(false);
        for _ in 0..=self.capacity {
            self.take_back();
        }
        let lent = self.lent.len();
        assert!(self.spoilt || lent == 0, "{lent} chains are lost");
    }

    fn take_back(&mut self) {
        let Ok(Some(used)) = self.driver.take() else {
            return;
        };
        assert!(self.batch > 0, "more than the poll found");
        self.batch -= 1;
        let Lent {
            number,
            writable,
            descriptors,
        } = used.cookie;
        let lent = self.lent.iter().position(|lent| *lent == number);
        let lent = lent.expect("it came back twice");
        assert!(lent == 0 || !F::IN_ORDER, "it overtook an older one");
        assert!(number < self.published, "the device never had it");
        assert!(used.written <= writable);
        let told = self.told.remove(&number);
        assert!(self.spoilt || told == Some(used.written));
        self.lent.remove(lent);
        self.descriptors -= descriptors;
    }

    /// As when the driver resets the device, or this queue: whatever happened, all is well again.
    fn reset(&mut self) {
        self.device.reset();
        self.taken.clear();
        self.told.clear();
        self.numbered = self.added;
        let lent = &mut self.lent;
        self.driver.reset(|cookie| {
            let at = lent.iter().position(|lent| *lent == cookie.number);
            lent.remove(at.expect("it came back twice"));
        });
        assert!(lent.is_empty(), "a reset gives everything back");
        self.published = self.added;
        self.descriptors = 0;
        self.batch = 0;
        self.memory.stop_lying();
        self.spoilt = false;
    }

    /// What holds between any two steps.
    fn check(&mut self) {
        assert_eq!(
            usize::from(self.driver.positions().in_flight),
            self.lent.len()
        );
        assert_eq!(self.driver.free(), self.capacity - self.descriptors);
        if let Some(fault) = self.driver.fault() {
            assert!(self.spoilt, "{fault}, and the device was honest");
            assert_eq!(self.driver.poll(), Err(fault));
            assert_eq!(self.driver.take().err(), Some(fault));
        }
        if let Some(fault) = self.device.fault() {
            assert!(self.spoilt, "{fault}, and the driver was honest");
        }
    }
}
