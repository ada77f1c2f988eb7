//! libblkio's `virtio-driver`: its queue by itself, split and packed.
#![allow(
    unsafe_code,
    reason = "its queue borrows memory that a device writes as well"
)]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use shmbus_benches::Contender;
use shmbus_ring::{DeviceFormat, packed, split};
use shmbus_shm::{Mapped, Window};
use shmbus_virtio::Features;
use virtio_driver::virtqueue::Virtqueue;
use virtio_driver::{IovaTranslator, Le32, VhostUser, VirtioFeatureFlags, VirtioTransport, iovec};

use super::super::memory::{guest_memory, ring_memory};
use super::super::{BUFFER_BYTES, HONEST, SIZE};
use super::{Device, Driver, SetUp, alone};

struct VirtioDriver {
    queue: Virtqueue<'static, ()>,
    buffers: Vec<[u8; BUFFER_BYTES as usize]>,
    /// Which chain an id stands for.
    lent: [u16; SIZE as usize],
}

impl<const N: usize> Driver<N> for VirtioDriver {
    fn lend(&mut self) {
        let (chains, _) = self.buffers.as_chunks_mut::<N>();
        for (number, buffers) in (0..).zip(chains) {
            let id = self.queue.add_request(|(), add| {
                for buffer in buffers {
                    let buffer = iovec {
                        iov_base: buffer.as_mut_ptr().cast(),
                        iov_len: buffer.len(),
                    };
                    add(buffer, true)?;
                }
                Ok(())
            });
            self.lent[usize::from(id.expect("there is room"))] = number;
        }
        black_box(self.queue.avail_notif_needed());
    }

    fn take(&mut self) -> u64 {
        let mut taken = 0;
        for completion in self.queue.completions() {
            black_box(self.lent[usize::from(completion.id)]);
            taken += 1;
        }
        taken
    }
}

/// Over a split ring.
pub(super) fn split() -> SetUp<Contender> {
    set_up::<_, 1>(
        VirtioFeatureFlags::VERSION_1,
        |[descriptors, driver, device]| {
            let layout = split::Layout::new(SIZE)?;
            let areas = split::Areas::new(layout, &descriptors, &driver, &device)?;
            Ok(split::DeviceRing::new(areas, Features::VERSION_1)?)
        },
    )
}

/// Over a packed ring.
pub(super) fn packed() -> SetUp<Contender> {
    const RING: Features = Features::VERSION_1.union(Features::RING_PACKED);
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_PACKED;
    set_up::<_, 2>(features, |[descriptors, driver, device]| {
        let layout = packed::Layout::new(SIZE)?;
        let areas = packed::Areas::new(layout, &descriptors, &driver, &device)?;
        Ok(packed::DeviceRing::new(areas, RING)?)
    })
}

/// The queue in memory of ours, whose three areas the device gets.
fn set_up<V: DeviceFormat + 'static, const N: usize>(
    features: VirtioFeatureFlags,
    device: impl FnOnce([Mapped; 3]) -> SetUp<V>,
) -> SetUp<Contender> {
    let memory = ring_memory(&guest_memory()?)?;
    let base = memory.as_ptr();
    // The queue borrows the memory for as long as the program runs.
    std::mem::forget(memory.clone());
    // SAFETY: the memory stays mapped. The queue asks for a slice of what a device writes as well, and accesses what
    // the device writes by raw pointers, or where the device is done.
    let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), memory.len()) };
    let queue = Virtqueue::new(no_translation()?, bytes, SIZE, features)?;
    let layout = queue.layout();
    let areas = [0, layout.driver_area_offset, layout.device_area_offset];
    let [descriptors, driver, used] =
        areas.map(|offset| memory.narrow(offset, memory.len() - offset));
    let device = Device::new(device([descriptors?, driver?, used?])?);
    let driver = VirtioDriver {
        queue,
        buffers: vec![[0; BUFFER_BYTES as usize]; usize::from(SIZE)],
        lent: [0; SIZE as usize],
    };
    Ok(alone::<_, N>("virtio-driver", driver, device))
}

/// The translator of the crate's vhost-user transport, which answers each address with itself. Nobody else can make
/// one: the crate does not export the type that a translation returns. So the transport is given a back-end to connect
/// to that answers the handshake and goes away.
fn no_translation() -> SetUp<Box<dyn IovaTranslator>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("vhost-user");
    let listener = UnixListener::bind(&path)?;
    let backend = thread::spawn(move || answer_handshake(&listener));
    let path = path.to_str().ok_or("the path is no text")?;
    let transport = VhostUser::<Le32, ()>::new(path, 0)?;
    let translator = transport.iova_translator();
    drop(transport);
    backend.join().expect(HONEST)?;
    Ok(translator)
}

/// Answers what the transport asks while it connects: messages of three words (request, flags, payload's length) and a
/// payload.
fn answer_handshake(listener: &UnixListener) -> io::Result<()> {
    const VERSION_1_REPLY: u32 = 1 | 1 << 2;
    let (mut stream, _) = listener.accept()?;
    let mut header = [[0; 4]; 3];
    while stream.read_exact(header.as_flattened_mut()).is_ok() {
        let [request, _, len] = header.map(u32::from_le_bytes);
        io::copy(&mut (&stream).take(u64::from(len)), &mut io::sink())?;
        let answer: u64 = match request {
            // The features: that there are protocol features. These: REPLY_ACK, CONFIG, CONFIGURE_MEM_SLOTS.
            1 => 1 << 30,
            15 => 1 << 3 | 1 << 9 | 1 << 15,
            // How many regions.
            36 => 1,
            _ => continue,
        };
        let mut reply = [request, VERSION_1_REPLY, 8].map(u32::to_le_bytes).concat();
        reply.extend(answer.to_le_bytes());
        stream.write_all(&reply)?;
    }
    Ok(())
}
