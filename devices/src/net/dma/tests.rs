use shmbus_ring::RingKind;
use shmbus_virtio::Features;

use super::*;
use crate::net::test_device::{BASE, Dma};

/// Every area and buffer of every queue: none shares a line with another, all lie in the memory.
#[test]
fn no_two_parts_share_a_line() {
    let features = net::CTRL_VQ | net::MQ | net::MRG_RXBUF | Features::INDIRECT_DESC;
    for rings in RingKind::ALL {
        for (features, size) in [(features, 16), (Features::empty(), 4), (features, 256)] {
            let merges = features.contains(net::MRG_RXBUF);
            let buffer_bytes = if merges { 256 } else { 1536 };
            let dma = Dma::new(rings, features, 3, size, buffer_bytes);
            let places = (0..3).flat_map(|pair| dma.layout.places(pair));
            let mut parts = Vec::new();
            for place in places.chain(dma.layout.control_place()) {
                parts.extend([
                    (place.start, place.ring.driver_bytes()),
                    (place.device(), place.ring.device_bytes()),
                    (place.common(), place.ring.common_bytes()),
                    (place.buffers(), place.buffers_bytes),
                ]);
            }
            let mut end = 0;
            for (start, bytes) in parts {
                assert!(start >= end && start.is_multiple_of(LINE), "{start} {end}");
                end = (start + bytes).next_multiple_of(LINE);
            }
            assert_eq!(end, dma.layout.bytes());
            assert_eq!(
                dma.layout.control_addresses(0).is_some(),
                features.contains(net::CTRL_VQ)
            );
        }
    }
}

#[test]
fn memory_that_is_too_short_is_refused() {
    let dma = Dma::new(RingKind::ALL[0], net::CTRL_VQ | net::MQ, 2, 16, 1536);
    let bytes = dma.layout.bytes();
    assert!(dma.layout.set_up(&dma.window, BASE).is_ok());
    for short in [LINE, CONTROL_BUFFER_BYTES + LINE, bytes / 2] {
        let memory = dma.window.narrow(0, bytes - short).unwrap();
        let refused = dma.layout.set_up(&memory, BASE);
        assert!(matches!(refused, Err(DmaSetupError::Memory(_))), "{short}");
    }
}
