//! Four processes: a driver; a device that is killed with chains in flight; a third one that saves the dead device's state
//! from the memory that it left; and a fourth that goes on from there, as the device, with memory of its own. Every buffer
//! comes back once, with the right answer.
#![cfg(not(miri))]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use shmbus_ring::record::{Record, Recorded};
use shmbus_ring::{
    Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverFormat,
    DriverQueue, DriverSlot, packed, split,
};
use shmbus_shm::{Access, Bytes, Field, Mapped, OffsetSpace, SharedMemory, Window, Writers};
use shmbus_virtio::Features;
use support::IN_ORDER;
use support::random::Random;

const SIZE: u16 = 32;
const KILLS: usize = 12;
const LOST: Duration = Duration::from_secs(30);

/// The common memory: a word that says that all is done, then a packed ring, then the buffers.
const RING: usize = 4096;
const BUFFERS: u64 = 16384;
const BUFFER_BYTES: u64 = 64;
const COMMON_BYTES: u64 = 65536;
/// The device's memory: its area of a split ring, then its record.
const RECORD: usize = 4096;
const DEVICE_BYTES: u64 = 16384;
const DRIVER_BYTES: u64 = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Split,
    SplitInOrder,
    Packed,
    PackedInOrder,
}

const FORMATS: [(&str, Format); 4] = [
    ("split", Format::Split),
    ("split-in-order", Format::SplitInOrder),
    ("packed", Format::Packed),
    ("packed-in-order", Format::PackedInOrder),
];

impl Format {
    fn features(self) -> Features {
        match self {
            Self::Split | Self::Packed => Features::EVENT_IDX,
            Self::SplitInOrder | Self::PackedInOrder => IN_ORDER,
        }
    }
}

fn split_areas(driver: &Mapped, device: &Mapped) -> split::Areas<Mapped> {
    let layout = split::Layout::new(SIZE).unwrap();
    split::Areas::in_memories(layout, driver, device).unwrap()
}

fn packed_areas(common: &Mapped) -> packed::Areas<Mapped> {
    let layout = packed::Layout::new(SIZE).unwrap();
    let memory = common.narrow(RING, layout.bytes()).unwrap();
    packed::Areas::in_memory(layout, &memory).unwrap()
}

fn record_memory(device: &Mapped) -> Mapped {
    device
        .narrow(RECORD, DEVICE_BYTES as usize - RECORD)
        .unwrap()
}

fn is_done(common: &Mapped) -> Field<u64, Mapped> {
    Field::new(common, 0).unwrap()
}

/// What the device answers.
fn answer(request: u64) -> u64 {
    request.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xabcd
}

// ---------------------------------------------------------------- the processes that the test starts

fn variable(name: &str) -> Option<String> {
    env::var(format!("SHMBUS_RECOVERY_{name}")).ok()
}

fn open(name: &str, bytes: u64, access: Access) -> Option<SharedMemory> {
    let path = variable(name)?;
    let file = fs::File::options()
        .read(true)
        .write(access.writes())
        .open(path)
        .unwrap();
    Some(SharedMemory::from_peer(file.into(), bytes, access).unwrap())
}

fn format() -> Format {
    let wanted = variable("FORMAT").unwrap();
    let (_, format) = FORMATS.iter().find(|(name, _)| *name == wanted).unwrap();
    *format
}

