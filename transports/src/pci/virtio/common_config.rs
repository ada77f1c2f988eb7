//! The registers of the common configuration (virtio 1.4, section 4.1.4.3).

use shmbus_virtio::Features;

use super::structure::Structure;
use crate::pci::error::AccessError;
use crate::pci::function::Registers;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const QUEUE_NOTIF_CONFIG_DATA: u64 = 0x38;
const QUEUE_RESET: u64 = 0x3a;

/// Through `queue_device`: what every device has.
pub(super) const BYTES: u64 = 0x38;
/// What there is when `NOTIF_CONFIG_DATA` is negotiated.
pub(super) const BYTES_WITH_NOTIFY_DATA: u64 = 0x3a;
/// What there is when `RING_RESET` is negotiated.
pub(super) const BYTES_WITH_QUEUE_RESET: u64 = 0x3c;
/// How many feature bits one register shows.
const FEATURES_AT_ONCE: u32 = 32;

#[derive(Debug)]
pub(super) struct CommonConfig<R>(pub(super) Structure<R>);

impl<R: Registers> CommonConfig<R> {
    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    /// All 128 bits; a device shows 0 for those that it does not know.
    pub(super) fn offered(&self) -> Result<Features, AccessError> {
        let mut bits = 0;
        for select in 0..Features::all().bits().count_ones() / FEATURES_AT_ONCE {
            self.0.write_u32(DEVICE_FEATURE_SELECT, select)?;
            let word = self.0.read_u32(DEVICE_FEATURE)?;
            bits |= u128::from(word) << (FEATURES_AT_ONCE * select);
        }
        Ok(Features::from_bits_retain(bits))
    }

    pub(super) fn accept(&self, features: Features) -> Result<(), AccessError> {
        for select in 0..Features::all().bits().count_ones() / FEATURES_AT_ONCE {
            let word = (features.bits() >> (FEATURES_AT_ONCE * select)) as u32;
            // After a reset all are 0, and older devices know 64 bits only.
            if word != 0 {
                self.0.write_u32(DRIVER_FEATURE_SELECT, select)?;
                self.0.write_u32(DRIVER_FEATURE, word)?;
            }
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Result<u8, AccessError> {
        self.0.read_u8(DEVICE_STATUS)
    }

    pub(super) fn set_status(&self, status: u8) -> Result<(), AccessError> {
        self.0.write_u8(DEVICE_STATUS, status)
    }

    pub(super) fn generation(&self) -> Result<u8, AccessError> {
        self.0.read_u8(CONFIG_GENERATION)
    }

    pub(super) fn queues(&self) -> Result<u16, AccessError> {
        self.0.read_u16(NUM_QUEUES)
    }

    /// Maps configuration changes to a vector; returns what the device made of it.
    pub(super) fn map_config_vector(&self, vector: u16) -> Result<u16, AccessError> {
        self.0.write_u16(CONFIG_MSIX_VECTOR, vector)?;
        self.0.read_u16(CONFIG_MSIX_VECTOR)
    }

    /// Selects the queue that the `queue` methods below are about.
    pub(super) fn select_queue(&self, queue: u16) -> Result<(), AccessError> {
        self.0.write_u16(QUEUE_SELECT, queue)
    }

    /// The largest size after a reset, then the size that was set.
    pub(super) fn queue_size(&self) -> Result<u16, AccessError> {
        self.0.read_u16(QUEUE_SIZE)
    }

    pub(super) fn set_queue_size(&self, size: u16) -> Result<(), AccessError> {
        self.0.write_u16(QUEUE_SIZE, size)
    }

    /// Maps the queue's used buffers to a vector; returns what the device made of it.
    pub(super) fn map_queue_vector(&self, vector: u16) -> Result<u16, AccessError> {
        self.0.write_u16(QUEUE_MSIX_VECTOR, vector)?;
        self.0.read_u16(QUEUE_MSIX_VECTOR)
    }

    pub(super) fn queue_enable(&self) -> Result<u16, AccessError> {
        self.0.read_u16(QUEUE_ENABLE)
    }

    pub(super) fn enable_queue(&self) -> Result<(), AccessError> {
        self.0.write_u16(QUEUE_ENABLE, 1)
    }

    pub(super) fn queue_notify_off(&self) -> Result<u16, AccessError> {
        self.0.read_u16(QUEUE_NOTIFY_OFF)
    }

    pub(super) fn queue_notif_config_data(&self) -> Result<u16, AccessError> {
        self.0.read_u16(QUEUE_NOTIF_CONFIG_DATA)
    }

    /// The addresses of descriptor, driver and device area.
    pub(super) fn set_queue_addresses(&self, addresses: [u64; 3]) -> Result<(), AccessError> {
        for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE]
            .into_iter()
            .zip(addresses)
        {
            self.0.write_u32(register, address as u32)?;
            self.0.write_u32(register + 4, (address >> 32) as u32)?;
        }
        Ok(())
    }

    pub(super) fn start_queue_reset(&self) -> Result<(), AccessError> {
        self.0.write_u16(QUEUE_RESET, 1)
    }

    pub(super) fn queue_reset(&self) -> Result<u16, AccessError> {
        self.0.read_u16(QUEUE_RESET)
    }
}
