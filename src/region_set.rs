//! The regions of a session, found by what they are for.

use std::collections::BTreeMap;

use shmbus_devices::Regions;
use shmbus_shm::{
    DirectoryError, DirectoryReader, EntryError, Mapped, MemoryMap, MemoryMapError, Region,
    RegionError, RegionManager, Section,
};
use shmbus_signal::ChannelId;
use shmbus_table::{TableError, TypedReader, Value};

/// A session's region cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegionSetError {
    /// The directory cannot be read.
    #[error("the directory: {0}")]
    Directory(#[from] DirectoryError),
    /// An entry of the directory makes no sense.
    #[error("entry {place} of the directory: {source}")]
    Entry {
        /// Which one.
        place: u32,
        /// What is wrong with it.
        source: EntryError,
    },
    /// A region lies where nothing is mapped.
    #[error("region {role:#x} of device {device:?}: {source}")]
    Unmapped {
        /// The device; none is the bus itself.
        device: Option<u32>,
        /// The region's role.
        role: u16,
        /// What is wrong with its place.
        source: MemoryMapError,
    },
    /// A region cannot be had from the manager.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A region that every session has is not there.
    #[error("the session has no region {role:#x} of its own")]
    Missing {
        /// The region's role.
        role: u16,
    },
}

/// What a channel speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The device; none is the bus itself.
    pub device: Option<u32>,
    /// The region's role.
    pub role: u16,
}

/// Every region of a session, mapped.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionSet {
    regions: BTreeMap<(Option<u32>, u16), (Region, Mapped)>,
}

impl RegionSet {
    /// What a manager has placed, once all its memories are there.
    pub(crate) fn leased(manager: &RegionManager) -> Result<Self, RegionSetError> {
        let mut set = Self::default();
        for (handle, region) in manager.regions() {
            let lease = manager.lease(handle)?;
            set.insert(region, lease.window().clone());
        }
        Ok(set)
    }

    /// What the directory at the start of `host` tells of, as far as its memories are mapped here.
    ///
    /// The directory is the peer's: each entry is checked, and the regions it names are bounded by what is mapped.
    pub(crate) fn read(host: &Mapped, memories: &MemoryMap) -> Result<Self, RegionSetError> {
        let mut set = Self::default();
        for region in directory(host)? {
            match memories.window(&region) {
                Ok(window) => set.insert(region, window),
                // An inspector has no common memory, and a guest no other's.
                Err(MemoryMapError::NotMapped { .. }) => {}
                Err(source) => {
                    return Err(RegionSetError::Unmapped {
                        device: region.purpose.device,
                        role: region.purpose.role,
                        source,
                    });
                }
            }
        }
        Ok(set)
    }

    pub(crate) fn insert(&mut self, region: Region, window: Mapped) {
        let name = (region.purpose.device, region.purpose.role);
        self.regions.insert(name, (region, window));
    }

    /// A region of the bus's own.
    pub(crate) fn own(&self, role: u16) -> Result<&(Region, Mapped), RegionSetError> {
        self.regions
            .get(&(None, role))
            .ok_or(RegionSetError::Missing { role })
    }

    /// A region.
    pub(crate) fn get(&self, device: Option<u32>, role: u16) -> Option<&(Region, Mapped)> {
        self.regions.get(&(device, role))
    }

    /// The regions of a device.
    pub(crate) fn of_device(&self, device: u32) -> Regions {
        let mut regions = Regions::default();
        let all = (Some(device), 0)..=(Some(device), u16::MAX);
        for ((_, role), (region, window)) in self.regions.range(all) {
            regions.insert(*role, region.purpose.kind, window.clone());
        }
        regions
    }

    /// The channel on which a region's writer signals.
    pub(crate) fn channel(&self, device: Option<u32>, role: u16) -> Option<ChannelId> {
        let (region, _) = self.get(device, role)?;
        region.purpose.channel.and_then(ChannelId::from_u32)
    }

    /// What the channels speak of that the writer of `section` raises.
    pub(crate) fn subjects(&self, section: Section) -> BTreeMap<ChannelId, Subject> {
        self.regions
            .values()
            .filter(|(region, _)| region.placement.memory.section() == section)
            .filter_map(|(region, _)| {
                let channel = ChannelId::from_u32(region.purpose.channel?)?;
                let subject = Subject {
                    device: region.purpose.device,
                    role: region.purpose.role,
                };
                Some((channel, subject))
            })
            .collect()
    }
}

/// Every entry of the directory at the start of a host's memory.
pub(crate) fn directory(host: &Mapped) -> Result<Vec<Region>, RegionSetError> {
    let places = places(host)?.into_iter();
    Ok(places.map(|(_, region)| region).collect())
}

/// The same, with the place of each.
pub(crate) fn places(host: &Mapped) -> Result<Vec<(u32, Region)>, RegionSetError> {
    let entries = shmbus_shm::DirectoryHeader::read(host)?.layout.entries() as usize;
    let mut reader = DirectoryReader::attach(host, vec![0; entries], vec![0; entries])?;
    let mut regions = Vec::new();
    let mut failed = None;
    let _ = reader.changed(|place, entry| match entry {
        Ok(Some(region)) => regions.push((place, region)),
        Ok(None) => {}
        Err(source) => failed = Some(RegionSetError::Entry { place, source }),
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(regions),
    }
}

/// Attaches to a table of the other side's, of as many slots as its header says.
pub(crate) fn attach_table<V: Value>(
    window: &Mapped,
) -> Result<TypedReader<V, Mapped, Vec<u64>>, TableError> {
    let slots = shmbus_table::Header::read(window)?.layout.slots() as usize;
    let storage = || vec![0; slots];
    TypedReader::attach(window.clone(), storage(), storage())
}
