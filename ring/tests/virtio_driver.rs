//! Our device side against the driver queues of libblkio's virtio-driver, split and packed.
#![cfg(not(miri))] // the peer holds a `&mut` to memory that the device accesses

mod peers;

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::thread;

use peers::foreign::direct::{Header, Queue};
use peers::our_device::OurDevice;
use peers::sides::{Driver, run_at_once, take_turns};
use peers::traffic::{Shape, Traffic, UNWRITTEN, request};
use shmbus_ring::{DeviceFormat, DeviceQueue, DeviceSlot, packed, split};
use shmbus_shm::{
    Access, AddressError, AddressSpace, Bytes, Mapped, OffsetSpace, SharedMemory, Window, Writers,
};
use shmbus_virtio::Features;
use virtio_driver::virtqueue::VirtqueueLayout;
use virtio_driver::{IovaTranslator, Le32, VhostUser, VirtioFeatureFlags, VirtioTransport, iovec};

/// The addresses of the peer's mapping, in the device's mapping of the same memory.
#[derive(Clone)]
struct TheirAddresses {
    base: u64,
    space: OffsetSpace<Mapped>,
}

impl AddressSpace for TheirAddresses {
    type Slice<'a> = Bytes<'a, Mapped>;

    fn translate(
        &self,
        address: u64,
        len: u32,
        access: Access,
    ) -> Result<Bytes<'_, Mapped>, AddressError> {
        self.space
            .translate(address.wrapping_sub(self.base), len, access)
    }
}

/// The peer's addresses are those of its process. It wants a value to tell it so of a type that has no name outside the
/// crate; the only way to one is a connection to a vhost-user device, which here answers the three questions that are
/// asked first.
fn their_translator() -> Box<dyn IovaTranslator> {
    static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "shmbus-ring-{}-{}",
        process::id(),
        CONNECTIONS.fetch_add(1, Relaxed)
    );
    let path = env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let device = thread::spawn(move || answer_questions(&listener));
    let connection = VhostUser::<Le32, Header>::new(path.to_str().unwrap(), 0).unwrap();
    device.join().unwrap().unwrap();
    fs::remove_file(&path).unwrap();
    connection.iova_translator()
}

fn answer_questions(listener: &UnixListener) -> io::Result<()> {
    let answers: [(u32, u64); 3] = [
        (1, 1 << 30),                    // GET_FEATURES: PROTOCOL_FEATURES
        (15, 1 << 3 | 1 << 9 | 1 << 15), // GET_PROTOCOL_FEATURES: what the peer insists on
        (36, 1),                         // GET_MAX_MEM_SLOTS, which it asks last
    ];
    let (mut stream, _) = listener.accept()?;
    loop {
        let mut words = [[0; 4]; 3];
        for word in &mut words {
            stream.read_exact(word)?;
        }
        let [message, _, len] = words.map(u32::from_le_bytes);
        io::copy(&mut (&stream).take(u64::from(len)), &mut io::sink())?;
        if let Some((_, answer)) = answers.iter().find(|(question, _)| *question == message) {
            for word in [message, 1 | 4, 8] {
                stream.write_all(&u32::to_le_bytes(word))?;
            }
            stream.write_all(&answer.to_le_bytes())?;
        }
        if message == 36 {
            return Ok(());
        }
    }
}

/// The peer. It publishes each chain at once.
struct TheirDriver {
    queue: Queue,
    memory: Mapped,
    traffic: Traffic,
    rules: Rules,
    /// Where free chains' buffers lie.
    pieces: Vec<usize>,
    /// By id.
    lent: Vec<Option<Lent>>,
    added: bool,
}

/// What differs between the peer's formats.
#[derive(Clone, Copy)]
struct Rules {
    packed: bool,
    event_idx: bool,
}

struct Lent {
    number: u64,
    piece: usize,
    request: Vec<u8>,
    writable: Vec<Part>,
}

/// Where a buffer lies: in the queue's memory, where the peer keeps some bytes for each chain, or behind it.
#[derive(Clone, Copy)]
enum Part {
    Header,
    Buffer { offset: usize, len: usize },
}

impl TheirDriver {
    /// Lays out a chain's buffers. One of them is the header, where the lengths allow it.
    fn parts(&self, shape: &Shape, piece: usize) -> (Vec<Part>, Vec<Part>) {
        let mut offset = piece;
        let mut header = Some(Part::Header);
        let mut place = |len: &u32| {
            let len = *len as usize;
            if len == size_of::<Header>()
                && let Some(header) = header.take()
            {
                return header;
            }
            offset += len;
            Part::Buffer {
                offset: offset - len,
                len,
            }
        };
        (
            shape.readable.iter().map(&mut place).collect(),
            shape.writable.iter().map(&mut place).collect(),
        )
    }

    fn bytes(&self, offset: usize, len: usize) -> Bytes<'_, Mapped> {
        Bytes::new(&self.memory, offset, len).unwrap()
    }
}

