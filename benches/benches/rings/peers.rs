//! Who is compared with whom.

use crate::ringtest::Program;

/// What a benchmark of ours is compared with.
pub(crate) enum Peer {
    /// Crates that run in the same process.
    Crates,
    /// A program of the Linux kernel's `tools/virtio/ringtest`.
    Ringtest(Program),
    /// Our own run of this name.
    Own(String),
}

/// The programs.
const VIRTIO_RING_0_9: &str = "virtio_ring_0_9";
const VIRTIO_RING_INORDER: &str = "virtio_ring_inorder";
const RING: &str = "ring";

impl Peer {
    /// The peer of `FORMAT/WORK`, if there is one.
    pub(crate) fn of(bench: &str) -> Option<Self> {
        let (format, work) = bench.split_once('/')?;
        if format == "positions" {
            return Some(Self::Crates);
        }
        let name = match format {
            "split" => VIRTIO_RING_0_9,
            "split-inorder" => VIRTIO_RING_INORDER,
            _ => RING,
        };
        let program = Program::new(name);
        match work {
            "device" | "device-chain4" | "device-indirect4" => {
                (format == "split").then_some(Self::Crates)
            }
            "driver" => matches!(format, "split" | "packed").then_some(Self::Crates),
            "ringtest" | "ringtest-lazy" => Some(Self::Ringtest(program)),
            // In its plain form, and for every format: it is the one that a device could complete out of order.
            "ringtest-shuffled" => Some(Self::Ringtest(Program::new(VIRTIO_RING_0_9))),
            "out1" => Some(Self::Ringtest(program.outstanding(1))),
            "out16" => Some(Self::Ringtest(program.outstanding(16))),
            "sleep" | "sleep-each" => Some(Self::Ringtest(program.sleeping())),
            // Nobody there has batches.
            "batch32" => Some(Self::Ringtest(Program::new(RING))),
            "eventidx" | "chain2" | "indirect4" => Some(Self::Own(format!("{format}/ringtest"))),
            _ => None,
        }
    }
}
