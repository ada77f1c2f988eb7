//! Feature bits: virtio's 128, and the bus's own private word.

use bitflags::bitflags;

bitflags! {
    /// A virtio feature set, 128 bits wide as virtio 1.4 allocates them (section 2.2).
    ///
    /// The named bits are the device-independent ones (section 6). Bits 0 to 23 and 50 to 127 belong to the device
    /// type: see [`net`](crate::net) for virtio-net's.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Features: u128 {
        /// Legacy only: an interrupt when the device runs out of available descriptors, although suppressed.
        const NOTIFY_ON_EMPTY = 1 << 24;
        /// Legacy: the device accepts any descriptor layout.
        const ANY_LAYOUT = 1 << 27;
        /// Descriptors may point to tables of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// `used_event` and `avail_event` replace the suppression flags.
        const EVENT_IDX = 1 << 29;
        /// Never valid: a driver that accepts it is broken (2.6.25's virtio-pci did).
        const BAD_FEATURE = 1 << 30;
        /// Not a legacy device.
        const VERSION_1 = 1 << 32;
        /// Addresses are the platform's (IOVAs), access may be limited.
        const ACCESS_PLATFORM = 1 << 33;
        /// The packed virtqueue layout.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// Memory accesses are ordered as the platform orders them for devices, not as for processors.
        const ORDER_PLATFORM = 1 << 36;
        /// Single Root I/O Virtualization.
        const SR_IOV = 1 << 37;
        /// Available buffer notifications carry the queue's position.
        const NOTIFICATION_DATA = 1 << 38;
        /// Notifications carry device-supplied data in place of the queue's index.
        const NOTIF_CONFIG_DATA = 1 << 39;
        /// A queue can be reset alone.
        const RING_RESET = 1 << 40;

        const _ = !0;
    }
}

/// Why a feature set cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// The driver accepted what the device did not offer.
    #[error("feature bits {bits:#x} were accepted but never offered")]
    NotOffered {
        /// The bits in question.
        bits: u128,
    },
    /// Bit 30 was offered or accepted.
    #[error("feature bit 30 (BAD_FEATURE) must never be negotiated")]
    BadFeature,
    /// `NOTIFY_ON_EMPTY` is a legacy feature.
    #[error("feature bit 24 (NOTIFY_ON_EMPTY) cannot be used together with VERSION_1")]
    NotifyOnEmptyWithVersion1,
    /// The driver accepted private features that the device did not offer.
    #[error("private feature bits {bits:#x} were accepted but never offered")]
    PrivateNotOffered {
        /// The bits in question.
        bits: u64,
    },
    /// A feature was accepted without one that it depends on.
    #[error("feature bits {bits:#x} need feature bits {needed:#x}")]
    Depends {
        /// The bits that were accepted.
        bits: u128,
        /// The bits that they need.
        needed: u128,
    },
}

impl Features {
    /// The set with one bit, for the device types' own constants.
    pub const fn bit(number: u32) -> Self {
        Self::from_bits_retain(1 << number)
    }

    /// Bits of the device-independent range that stand in each other's way, or alone.
    ///
    /// # Errors
    ///
    /// [`FeatureError`], naming the first rule that is broken.
    pub fn check(self) -> Result<Self, FeatureError> {
        if self.contains(Self::BAD_FEATURE) {
            return Err(FeatureError::BadFeature);
        }
        if self.contains(Self::NOTIFY_ON_EMPTY | Self::VERSION_1) {
            return Err(FeatureError::NotifyOnEmptyWithVersion1);
        }
        let needs_version_1 = self
            & (Self::ACCESS_PLATFORM
                | Self::RING_PACKED
                | Self::IN_ORDER
                | Self::ORDER_PLATFORM
                | Self::NOTIFICATION_DATA
                | Self::RING_RESET);
        if !needs_version_1.is_empty() && !self.contains(Self::VERSION_1) {
            return Err(FeatureError::Depends {
                bits: needs_version_1.bits(),
                needed: Self::VERSION_1.bits(),
            });
        }
        Ok(self)
    }

    /// What a driver that supports `self` accepts of `offered`: both sides' bits, never bit 30.
    #[must_use]
    pub fn choose(self, offered: Self) -> Self {
        self & offered & !Self::BAD_FEATURE
    }

    /// Checks the driver's choice against what the device offered.
    ///
    /// # Errors
    ///
    /// [`FeatureError`], as for [`Features::check`] or because a bit was not offered.
    pub fn accept(self, chosen: Self) -> Result<Self, FeatureError> {
        let extra = chosen & !self;
        if !extra.is_empty() {
            return Err(FeatureError::NotOffered { bits: extra.bits() });
        }
        chosen.check()
    }