impl Driver for TheirDriver {
    fn add(&mut self, number: u64, shape: &Shape) -> bool {
        let Some(piece) = self.pieces.pop() else {
            return false;
        };
        let (readable, writable) = self.parts(shape, piece);
        let request = request(number, shape.readable.iter().sum::<u32>() as usize);
        let mut header: Header = [UNWRITTEN; _];
        let mut rest = request.as_slice();
        for part in &readable {
            match part {
                Part::Header => {
                    let (bytes, behind) = rest.split_first_chunk().unwrap();
                    (header, rest) = (*bytes, behind);
                }
                Part::Buffer { offset, len } => {
                    let (bytes, behind) = rest.split_at(*len);
                    self.bytes(*offset, *len).copy_from(0, bytes);
                    rest = behind;
                }
            }
        }
        for part in &writable {
            if let Part::Buffer { offset, len } = part {
                self.bytes(*offset, *len)
                    .copy_from(0, &vec![UNWRITTEN; *len]);
            }
        }

        let base = self.memory.as_ptr().as_ptr();
        let parts = readable.iter().map(|part| (part, false));
        let mut parts = parts.chain(writable.iter().map(|part| (part, true)));
        let result = self.queue.inner().add_request(|place: &mut Header, add| {
            *place = header;
            parts.try_for_each(|(part, from_device)| {
                let (start, len) = match part {
                    Part::Header => (place.as_mut_ptr(), place.len()),
                    Part::Buffer { offset, len } => (base.wrapping_add(*offset), *len),
                };
                let buffer = iovec {
                    iov_base: start.cast(),
                    iov_len: len,
                };
                add(buffer, from_device)
            })
        });
        let Ok(id) = result else {
            // There is no room. A packed chain then leaves its descriptors but the first marked available: behind a
            // shorter chain the device would find them. But the chain that is added next is this one again.
            self.pieces.push(piece);
            return false;
        };
        let lent = Lent {
            number,
            piece,
            request,
            writable,
        };
        let free = self.lent[usize::from(id)].replace(lent);
        assert!(free.is_none(), "id {id} is lent");
        self.added = true;
        true
    }

    fn publish(&mut self) -> bool {
        if !std::mem::take(&mut self.added) {
            return false;
        }
        if !self.rules.packed && !self.rules.event_idx {
            // The peer looks at the device's flags without a barrier behind its index (against section 2.7.13.4.1).
            fence(SeqCst);
        }
        self.queue.inner().avail_notif_needed()
    }

    fn take(&mut self) -> Option<u64> {
        let completion = self.queue.inner().completions().next()?;
        let lent = self.lent[usize::from(completion.id)].take();
        let lent = lent.expect("it is lent");
        let mut found = Vec::new();
        for part in &lent.writable {
            match *part {
                Part::Header => found.extend(completion.req),
                Part::Buffer { offset, len } => {
                    let start = found.len();
                    found.resize(start + len, 0);
                    self.bytes(offset, len).copy_to(0, &mut found[start..]);
                }
            }
        }
        // The peer hands on no length.
        let mut expected = self.traffic.answer(&lent.request, found.len());
        expected.resize(found.len(), UNWRITTEN);
        assert_eq!(found, expected, "chain {}", lent.number);
        self.pieces.push(lent.piece);
        Some(lent.number)
    }

    fn disable_notifications(&mut self) {
        self.queue.inner().set_used_notif_enabled(false);
    }

    fn enable_notifications(&mut self) -> bool {
        self.queue.inner().set_used_notif_enabled(true);
        if !self.rules.packed && !self.rules.event_idx {
            // The peer has no barrier between its flags and the look at the used index.
            fence(SeqCst);
        }
        !self.queue.inner().completions().has_next()
    }
}

/// The peer, and what the device needs: memory with the peer's layout, mapped a second time.
struct Setting {
    driver: TheirDriver,
    layout: VirtqueueLayout,
    memory: Mapped,
    addresses: TheirAddresses,
}

impl Setting {
    fn new(size: u16, rules: Rules, traffic: Traffic) -> Self {
        let mut features = VirtioFeatureFlags::VERSION_1;
        features.set(VirtioFeatureFlags::RING_PACKED, rules.packed);
        features.set(VirtioFeatureFlags::RING_EVENT_IDX, rules.event_idx);
        let entries = usize::from(size);
        let layout = VirtqueueLayout::new::<Header>(1, entries, features).unwrap();
        let piece_bytes = traffic.piece_bytes() as usize;
        let bytes = (layout.end_offset + entries * piece_bytes).next_multiple_of(4096) as u64;
        let theirs = SharedMemory::create("peer", bytes, Writers::Everybody).unwrap();
        let descriptor = theirs.as_fd().try_clone_to_owned().unwrap();
        let ours = SharedMemory::from_peer(descriptor, bytes, Access::ReadWrite).unwrap();
        let memory = theirs.window().clone();
        let addresses = TheirAddresses {
            base: memory.as_ptr().as_ptr().addr() as u64,
            space: OffsetSpace::new(ours.window().clone()),
        };
        let driver = TheirDriver {
            queue: Queue::new(memory.clone(), size, features, their_translator()),
            memory,
            traffic,
            rules,
            pieces: (0..entries)
                .map(|piece| layout.end_offset + piece * piece_bytes)
                .collect(),
            lent: (0..size).map(|_| None).collect(),
            added: false,
        };
        Self {
            driver,
            layout,
            memory: ours.window().clone(),
            addresses,
        }
    }

