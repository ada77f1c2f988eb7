//! Queues over a virtio-pci device: its driver's registers, memory that it reaches by DMA, MSI-X vectors that signal eventfds. The
//! device is emulated in this process, and has the ring crate's device side behind its registers.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use shmbus_ring::any::{Areas, DeviceRing, DriverRing, Layout};
use shmbus_ring::{Buffer, DeviceQueue, DriverQueue, DriverSlot};
use shmbus_shm::{Bytes, Entries, Mapped, RingFormat, Window};
use shmbus_signal::os::Waiter;
use shmbus_transports::pci::emulated::{Blueprint, EmulatedDevice, EmulatedDma, EmulatedFunction};
use shmbus_transports::pci::virtio::{QueueNotifier, QueueSetup, VirtioPci};
use shmbus_transports::pci::{DmaMemory, DmaRegion, Function};
use shmbus_virtio::{DeviceId, Features};

const SIZE: u16 = 16;
const QUEUE: u16 = 1;
const REQUESTS: u64 = 2_000;
const LIMIT: Duration = Duration::from_secs(60);
const BASIC: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM);

type Queue = DriverQueue<DriverRing<Mapped>, u64, Vec<DriverSlot<u64>>>;
type Notifier = QueueNotifier<<EmulatedFunction as Function>::Registers>;

/// A driver with one queue, and what it needs to use it.
struct Bench {
    driver: VirtioPci<EmulatedFunction>,
    features: Features,
    layout: Layout,
    ring: DmaRegion,
    buffers: DmaRegion,
    bell: Waiter,
}

impl Bench {
    fn new(features: Features) -> (Self, EmulatedDevice) {
        let dma = EmulatedDma::new(1 << 20);
        let offered = Features::all() - Features::BAD_FEATURE - Features::NOTIFY_ON_EMPTY;
        let (function, device) = Blueprint::new(DeviceId::NET, offered, 2, &[]).build(&dma);
        let format = match features.contains(Features::RING_PACKED) {
            true => RingFormat::Packed,
            false => RingFormat::Split,
        };
        let bench = Self {
            driver: VirtioPci::open(function).unwrap(),
            features,
            layout: Layout::new(format, SIZE).unwrap(),
            ring: dma.allocate(3 << 12).unwrap(),
            buffers: dma.allocate(4096).unwrap(),
            bell: Waiter::new().unwrap(),
        };
        (bench, device)
    }

    /// The same areas for both sides: what the driver writes, what the device writes, what both write, a page each.
    fn areas(&self, window: impl Fn(u64) -> Mapped) -> Areas<Mapped> {
        let [driver, device, common] = [0, 1, 2].map(|page| window(page << 12));
        Areas::in_memories(self.layout, &driver, &device, Some(&common)).unwrap()
    }

    /// Brings the device up, with a fresh queue.
    fn start(&mut self) -> (Queue, Notifier) {
        let whole = Bytes::new(&self.ring.window, 0, 3 << 12).unwrap();
        whole.copy_from(0, &[0; 3 << 12]);
        self.driver.reset().unwrap();
        self.driver.negotiate(self.features).unwrap();
        self.driver.enable_vectors(&[self.bell.as_fd()]).unwrap();
        let base = self.ring.address;
        let (descriptor_area, driver_area, device_area) = match self.layout {
            Layout::Split(ring) => (
                base + ring.descriptors_offset() as u64,
                base + ring.available_offset() as u64,
                base + 0x1000 + ring.used_offset() as u64,
            ),
            Layout::Packed(_) | Layout::Tagged(_) => (base + 0x2000, base, base + 0x1000),
        };
        let setup = QueueSetup {
            size: SIZE,
            descriptor_area,
            driver_area,
            device_area,
            vector: Some(0),
        };
        let notifier = self.driver.enable_queue(QUEUE, &setup).unwrap();
        self.driver.start().unwrap();
        let areas = self.areas(|page| self.ring.window.narrow(page as usize, 0x1000).unwrap());
        let ring = DriverRing::new(areas, self.features).unwrap();
        (DriverQueue::with_heap(ring), notifier)
    }

    fn device_ring(&self, device: &EmulatedDevice) -> DeviceRing<Mapped> {
        let queue = device.queue(QUEUE).unwrap();
        assert_eq!(queue.size, SIZE);
        // By the device's own account of where it reaches memory.
        let base = match self.layout {
            Layout::Split(_) => queue.descriptor_area,
            Layout::Packed(_) | Layout::Tagged(_) => queue.driver_area,
        };
        let areas = self.areas(|page| device.window(base + page, 0x1000).unwrap());
        DeviceRing::new(areas, device.features()).unwrap()
    }

    /// Buffer number `index`: 8 bytes that the driver writes, and 8 for the answer.
    fn buffers(&self, index: u64) -> (Buffer, Buffer) {
        let at = 16 * index;
        let address = self.buffers.address + at;
        (Buffer::new(address, 8), Buffer::new(address + 8, 8))
    }

    fn bytes(&self, index: u64) -> Bytes<'_, Mapped> {
        Bytes::new(&self.buffers.window, 16 * index as usize, 16).unwrap()
    }
}