/// Not a test by itself: the process that is killed, or the one that goes on from its state.
#[test]
fn device() {
    let Some(driver) = open("DRIVER", DRIVER_BYTES, Access::Read) else {
        return;
    };
    if variable("ROLE").as_deref() != Some("device") {
        return;
    }
    let common = open("COMMON", COMMON_BYTES, Access::ReadWrite).unwrap();
    // Its own, which nobody else will ever write; a successor's starts with what the dead one had shown.
    let own = SharedMemory::create("device", DEVICE_BYTES, Writers::Creator).unwrap();
    if let Some(old) = open("DEVICE", DEVICE_BYTES, Access::Read) {
        let mut shown = vec![0; RECORD];
        Bytes::new(old.window(), 0, RECORD)
            .unwrap()
            .copy_to(0, &mut shown);
        Bytes::new(own.window(), 0, RECORD)
            .unwrap()
            .copy_from(0, &shown);
    }
    let state = variable("STATE").map(|path| fs::read(path).unwrap());
    let state = state.as_deref();
    let format = format();
    let (split, packed) = (
        || split_areas(driver.window(), own.window()),
        || packed_areas(common.window()),
    );
    let features = format.features();
    let (own, common) = (&own, common.window());
    match format {
        Format::Split => serve(
            split::DeviceRing::new(split(), features).unwrap(),
            own,
            common,
            state,
        ),
        Format::SplitInOrder => serve(
            split::InOrderDeviceRing::new(split(), features).unwrap(),
            own,
            common,
            state,
        ),
        Format::Packed => serve(
            packed::DeviceRing::new(packed(), features).unwrap(),
            own,
            common,
            state,
        ),
        Format::PackedInOrder => serve(
            packed::InOrderDeviceRing::new(packed(), features).unwrap(),
            own,
            common,
            state,
        ),
    }
}

fn serve<V: DeviceFormat>(ring: V, own: &SharedMemory, common: &Mapped, state: Option<&[u8]>) {
    let ring = Recorded::with_heap(ring, &record_memory(own.window())).unwrap();
    let space = OffsetSpace::new(common.clone());
    let mut segments = [Buffer::default(); SIZE as usize];
    let mut held = Vec::new();
    let mut device = match state {
        None => DeviceQueue::with_heap(ring),
        Some(state) => {
            let state = DeviceState::parse(state).unwrap();
            let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
            let mut device = DeviceQueue::restore(ring, slots, &state).unwrap();
            for chain in state.chains() {
                let chain = device.retake(chain, &space, &mut segments).unwrap();
                held.push(respond(chain.expect("it was in flight"), &space));
            }
            device
        }
    };
    println!("\nmemory {}", path_of(own).display());
    let mut random = Random::new(u64::from(process::id()));
    while is_done(common).load(Acquire) == 0 {
        device.poll().unwrap();
        while held.len() < 20
            && let Some(chain) = device.take(&space, &mut segments).unwrap()
        {
            held.push(respond(chain, &space));
        }
        for _ in 0..random.below(held.len() + 1) {
            let (chain, written) = held.swap_remove(random.below(held.len()));
            device.complete(chain, written).unwrap();
        }
        let _ = device.publish();
        thread::yield_now();
    }
    // Nobody reads any more what a test says at its end.
    process::exit(0);
}

/// Reads the request and writes the answer; some chains have room for more than that.
fn respond(chain: shmbus_ring::Chain<'_>, space: &OffsetSpace<Mapped>) -> (ChainHead, u32) {
    let mut request = [0; 8];
    assert_eq!(chain.read(space, 0, &mut request), Ok(8));
    let answer = answer(u64::from_le_bytes(request)).to_le_bytes();
    assert_eq!(chain.write(space, 0, &answer), Ok(8));
    (chain.into_head(), 8)
}

/// Not a test by itself: the third party, who can only look.
#[test]
fn save() {
    if variable("ROLE").as_deref() != Some("save") {
        return;
    }
    let driver = open("DRIVER", DRIVER_BYTES, Access::Read).unwrap();
    let device = open("DEVICE", DEVICE_BYTES, Access::Read).unwrap();
    // Both sides write this memory, so nobody can be held to reading it.
    let common = open("COMMON", COMMON_BYTES, Access::ReadWrite).unwrap();
    let record = || Record::open(&record_memory(device.window())).unwrap();
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    let state = match format() {
        Format::Split => {
            let areas = split_areas(driver.window(), device.window());
            split::recover(&areas, &record(), &mut bytes)
        }
        Format::SplitInOrder => {
            let areas = split_areas(driver.window(), device.window());
            split::recover_in_order(&areas, &mut bytes)
        }
        Format::Packed | Format::PackedInOrder => {
            packed::recover(&packed_areas(common.window()), &record(), &mut bytes)
        }
    };
    fs::write(variable("STATE").unwrap(), state.unwrap().as_bytes()).unwrap();
}

