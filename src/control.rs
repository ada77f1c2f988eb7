//! How a device and its driver find each other: two tables in place of registers.
//!
//! The host offers each device in a slot of the *device table*; the guest answers in its slot of the *driver table*. A
//! status is a latest value: whoever reads it wants to know how things are, not how they came to be.

use shmbus_devices::CONFIG_WORDS;
use shmbus_ring::RingFeatures;
use shmbus_table::{InvalidValue, Value};
use shmbus_virtio::{DeviceId, DeviceStatus, Features, PrivateFeatures};

/// Roles of the regions that belong to the bus itself, not to a device.
pub mod role {
    /// The session's directory, at the start of the host's memory.
    pub const DIRECTORY: u16 = 0x00;
    /// Table of [`DeviceOffer`](super::DeviceOffer), a slot for each device; the host writes.
    pub const DEVICE_TABLE: u16 = 0x01;
    /// Table of [`DriverState`](super::DriverState), a slot for each device; the guest writes.
    pub const DRIVER_TABLE: u16 = 0x02;
    /// Table of the bus's and each device's counters; the host writes, for all to read.
    pub const COUNTERS: u16 = 0x03;
    /// The directory of what is there for all guests, at the start of the shared memory.
    pub const BUS_DIRECTORY: u16 = 0x04;
    /// The tree of class *k* that the host marks: `HOST_TREE + k`.
    pub const HOST_TREE: u16 = 0x10;
    /// The tree of class *k* that the guest marks: `GUEST_TREE + k`.
    pub const GUEST_TREE: u16 = 0x20;
    /// The host's armed words, one for each class.
    pub const HOST_ARMED: u16 = 0x30;
    /// The guest's armed words, one for each class.
    pub const GUEST_ARMED: u16 = 0x31;
}

/// A device, as the host offers it to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOffer {
    /// The type.
    pub id: DeviceId,
    /// What the driver may accept.
    pub features: Features,
    /// The same, of the bus's own features.
    pub private: PrivateFeatures,
    /// The status as the device sees it: what the driver wrote, and `DEVICE_NEEDS_RESET`.
    pub status: DeviceStatus,
    /// Configuration, as the device type lays it out.
    pub config: [u64; CONFIG_WORDS],
}

impl DeviceOffer {
    /// Virtio's features and the bus's own.
    pub fn offered(&self) -> RingFeatures {
        RingFeatures::from(self.features).with_private(self.private)
    }
}

impl Value for DeviceOffer {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"OFFR");
    const WORDS: usize = 4 + CONFIG_WORDS;

    fn encode(&self, words: &mut [u64]) {
        let [low, high] = self.features.to_words();
        words[0] = u64::from(self.id.0) | u64::from(self.status.bits()) << 32;
        words[1] = low;
        words[2] = high;
        words[3] = self.private.bits();
        words[4..4 + CONFIG_WORDS].copy_from_slice(&self.config);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        let mut config = [0; CONFIG_WORDS];
        config.copy_from_slice(&words[4..4 + CONFIG_WORDS]);
        Ok(Self {
            id: DeviceId(words[0] as u32),
            features: Features::from_words([words[1], words[2]]),
            private: PrivateFeatures::from_bits_retain(words[3]),
            status: DeviceStatus::from_bits_truncate((words[0] >> 32) as u8),
            config,
        })
    }
}

/// A driver's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverState {
    /// The status that the driver wrote, unchecked: the device's [`StatusMachine`](shmbus_virtio::StatusMachine) does
    /// that.
    pub status: u8,
    /// What it accepted.
    pub features: Features,
    /// What it accepted of the bus's own features.
    pub private: PrivateFeatures,
}

impl Value for DriverState {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"DRVR");
    const WORDS: usize = 4;

    fn encode(&self, words: &mut [u64]) {
        let [low, high] = self.features.to_words();
        words[..4].copy_from_slice(&[u64::from(self.status), low, high, self.private.bits()]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        Ok(Self {
            status: words[0] as u8,
            features: Features::from_words([words[1], words[2]]),
            private: PrivateFeatures::from_bits_retain(words[3]),
        })
    }
}
