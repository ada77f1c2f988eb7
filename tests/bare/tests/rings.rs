//! A driver that was built for a machine without an operating system, in this process, against our device side.

#[allow(dead_code, reason = "of the guest's types each test uses its part")]
#[path = "../guest/src/abi.rs"]
mod abi;
mod guest;
mod peers;

use guest::Guest;
use peers::our_device::OurDevice;
use peers::our_driver::OurDriver;
use peers::sides::{run_at_once, take_turns};
use peers::traffic::Traffic;
use shmbus_ring::any::{Areas, DeviceRing, Layout};
use shmbus_ring::{DeviceQueue, RingFeatures, RingKind};
use shmbus_shm::{Mapped, OffsetSpace, RingFormat, heap};
use shmbus_virtio::Features;

const CHAINS: u64 = 50_000;

type GuestDriver = OurDriver<Guest, OffsetSpace<Mapped>>;
type HostDevice = OurDevice<DeviceRing<Mapped>, OffsetSpace<Mapped>>;

fn pair(
    kind: RingKind,
    size: u16,
    features: RingFeatures,
    traffic: Traffic,
) -> (GuestDriver, HostDevice) {
    let layout = Layout::new(kind.format, size).unwrap();
    let memories = [
        heap(layout.driver_bytes()),
        heap(layout.device_bytes()),
        heap(layout.common_bytes()),
    ];
    let buffers = heap(usize::from(size) * traffic.piece_bytes() as usize);
    let space = OffsetSpace::new(buffers.clone());
    let guest = Guest::open(size, features, &memories, buffers).unwrap();

    let [driver, device, common] = &memories;
    let areas = Areas::in_memories(layout, driver, device, Some(common)).unwrap();
    let queue = DeviceQueue::with_heap(DeviceRing::new(areas, features).unwrap());
    (
        OurDriver::new(guest, space.clone(), traffic, 0),
        OurDevice::new(queue, space, traffic),
    )
}

fn each_combination(kind: RingKind) {
    for event_idx in [false, true] {
        for indirect in [false, true] {
            let mut virtio = Features::VERSION_1 | kind.features();
            virtio.set(Features::EVENT_IDX, event_idx);
            virtio.set(Features::INDIRECT_DESC, indirect);
            let features = RingFeatures::from(virtio).with_private(kind.private_features());
            let traffic = Traffic {
                indirect,
                ..Traffic::up_to(abi::MOST_PIECES)
            };
            let (driver, device) = pair(kind, 32, features, traffic);
            take_turns(driver, device, traffic, 32, CHAINS);
            let (driver, device) = pair(kind, 32, features, traffic);
            run_at_once(driver, device, traffic, 32, CHAINS);
        }
    }
}

#[test]
fn a_guest_drives_a_split_ring() {
    each_combination(RingKind::plain(RingFormat::Split));
}

#[test]
fn a_guest_drives_a_split_ring_in_order() {
    each_combination(RingKind::in_order(RingFormat::Split));
}

#[test]
fn a_guest_drives_a_packed_ring() {
    each_combination(RingKind::plain(RingFormat::Packed));
}

#[test]
fn a_guest_drives_a_packed_ring_in_order() {
    each_combination(RingKind::in_order(RingFormat::Packed));
}

#[test]
fn a_guest_drives_a_tagged_ring() {
    each_combination(RingKind::plain(RingFormat::Tagged));
}

#[test]
fn what_does_not_fit_is_refused() {
    let memories = [heap(4096), heap(4096), heap(4096)];
    let open = |size, features| Guest::open(size, features, &memories, heap(8)).is_some();
    assert!(open(16, Features::VERSION_1));
    assert!(!open(15, Features::VERSION_1), "no power of two");
    assert!(open(15, Features::VERSION_1 | Features::RING_PACKED));
    assert!(!open(512, Features::VERSION_1), "more than its memory");
    assert!(!open(16, Features::BAD_FEATURE));
}
