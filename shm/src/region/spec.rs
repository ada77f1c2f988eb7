//! What a device asks for.

use super::error::RegionError;
use super::{PRIORITY_CLASSES, Purpose, RegionKind, Rights, Section};

/// The largest alignment that a region can ask for, in bytes: a page.
const MAX_ALIGNMENT: u64 = 4096;

/// What a device asks for when it registers a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Whose memory it lies in.
    pub section: Section,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// A power of two up to 4096. Regions are aligned to 64 bytes at least.
    pub alignment: u64,
    /// What it is for.
    pub purpose: Purpose,
}

impl RegionSpec {
    /// A region of no device, in the lowest class, without a channel, and with the section's full rights.
    pub fn new(section: Section, kind: RegionKind, bytes: u64) -> Self {
        Self {
            section,
            bytes,
            alignment: 64,
            purpose: Purpose {
                device: None,
                role: 0,
                kind,
                class: PRIORITY_CLASSES - 1,
                rights: section.rights(),
                channel: None,
            },
        }
    }

    /// Region `role` of device `device`.
    #[must_use]
    pub fn of_device(mut self, device: u32, role: u16) -> Self {
        self.purpose.device = Some(device);
        self.purpose.role = role;
        self
    }

    /// Changes to it are told on `channel`, with the priority of `class`.
    #[must_use]
    pub fn signalled(mut self, class: u8, channel: u32) -> Self {
        self.purpose.class = class;
        self.purpose.channel = Some(channel);
        self
    }

    /// Aligned to `alignment` bytes.
    #[must_use]
    pub fn aligned(mut self, alignment: u64) -> Self {
        self.alignment = alignment;
        self
    }

    /// With fewer rights than its section gives.
    #[must_use]
    pub fn limited_to(mut self, rights: Rights) -> Self {
        self.purpose.rights = rights;
        self
    }

    pub(super) fn validate(&self) -> Result<(), RegionError> {
        if self.bytes == 0 {
            return Err(RegionError::Empty);
        }
        if !self.alignment.is_power_of_two() || self.alignment > MAX_ALIGNMENT {
            return Err(RegionError::Alignment {
                alignment: self.alignment,
            });
        }
        if self.purpose.class >= PRIORITY_CLASSES {
            return Err(RegionError::Class {
                class: self.purpose.class,
            });
        }
        if !self.purpose.rights.within(self.section.rights()) {
            return Err(RegionError::Rights {
                section: self.section,
                rights: self.purpose.rights,
            });
        }
        Ok(self.purpose.kind.validate(self.bytes)?)
    }
}
