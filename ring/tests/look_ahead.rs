//! Sides that spin look ahead: what they overlook, for how long, and what they never believe.
#![cfg(not(miri))] // rings large enough to look ahead in are too large for it

mod support;

use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot, PATIENCE,
    packed,
};
use shmbus_shm::testing::Counting;
use shmbus_virtio::Features;
use support::heap_ring::space;
use support::{IN_ORDER, packed_ring};

/// Of a size that is no power of two, and in which a side looks ahead.
const SIZE: u16 = 250;
const BUFFER: Buffer = Buffer::new(0, 8);

type Driver<D> = DriverQueue<D, u32, Vec<DriverSlot<u32>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Both sides, each of which takes chains as they come.
struct Pair<D, V> {
    driver: Driver<D>,
    device: Device<V>,
    sent: u32,
    returned: u32,
}

impl<D: DriverFormat, V: DeviceFormat> Pair<D, V> {
    fn new(driver: D, device: V) -> Self {
        Self {
            driver: DriverQueue::with_heap(driver),
            device: DeviceQueue::with_heap(device),
            sent: 0,
            returned: 0,
        }
    }

    fn send(&mut self, chains: u32) {
        for _ in 0..chains {
            self.driver.add(&[], &[BUFFER], self.sent).unwrap();
            self.driver.expose();
            self.sent += 1;
        }
    }

    /// Completes what a poll found, one by one; answers how many.
    fn serve(&mut self) -> u32 {
        let (space, mut segments) = (space(8), [Buffer::default(); 1]);
        let mut served = 0;
        while let Some(chain) = self.device.take(&space, &mut segments).unwrap() {
            self.device.complete(chain, 8).unwrap();
            self.device.expose();
            served += 1;
        }
        served
    }

    /// Takes back what a poll found; answers how many.
    fn take_back(&mut self) -> u32 {
        let before = self.returned;
        while let Some(used) = self.driver.take().unwrap() {
            assert_eq!((used.cookie, used.written), (self.returned, 8));
            self.returned += 1;
        }
        self.returned - before
    }

    /// Goes on until both sides look ahead: the ring is always full.
    fn warm_up(&mut self) {
        for _ in 0..20 {
            self.send(u32::from(self.driver.free()));
            while self.device.poll_spinning().unwrap() > 0 {
                assert!(self.serve() > 0, "it was said that there is one");
            }
            while self.driver.poll_spinning().unwrap() > 0 {
                assert!(self.take_back() > 0, "it was said that there is one");
            }
        }
    }

    /// Everything comes back, although both sides may overlook things.
    fn drain(&mut self) {
        for _ in 0..2 * PATIENCE {
            if self.device.poll_spinning().unwrap() > 0 {
                assert!(self.serve() > 0);
            }
        }
        for _ in 0..2 * PATIENCE {
            if self.driver.poll_spinning().unwrap() > 0 {
                assert!(self.take_back() > 0);
            }
        }
        assert_eq!((self.returned, self.driver.free()), (self.sent, SIZE));
    }
}

fn pair(features: Features) -> Pair<impl DriverFormat, impl DeviceFormat> {
    let memory = packed_ring::Memory::new(SIZE);
    Pair::new(
        packed::DriverRing::new(memory.areas(), features).unwrap(),
        packed::DeviceRing::new(memory.areas(), features).unwrap(),
    )
}

/// So often does a side that spins answer 0, although there is something.
fn overlooked(mut poll: impl FnMut() -> u16) -> u16 {
    let mut overlooked = 0;
    while poll() == 0 {
        overlooked += 1;
        assert!(overlooked <= PATIENCE);
    }
    overlooked
}

#[test]
fn what_a_device_overlooks_it_finds_in_time_and_before_it_sleeps() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let mut pair = pair(features);
        pair.send(1);
        while pair.device.poll_spinning() == Ok(1) {
            assert_eq!(pair.serve(), 1);
            assert!(pair.sent < u32::from(PATIENCE), "it does not look ahead");
            pair.send(1);
        }
        assert!(!pair.device.enable_notifications().is_empty());
        assert_eq!(pair.device.poll(), Ok(1));
        assert!(overlooked(|| pair.device.poll_spinning().unwrap()) > 0);
        assert_eq!(pair.serve(), 1);
        assert!(pair.device.enable_notifications().is_empty());
        pair.drain();
    }
}

/// The driver has lent many chains. Some came back, one after the other.
#[test]
fn what_a_driver_overlooks_it_finds_in_time_and_before_it_sleeps() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let mut pair = pair(features);
        pair.send(u32::from(SIZE));
        pair.device.poll().unwrap();
        let (space, mut segments) = (space(8), [Buffer::default(); 1]);
        let mut complete = |device: &mut Device<_>| {
            let chain = device.take(&space, &mut segments).unwrap().unwrap();
            device.complete(chain, 8).unwrap();
            device.expose();
        };
        complete(&mut pair.device);
        while pair.driver.poll_spinning() == Ok(1) {
            assert_eq!(pair.take_back(), 1);
            assert!(
                pair.returned < u32::from(PATIENCE),
                "it does not look ahead"
            );
            complete(&mut pair.device);
        }
        assert!(!pair.driver.enable_notifications().is_empty());
        assert_eq!(pair.driver.poll(), Ok(1));
        assert!(overlooked(|| pair.driver.poll_spinning().unwrap()) > 0);
        assert_eq!(pair.take_back(), 1);
        assert!(pair.driver.enable_notifications().is_empty());
        pair.drain();
    }
}

