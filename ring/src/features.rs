//! What was negotiated, as far as a ring is concerned.

use shmbus_shm::FenceScope;
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;

/// The features that were negotiated for a ring: virtio's, and those of shmbus's own word.
///
/// The private word is negotiated in the bus's own handshake only. Where virtio's features are all there is, they can be
/// passed alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// Virtio's features.
    pub virtio: Features,
    /// shmbus's own.
    pub private: PrivateFeatures,
}

impl From<Features> for RingFeatures {
    fn from(virtio: Features) -> Self {
        Self {
            virtio,
            private: PrivateFeatures::empty(),
        }
    }
}

impl RingFeatures {
    /// These, and the private ones in addition.
    #[must_use]
    pub fn with_private(self, private: PrivateFeatures) -> Self {
        Self { private, ..self }
    }

    /// Whether chains may lie in tables of their own.
    pub fn indirect(self) -> bool {
        self.virtio.contains(Features::INDIRECT_DESC)
    }

    /// Whether buffers are used in the order in which they were made available.
    pub fn in_order(self) -> bool {
        self.virtio.contains(Features::IN_ORDER)
    }

    /// Whether the driver asks for notifications by position: with `VIRTIO_F_EVENT_IDX`, or with this half of it.
    pub fn used_event(self) -> bool {
        self.virtio.contains(Features::EVENT_IDX)
            || self.private.contains(PrivateFeatures::USED_EVENT)
    }

    /// Whether the device asks for notifications by position: with `VIRTIO_F_EVENT_IDX`, or with this half of it.
    pub fn avail_event(self) -> bool {
        self.virtio.contains(Features::EVENT_IDX)
            || self.private.contains(PrivateFeatures::AVAIL_EVENT)
    }

    /// Whether a legacy driver is told that the ring is empty although it does not want to be told.
    pub fn notify_on_empty(self) -> bool {
        self.virtio.contains(Features::NOTIFY_ON_EMPTY)
    }

    /// Whether a side publishes its position where its event index would be, while it has none.
    pub fn publish_indices(self) -> bool {
        self.private.contains(PrivateFeatures::PUBLISH_INDICES)
    }

    /// Checks what was negotiated against what a ring type is made for, and the memory that it lies in.
    pub(crate) fn check(self, ring: RingType, scope: FenceScope) -> Result<Self, SetupError> {
        let virtio = self.virtio.check()?;
        let RingType {
            required,
            unsupported,
            private,
        } = ring;
        let unsupported = virtio & unsupported;
        if !unsupported.is_empty() {
            let bits = unsupported.bits();
            return Err(SetupError::Unsupported { bits });
        }
        let missing = required & !virtio;
        if !missing.is_empty() {
            let bits = missing.bits();
            return Err(SetupError::Missing { bits });
        }
        let foreign = self.private & !private;
        if !foreign.is_empty() {
            let bits = foreign.bits();
            return Err(SetupError::UnsupportedPrivate { bits });
        }
        if virtio.contains(Features::ORDER_PLATFORM) && scope != FenceScope::Dma {
            return Err(SetupError::FenceScope { found: scope });
        }
        Ok(self)
    }
}

/// What a ring type takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingType {
    /// Virtio's features without which it is not the right one.
    pub(crate) required: Features,
    /// Virtio's features with which it is not the right one.
    pub(crate) unsupported: Features,
    /// The private features that mean something to it.
    pub(crate) private: PrivateFeatures,
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmbus_virtio::FeatureError;

    const PLAIN: RingType = RingType {
        required: Features::empty(),
        unsupported: Features::IN_ORDER,
        private: PrivateFeatures::USED_EVENT,
    };

    fn checked(features: Features, scope: FenceScope) -> Result<RingFeatures, SetupError> {
        RingFeatures::from(features).check(PLAIN, scope)
    }

    #[test]
    fn what_may_never_be_negotiated_is_refused_at_set_up() {
        let smp = |features| checked(features, FenceScope::Smp).unwrap_err();
        assert_eq!(
            smp(Features::BAD_FEATURE),
            SetupError::Features(FeatureError::BadFeature)
        );
        assert_eq!(
            smp(Features::NOTIFY_ON_EMPTY | Features::VERSION_1),
            SetupError::Features(FeatureError::NotifyOnEmptyWithVersion1)
        );
        assert_eq!(
            smp(Features::VERSION_1 | Features::IN_ORDER),
            SetupError::Unsupported { bits: 1 << 35 }
        );
    }

    #[test]
    fn devices_that_need_stronger_fences_get_them() {
        let platform = Features::VERSION_1 | Features::ORDER_PLATFORM;
        assert_eq!(
            checked(platform, FenceScope::Smp),
            Err(SetupError::FenceScope {
                found: FenceScope::Smp
            })
        );
        assert!(checked(platform, FenceScope::Dma).is_ok());
        assert!(checked(Features::VERSION_1, FenceScope::Dma).is_ok());
    }

    #[test]
    fn the_halves_of_event_idx_stand_apart() {
        let halves = RingFeatures::default().with_private(PrivateFeatures::USED_EVENT);
        assert!(halves.used_event() && !halves.avail_event());
        assert!(halves.check(PLAIN, FenceScope::Smp).is_ok());
        let other = RingFeatures::default().with_private(PrivateFeatures::AVAIL_EVENT);
        assert_eq!(
            other.check(PLAIN, FenceScope::Smp),
            Err(SetupError::UnsupportedPrivate { bits: 1 << 1 })
        );
        let whole = RingFeatures::from(Features::EVENT_IDX);
        assert!(whole.used_event() && whole.avail_event());
    }
}