    /// The set as two `u64` words, low bits first, as it stands in tables.
    pub const fn to_words(self) -> [u64; 2] {
        [self.bits() as u64, (self.bits() >> 64) as u64]
    }

    /// The set from two `u64` words.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self::from_bits_retain(words[0] as u128 | (words[1] as u128) << 64)
    }

    /// The 32-bit view of legacy devices as it was proposed in 2011: bit 31 says that bits 32 to 63 are in use.
    pub const fn legacy_low(self) -> u32 {
        let high = (self.bits() >> 32) as u32;
        (self.bits() as u32 & !(1 << 31)) | ((high != 0) as u32) << 31
    }
}

bitflags! {
    /// Features of shmbus's own rings, in a word of their own so that they can never collide with virtio's. They are
    /// negotiated in the bus's own handshake only, never on virtio-pci or vhost-user.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PrivateFeatures: u64 {
        /// The `used_event` half of `EVENT_IDX` alone (bit 29 of the 2011 proposal).
        const USED_EVENT = 1 << 0;
        /// The `avail_event` half of `EVENT_IDX` alone (bit 32 of the 2011 proposal).
        const AVAIL_EVENT = 1 << 1;
        /// Each side publishes its position in the ring, where the 2008 proposal (its bit 24) put it.
        const PUBLISH_INDICES = 1 << 2;
        /// The tagged ring.
        const RING_TAGGED = 1 << 3;

        const _ = !0;
    }
}

impl PrivateFeatures {
    /// Checks the driver's choice against what the device offered.
    ///
    /// # Errors
    ///
    /// [`FeatureError::PrivateNotOffered`].
    pub fn accept(self, chosen: Self) -> Result<Self, FeatureError> {
        let extra = chosen & !self;
        if !extra.is_empty() {
            let bits = extra.bits();
            return Err(FeatureError::PrivateNotOffered { bits });
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bit_30_is_never_negotiated() {
        let all = Features::all();
        assert!(!all.choose(all).contains(Features::BAD_FEATURE));
        assert_eq!(
            all.accept(Features::BAD_FEATURE),
            Err(FeatureError::BadFeature)
        );
    }

    #[test]
    fn private_features_are_offered_before_they_are_accepted() {
        let offered = PrivateFeatures::RING_TAGGED | PrivateFeatures::USED_EVENT;
        let tagged = PrivateFeatures::RING_TAGGED;
        assert_eq!(offered.accept(tagged), Ok(tagged));
        assert_eq!(
            offered.accept(tagged | PrivateFeatures::AVAIL_EVENT),
            Err(FeatureError::PrivateNotOffered { bits: 1 << 1 })
        );
    }

    #[test]
    fn notify_on_empty_is_for_legacy_devices() {
        assert!(Features::NOTIFY_ON_EMPTY.check().is_ok());
        assert_eq!(
            (Features::NOTIFY_ON_EMPTY | Features::VERSION_1).check(),
            Err(FeatureError::NotifyOnEmptyWithVersion1)
        );
    }

    #[test]
    fn modern_features_need_version_1() {
        assert_eq!(
            Features::RING_PACKED.check(),
            Err(FeatureError::Depends {
                bits: 1 << 34,
                needed: 1 << 32
            })
        );
    }

    #[test]
    fn the_legacy_view_flags_high_bits() {
        assert_eq!(Features::EVENT_IDX.legacy_low(), 1 << 29);
        assert_eq!(
            (Features::EVENT_IDX | Features::VERSION_1).legacy_low(),
            1 << 29 | 1 << 31
        );
    }

    proptest! {
        #[test]
        fn a_choice_is_never_more_than_was_offered(offered: u128, wanted: u128) {
            let offered = Features::from_bits_retain(offered);
            let chosen = Features::from_bits_retain(wanted).choose(offered);
            prop_assert!(offered.contains(chosen));
            prop_assert_eq!(Features::from_words(chosen.to_words()), chosen);
        }

        #[test]
        fn what_was_not_offered_is_refused(offered: u128, chosen: u128) {
            let answer = Features::from_bits_retain(offered).accept(Features::from_bits_retain(chosen));
            if chosen & !offered != 0 {
                prop_assert_eq!(answer, Err(FeatureError::NotOffered { bits: chosen & !offered }));
            }
        }
    }
}