/// The first descriptor of a batch is shown last: nothing behind it is taken before.
#[test]
fn a_batch_that_is_not_published_is_not_there() {
    let mut pair = pair(Features::empty());
    pair.warm_up();
    pair.drain();
    pair.warm_up();
    pair.drain();
    for _ in 0..SIZE {
        pair.driver.add(&[], &[BUFFER], pair.sent).unwrap();
        pair.sent += 1;
    }
    for _ in 0..3 * PATIENCE {
        assert_eq!(pair.device.poll_spinning(), Ok(0));
        assert_eq!(pair.serve(), 0);
    }
    pair.driver.expose();
    pair.drain();
}

#[test]
fn in_order_and_with_chains_nothing_is_lost_by_spinning() {
    let memory = packed_ring::Memory::new(SIZE);
    let mut pair = Pair::new(
        packed::InOrderDriverRing::new(memory.areas(), IN_ORDER).unwrap(),
        packed::InOrderDeviceRing::new(memory.areas(), IN_ORDER).unwrap(),
    );
    pair.warm_up();
    pair.drain();

    let mut pair = self::pair(Features::empty());
    for _ in 0..50 {
        while pair.driver.free() >= 3 {
            pair.driver.add(&[BUFFER; 2], &[BUFFER], pair.sent).unwrap();
            pair.driver.expose();
            pair.sent += 1;
        }
        let (space, mut segments) = (space(8), [Buffer::default(); 3]);
        for _ in 0..2 * PATIENCE {
            if pair.device.poll_spinning().unwrap() > 0 {
                while let Some(chain) = pair.device.take(&space, &mut segments).unwrap() {
                    pair.device.complete(chain, 8).unwrap();
                    pair.device.expose();
                }
            }
        }
        for _ in 0..2 * PATIENCE {
            if pair.driver.poll_spinning().unwrap() > 0 {
                pair.take_back();
            }
        }
        assert_eq!(pair.returned, pair.sent);
    }
}

/// Of the entries that are served by one look ahead, each is looked at when it is taken, and each line once before.
#[test]
fn looking_ahead_costs_a_look_at_each_line() {
    let memory = packed_ring::Memory::new(SIZE);
    let [driver, device, other] = [(); 3].map(|()| Counting::default());
    let areas = |ring: &Counting| memory.probed(ring.clone(), other.clone(), other.clone());
    let mut pair = Pair::new(
        packed::DriverRing::new(areas(&driver), Features::empty()).unwrap(),
        packed::DeviceRing::new(areas(&device), Features::empty()).unwrap(),
    );
    pair.warm_up();
    pair.drain();
    pair.warm_up();
    pair.send(u32::from(pair.driver.free()));
    let most = u64::from(3 * SIZE / 8).div_ceil(4) + 2;
    let loads = device.loads();
    assert_eq!(pair.device.poll_spinning(), Ok(1));
    assert!(device.loads() - loads <= most);
    let loads = device.loads();
    let served = u64::from(pair.serve());
    assert!(served > 1, "it does not look ahead");
    // Its state and its address.
    assert_eq!(device.loads() - loads, 2 * served);
    for _ in 0..3 * PATIENCE {
        let loads = [driver.loads(), device.loads()];
        let _ = (pair.driver.poll_spinning(), pair.device.poll_spinning());
        assert!(driver.loads() - loads[0] <= most);
        assert!(device.loads() - loads[1] <= most);
    }
}

/// One used descriptor stands for three chains; what is left of them is known without another look.
#[test]
fn the_rest_of_a_batch_in_order_is_remembered() {
    let memory = packed_ring::Memory::new(SIZE);
    let driver = packed::InOrderDriverRing::new(memory.areas(), IN_ORDER).unwrap();
    let device = packed::InOrderDeviceRing::new(memory.areas(), IN_ORDER).unwrap();
    let (mut driver, mut device) = (
        DriverQueue::with_heap(driver),
        DeviceQueue::with_heap(device),
    );
    for chain in 0..3 {
        driver.add(&[BUFFER], &[], chain).unwrap();
    }
    let _ = driver.publish();
    let space = space(8);
    let mut segments = [Buffer::default(); 2];
    device.poll().unwrap();
    while let Some(chain) = device.take(&space, &mut segments).unwrap() {
        device.complete(chain, 0).unwrap();
    }
    let _ = device.publish();
    for chain in 0..3 {
        assert_eq!(driver.poll_spinning(), Ok(1), "before chain {chain}");
        let used = driver.take().unwrap().unwrap();
        assert_eq!(used.cookie, chain);
    }
    assert_eq!(driver.poll_spinning(), Ok(0));
}
