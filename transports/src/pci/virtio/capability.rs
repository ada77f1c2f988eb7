//! Virtio's vendor-specific capabilities (virtio 1.4, section 4.1.4).

use core::fmt;

use crate::pci::bars::Place;
use crate::pci::capability::Capability;
use crate::pci::config_error::ConfigError;
use crate::pci::function::{BarIndex, Registers};

/// What a structure in a BAR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructureKind {
    /// The common configuration.
    Common,
    /// Where queues are notified.
    Notify,
    /// The interrupt status.
    Isr,
    /// The configuration of the device's type.
    Device,
}

impl StructureKind {
    /// What it is called in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Common => "common configuration",
            Self::Notify => "notification structure",
            Self::Isr => "ISR status",
            Self::Device => "device configuration",
        }
    }
}

impl fmt::Display for StructureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One capability, as the device wrote it: that what it describes lies inside its BAR is yet to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VirtioCapability {
    /// A structure of registers.
    Structure {
        /// Which.
        kind: StructureKind,
        /// Where.
        place: Place,
        /// How far apart queues' notify addresses are, in bytes, for [`StructureKind::Notify`]; otherwise 0.
        multiplier: u32,
    },
    /// A region of shared memory.
    SharedMemory {
        /// Its number, by which the device's type knows it.
        id: u8,
        /// Where.
        place: Place,
    },
    /// A window in configuration space through which BARs can be accessed. It is not used here.
    ConfigAccess,
    /// Data of a vendor's, for people to look at.
    Vendor {
        /// Whose.
        vendor: u16,
        /// The data.
        data: Vec<u8>,
    },
}

const CAP_LEN: u8 = 2;
const CFG_TYPE: u8 = 3;
const BAR: u8 = 4;
const ID: u8 = 5;
const OFFSET: u8 = 8;
const LENGTH: u8 = 12;
const MULTIPLIER: u8 = 16;
const OFFSET_HIGH: u8 = 16;
const LENGTH_HIGH: u8 = 20;
const VENDOR: u8 = 4;
const VENDOR_DATA: u8 = 6;

/// `struct virtio_pci_cap`.
const CAP_BYTES: u8 = 16;
/// `struct virtio_pci_notify_cap` and `struct virtio_pci_cfg_cap`.
const CAP_AND_WORD_BYTES: u8 = 20;
/// `struct virtio_pci_cap64`.
const CAP64_BYTES: u8 = 24;
/// `struct virtio_pci_vndr_data`, in whole words.
const VENDOR_BYTES: u8 = 8;

impl VirtioCapability {
    /// A virtio device's capabilities, in the order of the list. Those with a reserved type or a reserved BAR are
    /// ignored, as virtio demands.
    ///
    /// `capabilities` is what [`Capability::read_all`] found.
    ///
    /// # Errors
    ///
    /// [`ConfigError::CapabilityLength`], [`ConfigError::CapabilityEnd`], [`ConfigError::Access`].
    pub fn read_all<R: Registers>(
        config: &R,
        capabilities: &[Capability],
    ) -> Result<Vec<Self>, ConfigError> {
        let mut all = Vec::new();
        for capability in capabilities {
            if capability.id == Capability::VENDOR
                && let Some(read) = Self::read(config, capability.at)?
            {
                all.push(read);
            }
        }
        Ok(all)
    }

    fn read<R: Registers>(config: &R, at: u8) -> Result<Option<Self>, ConfigError> {
        let byte = |field: u8| config.read_u8(u64::from(at) + u64::from(field));
        let word = |field: u8| config.read_u32(u64::from(at) + u64::from(field));
        let len = byte(CAP_LEN)?;
        let (kind, expected) = match byte(CFG_TYPE)? {
            1 => (Some(StructureKind::Common), CAP_BYTES),
            2 => (Some(StructureKind::Notify), CAP_AND_WORD_BYTES),
            3 => (Some(StructureKind::Isr), CAP_BYTES),
            4 => (Some(StructureKind::Device), CAP_BYTES),
            5 => {
                Self::check_len(at, len, CAP_AND_WORD_BYTES)?;
                return Ok(Some(Self::ConfigAccess));
            }
            8 => (None, CAP64_BYTES),
            9 => return Self::read_vendor(config, at, len).map(Some),
            _ => return Ok(None),
        };
        Self::check_len(at, len, expected)?;
        let Some(bar) = BarIndex::new(byte(BAR)?) else {
            return Ok(None);
        };
        let mut place = Place {
            bar,
            offset: word(OFFSET)?.into(),
            len: word(LENGTH)?.into(),
        };
        let Some(kind) = kind else {
            place.offset |= u64::from(word(OFFSET_HIGH)?) << 32;
            place.len |= u64::from(word(LENGTH_HIGH)?) << 32;
            let id = byte(ID)?;
            return Ok(Some(Self::SharedMemory { id, place }));
        };
        let multiplier = match kind {
            StructureKind::Notify => word(MULTIPLIER)?,
            _ => 0,
        };
        Ok(Some(Self::Structure {
            kind,
            place,
            multiplier,
        }))
    }

    fn read_vendor<R: Registers>(config: &R, at: u8, len: u8) -> Result<Self, ConfigError> {
        Self::check_len(at, len, VENDOR_BYTES)?;
        if !len.is_multiple_of(4) {
            return Err(ConfigError::CapabilityLength {
                at,
                expected: len.next_multiple_of(4),
                found: len,
            });
        }
        let vendor = config.read_u16(u64::from(at) + u64::from(VENDOR))?;
        let data = (VENDOR_DATA..len)
            .map(|field| config.read_u8(u64::from(at) + u64::from(field)))
            .collect::<Result<_, _>>()?;
        Ok(Self::Vendor { vendor, data })
    }

    fn check_len(at: u8, found: u8, expected: u8) -> Result<(), ConfigError> {
        if found < expected {
            return Err(ConfigError::CapabilityLength {
                at,
                expected,
                found,
            });
        }
        if u16::from(at) + u16::from(found) > 0x100 {
            return Err(ConfigError::CapabilityEnd { at, found });
        }
        Ok(())
    }
}
