//! The memories that an inspector is given.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use shmbus_shm::{Mapped, MemoryId, MemoryMap, Section};
use shmbus_transports::local::{GuestName, Inspector, SessionId};

use super::{InspectError, Place};
use crate::gallery::{self, Visit};
use crate::region_set::RegionSet;

/// How long the host may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an inspector is given, by session.
#[derive(Default)]
pub(crate) struct Memories {
    shared: Option<(u64, Mapped)>,
    pub(crate) sessions: BTreeMap<SessionId, GuestMemories>,
    /// What is shown of the bus and of all sessions, those among them.
    pub(super) gallery: Option<Visit>,
}

/// A session's memories.
#[derive(Default)]
pub(crate) struct GuestMemories {
    pub(super) name: String,
    pub(super) host: Option<Mapped>,
    pub(super) map: MemoryMap,
}

impl Memories {
    pub(crate) fn at(place: Place<'_>) -> Result<Self, InspectError> {
        match place {
            Place::Socket(path) => Self::given_at(path),
            Place::File(_) | Place::Function(_) => Self::in_gallery(place.window()?),
        }
    }

    /// What a gallery shows.
    pub(super) fn in_gallery(window: Mapped) -> Result<Self, InspectError> {
        Ok(Self {
            gallery: Some(Visit::new(window)?),
            ..Self::default()
        })
    }

    /// What the host at `path` gives to inspectors.
    fn given_at(path: &Path) -> Result<Self, InspectError> {
        let name = GuestName::new("inspector")?;
        let mut memories = Self::default();
        for shown in Inspector::connect(path, name, PATIENCE)?.list()? {
            let id = shown.memory.id;
            let (epoch, window) = (shown.memory.epoch, shown.memory.window().clone());
            match shown.session {
                None if id == gallery::MEMORY => memories.gallery = Some(Visit::new(window)?),
                None => memories.shared = Some((epoch, window)),
                Some(session) => {
                    let guest = memories.sessions.entry(session).or_default();
                    guest.name = shown.guest.map(|name| name.to_string()).unwrap_or_default();
                    if id == MemoryId::HOST {
                        guest.host = Some(window.clone());
                    }
                    guest.map.insert(id, epoch, window);
                }
            }
        }
        if let Some((epoch, window)) = &memories.shared {
            for guest in memories.sessions.values_mut() {
                guest.map.insert(MemoryId::SHARED, *epoch, window.clone());
            }
        }
        Ok(memories)
    }

    /// The regions of the whole bus.
    pub(super) fn bus(&self) -> Result<RegionSet, InspectError> {
        let Some((epoch, window)) = &self.shared else {
            let gallery = self.gallery.as_ref();
            return gallery.ok_or(InspectError::NoSharedMemory)?.bus();
        };
        let mut map = MemoryMap::new();
        map.insert(MemoryId::new(Section::Shared, 0), *epoch, window.clone());
        Ok(RegionSet::read(window, &map)?)
    }
}
