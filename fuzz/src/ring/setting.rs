//! What a ring is set up with.

use arbitrary::Arbitrary;
use shmbus_ring::RingFeatures;
use shmbus_virtio::{Features, PrivateFeatures};

use super::Format;

/// The largest ring: small ones go round often.
pub(super) const MOST_ENTRIES: u8 = 16;

/// What the fuzzer chooses before it begins. Each format makes of it what it has.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Setting {
    /// The type of ring whose chains come back in order.
    pub in_order: bool,
    /// Nobody spoils anything.
    pub(super) honest: bool,
    pub(super) size: u8,
    pub(super) position: u16,
    /// The split ring's used elements are accessed as halves; of the tagged ring's entries half are used.
    pub(super) halves: bool,
    virtio: u8,
    private: u8,
}

/// What the bits of `virtio` choose.
const VIRTIO: [Features; 3] = [
    Features::INDIRECT_DESC,
    Features::EVENT_IDX,
    Features::NOTIFY_ON_EMPTY,
];

/// What the bits of `private` choose.
const PRIVATE: [PrivateFeatures; 3] = [
    PrivateFeatures::USED_EVENT,
    PrivateFeatures::AVAIL_EVENT,
    PrivateFeatures::PUBLISH_INDICES,
];

impl Setting {
    /// The features of it that a format has.
    pub(super) fn features<F: Format>(self) -> RingFeatures {
        let virtio: Features = chosen(self.virtio, VIRTIO).collect();
        let private: PrivateFeatures = chosen(self.private, PRIVATE).collect();
        RingFeatures {
            virtio: F::REQUIRED | virtio & F::OPTIONAL,
            private: private & F::PRIVATE,
        }
    }
}

fn chosen<T>(bits: u8, features: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    (0..8)
        .zip(features)
        .filter_map(move |(bit, feature)| (bits & 1 << bit != 0).then_some(feature))
}
