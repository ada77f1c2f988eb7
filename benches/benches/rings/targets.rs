//! What the ratios should be.

use shmbus_benches::Target;

const fn target(bench: &'static str, peer: &'static str, target: f64, moonshot: f64) -> Target {
    Target {
        bench,
        peer,
        target,
        moonshot: Some(moonshot),
    }
}

/// All targets, in the order of the benchmarks.
pub(crate) const ALL: [Target; 21] = [
    target("split/device", "virtio-queue", 0.15, 0.08),
    target("split/device-chain4", "virtio-queue", 0.25, 0.15),
    target("split/device-indirect4", "virtio-queue", 0.25, 0.15),
    target("split/driver", "virtio-drivers", 0.8, 0.5),
    target("split/driver", "virtio-driver", 0.8, 0.5),
    target("packed/driver", "virtio-driver", 0.8, 0.5),
    target("split/ringtest", "virtio_ring_0_9", 0.25, 0.12),
    target("split/ringtest-shuffled", "virtio_ring_0_9", 0.5, 0.35),
    target("split-inorder/ringtest", "virtio_ring_inorder", 0.3, 0.18),
    target("packed/ringtest", "ring", 0.8, 0.45),
    target("tagged/ringtest", "ring", 0.7, 0.35),
    target("split/out1", "virtio_ring_0_9", 0.65, 0.5),
    target("packed/out1", "ring", 1.1, 1.0),
    target("tagged/out1", "ring", 1.2, 1.0),
    target("split/out16", "virtio_ring_0_9", 0.35, 0.25),
    target("packed/out16", "ring", 1.0, 0.8),
    target("split/sleep", "virtio_ring_0_9", 0.9, 0.6),
    target("packed/sleep", "ring", 0.9, 0.6),
    target("packed/batch32", "ring", 0.5, 0.28),
    target("tagged/batch32", "ring", 0.35, 0.2),
    target("split/batch32", "ring", 0.65, 0.35),
];