// ---------------------------------------------------------------- the test's own process: the driver

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path_of(memory: &SharedMemory) -> PathBuf {
    format!("/proc/{}/fd/{}", process::id(), memory.as_fd().as_raw_fd()).into()
}

/// A state's file, and the memories that the processes share.
struct Stage<'s> {
    format: &'s str,
    driver: &'s SharedMemory,
    common: &'s SharedMemory,
    state: PathBuf,
}

impl Stage<'_> {
    fn command(&self, role: &str) -> Command {
        let test = if role == "save" { "save" } else { "device" };
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env("SHMBUS_RECOVERY_ROLE", role)
            .env("SHMBUS_RECOVERY_FORMAT", self.format)
            .env("SHMBUS_RECOVERY_DRIVER", path_of(self.driver))
            .env("SHMBUS_RECOVERY_COMMON", path_of(self.common));
        command
    }

    /// Starts a device, which goes on where the `old` one died; returns its memory as we may see it.
    fn start_device(&self, old: Option<&SharedMemory>) -> (Killed, SharedMemory) {
        let mut command = self.command("device");
        if let Some(old) = old {
            command
                .env("SHMBUS_RECOVERY_DEVICE", path_of(old))
                .env("SHMBUS_RECOVERY_STATE", &self.state);
        }
        let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let output = BufReader::new(child.0.stdout.take().unwrap());
        let path = output
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("memory ").map(str::to_owned))
            .expect("the device says where its memory is");
        let file = fs::File::open(path).unwrap();
        let memory = SharedMemory::from_peer(file.into(), DEVICE_BYTES, Access::Read).unwrap();
        (child, memory)
    }

    fn save(&self, device: &SharedMemory) -> usize {
        let status = self
            .command("save")
            .env("SHMBUS_RECOVERY_DEVICE", path_of(device))
            .env("SHMBUS_RECOVERY_STATE", &self.state)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the state could not be saved");
        let bytes = fs::read(&self.state).unwrap();
        let state = DeviceState::parse(&bytes).unwrap();
        usize::from(state.positions().in_flight)
    }
}

/// Lends requests and takes answers.
struct Lender<D> {
    queue: DriverQueue<D, u64, Vec<DriverSlot<u64>>>,
    common: Mapped,
    free: Vec<u64>,
    lent: BTreeMap<u64, u64>,
    next: u64,
    returned: u64,
}

impl<D: DriverFormat> Lender<D> {
    /// Lends what there is room for.
    fn lend(&mut self) {
        while let Some(place) = self.free.pop() {
            let request = self.next.wrapping_mul(31);
            let at = BUFFERS + place * BUFFER_BYTES;
            Bytes::new(&self.common, at as usize, 8)
                .unwrap()
                .copy_from(0, &request.to_le_bytes());
            // Two halves of the request now and then, and room for the answer or more.
            let halves = [Buffer::new(at, 4), Buffer::new(at + 4, 4)];
            let whole = [Buffer::new(at, 8)];
            let readable = if self.next.is_multiple_of(3) {
                &halves[..]
            } else {
                &whole
            };
            let room = if self.next.is_multiple_of(2) { 8 } else { 24 };
            let writable = [Buffer::new(at + 16, room)];
            if self.queue.add(readable, &writable, place).is_err() {
                self.free.push(place);
                break;
            }
            self.lent.insert(place, request);
            self.next += 1;
        }
        let _ = self.queue.publish();
    }

    /// Takes what came back.
    fn reap(&mut self) {
        while self.queue.poll().unwrap() > 0 {
            while let Some(used) = self.queue.take().unwrap() {
                let place = used.cookie;
                let request = self.lent.remove(&place).expect("it comes back once");
                assert_eq!(used.written, 8);
                let at = BUFFERS + place * BUFFER_BYTES + 16;
                let mut found = [0; 8];
                Bytes::new(&self.common, at as usize, 8)
                    .unwrap()
                    .copy_to(0, &mut found);
                assert_eq!(u64::from_le_bytes(found), answer(request));
                self.free.push(place);
                self.returned += 1;
            }
        }
    }
}

