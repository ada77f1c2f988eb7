//! Where everything of a session lies: computed by the host once, from what its devices ask for.

use shmbus_devices::RegionRequest;
use shmbus_shm::{
    DirectoryLayout, MemoryId, OneMemory, RegionKind, RegionManager, RegionSpec, Section,
};
use shmbus_signal::suppress::DoorbellLayout;
use shmbus_signal::{CLASSES, ChannelId, Priority};
use shmbus_table::{TableLayout, Value};

use crate::control::{DeviceOffer, DriverState, role};
use crate::counters::Counters;
use crate::host::HostError;

/// The regions of every session, in the order in which they are placed, and the sizes of the memories.
#[derive(Clone, Debug)]
pub(crate) struct SessionPlan {
    regions: Vec<RegionSpec>,
    bytes: [u64; 4],
    /// How many channels each side marks, by class.
    to_guest: [u32; CLASSES],
    to_host: [u32; CLASSES],
}

/// Regions start on cache lines of their own.
const ALIGNMENT: u64 = 64;

const PAGE: u64 = 4096;

impl SessionPlan {
    /// Plans for devices that ask for these regions.
    ///
    /// # Errors
    ///
    /// [`HostError`] for a geometry that cannot be.
    pub(crate) fn new(devices: &[Vec<RegionRequest>]) -> Result<Self, HostError> {
        let mut plan = Self {
            regions: Vec::new(),
            bytes: [0; 4],
            to_guest: [0; CLASSES],
            to_host: [0; CLASSES],
        };
        // A directory comes first of all in its memory: that is how it is found.
        let all = || devices.iter().flatten();
        let shared = all().filter(|region| region.section == Section::Shared);
        plan.add_directory(Section::Host, role::DIRECTORY, all().count() + OWN_REGIONS)?;
        plan.add_directory(Section::Shared, role::BUS_DIRECTORY, shared.count() + 2)?;
        let slots = devices.len() as u32;
        plan.add_table::<DeviceOffer>(Section::Host, role::DEVICE_TABLE, slots)?;
        plan.add_table::<DriverState>(Section::Guest, role::DRIVER_TABLE, slots)?;
        plan.add_table::<Counters>(Section::Shared, role::COUNTERS, slots + 1)?;
        for (device, requests) in (0..).zip(devices) {
            for request in requests {
                let spec = RegionSpec::new(request.section, request.kind, request.bytes as u64)
                    .of_device(device, request.role);
                plan.add_signalled(spec, request.signal)?;
            }
        }
        plan.add_doorbells()?;
        debug_assert_eq!(plan.regions.len(), all().count() + OWN_REGIONS);
        Ok(plan)
    }

    fn add_directory(
        &mut self,
        section: Section,
        role: u16,
        entries: usize,
    ) -> Result<(), HostError> {
        let layout = DirectoryLayout::new(entries as u32)?;
        let kind = RegionKind::Raw { params: [0; 2] };
        let mut spec = RegionSpec::new(section, kind, layout.bytes() as u64);
        spec.purpose.role = role;
        self.add(spec);
        Ok(())
    }

    fn add(&mut self, mut spec: RegionSpec) {
        // Whole pages can be mapped by themselves: into a guest's address space, for one.
        if matches!(spec.purpose.kind, RegionKind::Raw { .. }) && spec.bytes.is_multiple_of(PAGE) {
            spec = spec.aligned(PAGE);
        }
        // What comes before may leave a gap.
        self.bytes[spec.section as usize] +=
            spec.bytes.next_multiple_of(ALIGNMENT) + spec.alignment - ALIGNMENT;
        self.regions.push(spec);
    }

    /// Adds a region, with a channel in its writer's direction. Nobody signals for all guests at once, or for a
    /// region that both sides write.
    fn add_signalled(
        &mut self,
        spec: RegionSpec,
        signal: Option<Priority>,
    ) -> Result<(), HostError> {
        let channels = match spec.section {
            Section::Host => &mut self.to_guest,
            Section::Guest => &mut self.to_host,
            Section::Common | Section::Shared => {
                self.add(spec);
                return Ok(());
            }
        };
        let spec = match signal {
            Some(class) => {
                let index = &mut channels[class.class()];
                let channel = ChannelId::new(class, *index).ok_or(HostError::TooManyChannels)?;
                *index += 1;
                spec.signalled(class.class() as u8, channel.to_u32())
            }
            None => spec,
        };
        self.add(spec);
        Ok(())
    }

    fn add_table<V: Value>(
        &mut self,
        section: Section,
        role: u16,
        slots: u32,
    ) -> Result<(), HostError> {
        let slot_bytes = 8 * V::WORDS as u32;
        let layout = TableLayout::new(slots, slot_bytes)?;
        let kind = RegionKind::Table { slots, slot_bytes };
        let mut spec = RegionSpec::new(section, kind, layout.bytes() as u64);
        spec.purpose.role = role;
        self.add_signalled(spec, Some(Priority::HIGHEST))
    }

    /// The trees of both directions, as large as there are channels, and both sides' armed words.
    fn add_doorbells(&mut self) -> Result<(), HostError> {
        for (section, first_role, channels) in [
            (Section::Host, role::HOST_TREE, self.to_guest),
            (Section::Guest, role::GUEST_TREE, self.to_host),
        ] {
            for (class, channels) in (0..).zip(channels) {
                let channels = channels.max(1);
                let bytes = DoorbellLayout::new(channels)?.tree_bytes() as u64;
                let kind = RegionKind::Raw {
                    params: [u64::from(channels), 0],
                };
                let mut spec = RegionSpec::new(section, kind, bytes);
                spec.purpose.role = first_role + class;
                spec.purpose.class = class as u8;
                self.add(spec);
            }
        }
        for (section, role) in [
            (Section::Host, role::HOST_ARMED),
            (Section::Guest, role::GUEST_ARMED),
        ] {
            let bytes = (CLASSES * DoorbellLayout::ARMED_BYTES) as u64;
            let kind = RegionKind::Raw {
                params: [CLASSES as u64, DoorbellLayout::ARMED_BYTES as u64],
            };
            let mut spec = RegionSpec::new(section, kind, bytes);
            spec.purpose.role = role;
            self.add(spec);
        }
        Ok(())
    }

    /// How long the memory of a section must be, in bytes: whole pages, one at least.
    pub(crate) fn bytes(&self, section: Section) -> u64 {
        self.bytes[section as usize].max(1).next_multiple_of(PAGE)
    }

    /// How many regions there are.
    pub(crate) fn regions(&self) -> u32 {
        self.regions.len() as u32
    }

    /// A manager that has placed every region, in memories that are planned only. It places alike each time.
    ///
    /// # Errors
    ///
    /// [`HostError::Region`].
    pub(crate) fn place(&self) -> Result<RegionManager, HostError> {
        let manager = RegionManager::new(self.regions());
        for section in Section::ALL {
            let memory = OneMemory::planned(MemoryId::new(section, 0), self.bytes(section))?;
            manager.back(section, memory)?;
        }
        for spec in &self.regions {
            manager.register(*spec)?;
        }
        Ok(manager)
    }
}

/// The bus's own regions: two directories, three tables, the trees and the armed words.
const OWN_REGIONS: usize = 2 + 3 + 2 * CLASSES + 2;