    fn area(&self, offset: usize, bytes: usize) -> Mapped {
        self.memory.narrow(offset, bytes).unwrap()
    }
}

fn features(rules: Rules) -> Features {
    let mut features = Features::VERSION_1;
    features.set(Features::EVENT_IDX, rules.event_idx);
    features.set(Features::RING_PACKED, rules.packed);
    features
}

#[derive(Clone, Copy)]
enum How {
    TakingTurns,
    AtOnce,
}

fn split_ring(size: u16, how: How, chains: u64) {
    for event_idx in [false, true] {
        let rules = Rules {
            packed: false,
            event_idx,
        };
        let traffic = Traffic::up_to(usize::from(size));
        let setting = Setting::new(size, rules, traffic);
        let lengths = split::Layout::new(size).unwrap();
        let layout = &setting.layout;
        let areas = split::Areas::new(
            lengths,
            &setting.area(0, lengths.descriptors_bytes()),
            &setting.area(layout.driver_area_offset, lengths.available_bytes()),
            &setting.area(layout.device_area_offset, lengths.used_bytes()),
        );
        let ring = split::DeviceRing::new(areas.unwrap(), features(rules)).unwrap();
        run(setting, DeviceQueue::with_heap(ring), how, traffic, chains);
    }
}

/// The peer counts the descriptors that it has added in 16 bits, and resets the count only where it looks at an event
/// position. With overflow checks it panics behind the last one; so a queue's life ends before.
const CHAINS_A_LIFE: u64 = 7_500;

fn packed_ring(size: u16, how: How, chains: u64) {
    for event_idx in [false, true] {
        let rules = Rules {
            packed: true,
            event_idx,
        };
        let traffic = Traffic {
            // A chain of one has the flag NEXT for ever: the peer takes it from a chain's last descriptor, and then
            // writes the first one's flags with it.
            descriptors: [2, usize::from(size)],
            // It panics at a used length that is not that of all the writable buffers.
            fills: true,
            ..Traffic::up_to(usize::from(size))
        };
        for _ in 0..chains.div_ceil(CHAINS_A_LIFE) {
            let setting = Setting::new(size, rules, traffic);
            let lengths = packed::Layout::new(size).unwrap();
            let layout = &setting.layout;
            let areas = packed::Areas::new(
                lengths,
                &setting.area(0, lengths.descriptors_bytes()),
                &setting.area(layout.driver_area_offset, lengths.driver_area_bytes()),
                &setting.area(layout.device_area_offset, lengths.device_area_bytes()),
            );
            let ring = packed::DeviceRing::new(areas.unwrap(), features(rules)).unwrap();
            let queue = DeviceQueue::with_heap(ring);
            run(setting, queue, how, traffic, CHAINS_A_LIFE);
        }
    }
}

fn run<V: DeviceFormat + Send>(
    setting: Setting,
    queue: DeviceQueue<V, Vec<DeviceSlot>>,
    how: How,
    traffic: Traffic,
    chains: u64,
) {
    let seed = u64::from(queue.size());
    let device = OurDevice::new(queue, setting.addresses, traffic);
    match how {
        How::TakingTurns => take_turns(setting.driver, device, traffic, seed, chains),
        How::AtOnce => run_at_once(setting.driver, device, traffic, seed, chains),
    }
}

const CHAINS: u64 = 150_000;

#[test]
fn split_rings_of_one_to_eight_entries() {
    for size in [1, 2, 4, 8] {
        split_ring(size, How::TakingTurns, CHAINS);
    }
}

#[test]
fn split_rings_of_256_entries() {
    split_ring(256, How::TakingTurns, CHAINS);
}

#[test]
fn split_rings_and_two_threads() {
    split_ring(64, How::AtOnce, CHAINS);
}

/// Sizes that are no powers of two too.
#[test]
fn packed_rings_of_two_to_eight_entries() {
    for size in [2, 3, 5, 8] {
        packed_ring(size, How::TakingTurns, CHAINS);
    }
}

#[test]
fn packed_rings_of_255_entries() {
    packed_ring(255, How::TakingTurns, CHAINS);
}

#[test]
fn packed_rings_and_two_threads() {
    packed_ring(63, How::AtOnce, CHAINS);
}