fn run<D: DriverFormat>(name: &str, make: impl Fn(&Mapped, &Mapped, &Mapped) -> (D, D::Areas))
where
    D::Areas: Clone,
{
    let driver = SharedMemory::create("driver", DRIVER_BYTES, Writers::Creator).unwrap();
    let common = SharedMemory::create("common", COMMON_BYTES, Writers::Everybody).unwrap();
    let state = env::temp_dir().join(format!("shmbus-recovery-{name}-{}", process::id()));
    let stage = Stage {
        format: name,
        driver: &driver,
        common: &common,
        state,
    };
    let (mut device, mut memory) = stage.start_device(None);
    let (ring, _) = make(driver.window(), common.window(), memory.window());
    let mut lender = Lender {
        queue: DriverQueue::with_heap(ring),
        common: common.window().clone(),
        free: (0..48).collect(),
        lent: BTreeMap::new(),
        next: 0,
        returned: 0,
    };
    let mut random = Random::new(7);
    let (mut in_flight, mut pending) = (0, 0);
    for _ in 0..KILLS {
        // Some hundred chains, then a death somewhere among them.
        let until = lender.returned + 200 + random.below(800) as u64;
        let began = Instant::now();
        while lender.returned < until {
            lender.lend();
            thread::yield_now();
            lender.reap();
            assert!(began.elapsed() < LOST, "{name}: nothing comes back");
        }
        lender.lend();
        device.0.kill().unwrap();
        device.0.wait().unwrap();
        pending += lender.lent.len();
        in_flight += stage.save(&memory);
        // The driver need not wait for the successor.
        lender.reap();
        lender.lend();
        let (successor, its_memory) = stage.start_device(Some(&memory));
        let (_, areas) = make(driver.window(), common.window(), its_memory.window());
        lender.queue.rebind(areas).unwrap();
        (device, memory) = (successor, its_memory);
    }
    let began = Instant::now();
    while !lender.lent.is_empty() {
        lender.reap();
        thread::yield_now();
        assert!(began.elapsed() < LOST, "{name}: lost {:?}", lender.lent);
    }
    is_done(common.window()).store(1, Release);
    assert!(device.0.wait().unwrap().success());
    remove(&stage.state);
    assert_eq!(lender.returned, lender.next);
    assert!(pending > 0, "nothing was lent when the device died");
    println!(
        "{name}: {KILLS} deaths, {} chains, {pending} lent and {in_flight} in flight at the deaths",
        lender.returned
    );
    let _ = is_done(common.window()).load(Relaxed);
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

#[test]
fn a_killed_device_of_a_split_ring_is_succeeded() {
    run("split", |driver, _, device| {
        let areas = split_areas(driver, device);
        let ring = split::DriverRing::new(areas.clone(), Format::Split.features());
        (ring.unwrap(), areas)
    });
}

#[test]
fn a_killed_device_of_a_split_ring_in_order_is_succeeded() {
    run("split-in-order", |driver, _, device| {
        let areas = split_areas(driver, device);
        let ring = split::InOrderDriverRing::new(areas.clone(), Format::SplitInOrder.features());
        (ring.unwrap(), areas)
    });
}

#[test]
fn a_killed_device_of_a_packed_ring_is_succeeded() {
    run("packed", |_, common, _| {
        let areas = packed_areas(common);
        let ring = packed::DriverRing::new(areas.clone(), Format::Packed.features());
        (ring.unwrap(), areas)
    });
}

#[test]
fn a_killed_device_of_a_packed_ring_in_order_is_succeeded() {
    run("packed-in-order", |_, common, _| {
        let areas = packed_areas(common);
        let ring = packed::InOrderDriverRing::new(areas.clone(), Format::PackedInOrder.features());
        (ring.unwrap(), areas)
    });
}