/// The device: answers each request with its complement, each time that it is notified.
fn serve(device: &EmulatedDevice, ring: DeviceRing<Mapped>, notified: &mpsc::Receiver<()>) {
    let mut queue = DeviceQueue::with_heap(ring);
    let mut segments = [Buffer::default(); SIZE as usize];
    while notified.recv_timeout(LIMIT).is_ok() {
        loop {
            queue.poll().unwrap();
            while let Some(chain) = queue.take(device, &mut segments).unwrap() {
                let mut request = [0; 8];
                chain.read(device, 0, &mut request).unwrap();
                let answer = (!u64::from_le_bytes(request)).to_le_bytes();
                let written = chain.write(device, 0, &answer).unwrap();
                queue.complete(chain, written as u32).unwrap();
            }
            if queue.publish().is_needed() {
                assert!(device.signal_queue(QUEUE).unwrap());
            }
            if queue.enable_notifications().is_empty() {
                break;
            }
        }
    }
}

#[test]
fn queues_run_over_a_virtio_pci_device() {
    for features in [
        BASIC,
        BASIC | Features::EVENT_IDX | Features::IN_ORDER,
        BASIC | Features::RING_PACKED,
        BASIC | Features::RING_PACKED | Features::EVENT_IDX | Features::NOTIFICATION_DATA,
    ] {
        let (mut bench, device) = Bench::new(features);
        let (mut queue, notifier) = bench.start();
        let ring = bench.device_ring(&device);
        let (notify, notified) = mpsc::channel();
        device.on_notify(move |_| notify.send(()).unwrap_or(()));
        thread::scope(|scope| {
            let served = device.clone();
            scope.spawn(move || serve(&served, ring, &notified));

            let mut free: Vec<u64> = (0..u64::from(SIZE / 2)).collect();
            let (mut asked, mut answered) = (0, 0);
            while answered < REQUESTS {
                while asked < REQUESTS
                    && let Some(index) = free.pop()
                {
                    let (request, answer) = bench.buffers(index);
                    bench.bytes(index).copy_from(0, &asked.to_le_bytes());
                    queue.add(&[request], &[answer], index).unwrap();
                    asked += 1;
                }
                if queue.publish().is_needed() {
                    let data = queue.notification_data(QUEUE);
                    notifier.notify(data.available).unwrap();
                }
                if queue.enable_notifications().is_empty() {
                    assert!(bench.bell.wait(Some(LIMIT)).unwrap(), "{features:?}");
                }
                queue.poll().unwrap();
                while let Some(used) = queue.take().unwrap() {
                    let mut both = [0; 16];
                    bench.bytes(used.cookie).copy_to(0, &mut both);
                    let (request, answer) = both.split_at(8);
                    assert!(
                        request
                            .iter()
                            .zip(answer)
                            .all(|(asked, told)| *told == !asked)
                    );
                    assert_eq!(used.written, 8);
                    free.push(used.cookie);
                    answered += 1;
                }
            }
            // The device's thread is told no more, and ends.
            device.on_notify(|_| ());
        });
        bench.driver.finish().unwrap();
        assert_eq!(device.breaches(), [""; 0]);
    }
}

#[test]
fn a_device_that_lies_in_a_used_ring_is_latched_until_it_is_reset() {
    for features in [BASIC, BASIC | Features::RING_PACKED] {
        let (mut bench, device) = Bench::new(features);
        for _ in 0..2 {
            let (mut queue, notifier) = bench.start();
            let (request, answer) = bench.buffers(0);
            queue.add(&[request], &[answer], 7).unwrap();
            assert!(queue.publish().is_needed());
            notifier.notify(0).unwrap();
            assert_eq!(device.take_notifications().len(), 1);

            // It is device-writable memory: the used ring, or the packed ring itself.
            let page = if features.contains(Features::RING_PACKED) {
                2
            } else {
                1
            };
            let writable = device
                .window(bench.ring.address + (page << 12), 0x1000)
                .unwrap();
            let words = Entries::<u16, _>::new(&writable, 0, 2048).unwrap();
            for word in 0..64 {
                words.store(word, 0xfff3, Relaxed);
            }
            let found = queue.poll().and_then(|_| queue.take());
            let fault = found.map(drop).unwrap_err();
            assert_eq!(queue.take().map(drop).unwrap_err(), fault);
            assert_eq!(queue.fault(), Some(fault));

            // Transport and queue are reset, and all is well again.
            let mut returned = Vec::new();
            queue.reset(|cookie| returned.push(cookie));
            assert_eq!(returned, [7]);
        }
        let (mut queue, _notifier) = bench.start();
        let (request, answer) = bench.buffers(0);
        queue.add(&[request], &[answer], 8).unwrap();
        let _ = queue.publish();
        let mut served = DeviceQueue::with_heap(bench.device_ring(&device));
        let mut segments = [Buffer::default(); SIZE as usize];
        served.poll().unwrap();
        let chain = served.take(&device, &mut segments).unwrap().unwrap();
        served.complete(chain, 8).unwrap();
        let _ = served.publish();
        assert_eq!(queue.poll().unwrap(), 1);
        assert_eq!(queue.take().unwrap().unwrap().cookie, 8);
    }
}
