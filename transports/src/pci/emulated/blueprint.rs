//! What an emulated device is, and what it claims to be.

use shmbus_virtio::{DeviceId, Features};

use super::bar_layout as layout;
use super::config_space;
use super::device::EmulatedDevice;
use super::dma::EmulatedDma;
use super::function::EmulatedFunction;
use super::model::Model;

/// A virtio capability, as the device writes it into its configuration space: it may claim anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `cfg_type`.
    pub kind: u8,
    /// `cap_len`, in bytes.
    pub cap_len: u8,
    /// `bar`.
    pub bar: u8,
    /// `id`.
    pub id: u8,
    /// `offset`, in bytes; of shared memory 64 bits are written.
    pub offset: u64,
    /// `length`, in bytes; of shared memory 64 bits are written.
    pub len: u64,
    /// `notify_off_multiplier`, in bytes.
    pub multiplier: u32,
    /// What follows `cfg_type` in a vendor's capability.
    pub vendor_data: Vec<u8>,
}

impl Claim {
    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Notification structure.
    pub const NOTIFY: u8 = 2;
    /// ISR status.
    pub const ISR: u8 = 3;
    /// Configuration of the device's type.
    pub const DEVICE: u8 = 4;
    /// Access through configuration space.
    pub const CONFIG_ACCESS: u8 = 5;
    /// Shared memory.
    pub const SHARED_MEMORY: u8 = 8;
    /// A vendor's data.
    pub const VENDOR: u8 = 9;

    /// A capability of the length that its kind has.
    pub fn new(kind: u8, bar: u8, offset: u64, len: u64) -> Self {
        let cap_len = match kind {
            Self::NOTIFY | Self::CONFIG_ACCESS => 20,
            Self::SHARED_MEMORY => 24,
            _ => 16,
        };
        Self {
            kind,
            cap_len,
            bar,
            id: 0,
            offset,
            len,
            multiplier: 0,
            vendor_data: Vec::new(),
        }
    }

    /// A vendor's capability. Its data starts with the vendor's number.
    pub fn vendor(data: &[u8]) -> Self {
        Self {
            cap_len: 4 + data.len() as u8,
            vendor_data: data.to_vec(),
            ..Self::new(Self::VENDOR, 0, 0, 0)
        }
    }
}

/// An MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixClaim {
    /// The number of vectors less one.
    pub last_vector: u16,
    /// The BAR of the table, and where in it, in bytes.
    pub table: (u8, u32),
    /// The BAR of the pending bits, and where in it, in bytes.
    pub pending: (u8, u32),
}

/// A queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueClaim {
    /// The largest size that it can have; 0 for one that is not there.
    pub max_size: u16,
    /// `queue_notify_off`.
    pub notify_off: u16,
    /// `queue_notif_config_data`.
    pub notify_data: u16,
}

/// What an emulated device is. Its fields may be changed before it is built.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// PCI's vendor.
    pub vendor: u16,
    /// PCI's device ID.
    pub device: u16,
    /// The registers at 0x10 of configuration space. They say how long BARs are as little as those of a device do.
    pub bar_registers: [u32; 6],
    /// How long its BARs are, in bytes; 0 for none. Those of an honest device have fixed places.
    pub bars: [u64; 6],
    /// Its vectors.
    pub msix: Option<MsixClaim>,
    /// Its virtio capabilities, in the order of the list.
    pub claims: Vec<Claim>,
    /// What it offers.
    pub features: Features,
    /// Its queues.
    pub queues: Vec<QueueClaim>,
    /// The configuration of its type.
    pub config: Vec<u8>,
    /// How many times a reset, of the device or of a queue, is seen unfinished before it is finished.
    pub slow_reset: u32,
}

impl Blueprint {
    /// An honest device: `queues` queues of 256 entries, four vectors, two regions of shared memory, and this
    /// configuration.
    pub fn new(id: DeviceId, features: Features, queues: u16, config: &[u8]) -> Self {
        let registers = |kind, range: core::ops::Range<u64>| {
            Claim::new(
                kind,
                layout::REGISTERS,
                range.start,
                range.end - range.start,
            )
        };
        let shared = |id, offset, len| Claim {
            id,
            ..Claim::new(Claim::SHARED_MEMORY, layout::SHARED, offset, len)
        };
        let mut bars = [0; 6];
        bars[usize::from(layout::MSIX)] = layout::MSIX_BYTES;
        bars[usize::from(layout::SHARED)] = layout::SHARED_BYTES;
        bars[usize::from(layout::REGISTERS)] = layout::REGISTERS_BYTES;
        Self {
            vendor: 0x1af4,
            device: 0x1040 + id.0 as u16,
            // A 32-bit BAR 1; 64-bit and prefetchable BARs 2 and 4.
            bar_registers: [0, 0xfe00_0000, 0xc, 0x38, 0x1000_000c, 0x38],
            bars,
            msix: Some(MsixClaim {
                last_vector: 3,
                table: (layout::MSIX, 0),
                pending: (layout::MSIX, layout::PENDING_OFFSET),
            }),
            claims: vec![
                registers(Claim::COMMON, layout::COMMON),
                registers(Claim::ISR, layout::ISR),
                registers(Claim::DEVICE, layout::DEVICE),
                Claim {
                    multiplier: 4,
                    ..registers(Claim::NOTIFY, layout::NOTIFY)
                },
                Claim::new(Claim::CONFIG_ACCESS, 0, 0, 0),
                shared(0, 0, 0x8000),
                shared(1, 0x8010, 0x100),
            ],
            features: features | Features::VERSION_1 | Features::ACCESS_PLATFORM,
            queues: (0..queues)
                .map(|queue| QueueClaim {
                    max_size: 256,
                    notify_off: queue,
                    notify_data: 0x100 + queue,
                })
                .collect(),
            config: config.to_vec(),
            slow_reset: 0,
        }
    }

    /// The first claim of a kind.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn claim(&mut self, kind: u8) -> &mut Claim {
        let claim = self.claims.iter_mut().find(|claim| claim.kind == kind);
        claim.expect("a claim of that kind")
    }

    /// The two ends of the device. It reaches the memory of `dma`, as soon as its driver lets it.
    pub fn build(&self, dma: &EmulatedDma) -> (EmulatedFunction, EmulatedDevice) {
        let config_space = config_space::write(self);
        let device = EmulatedDevice::new(Model::new(self, config_space), dma.clone());
        (EmulatedFunction::new(&device), device)
    }
}
