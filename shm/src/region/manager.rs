//! Registers regions, places them, and takes their space back.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use slab::Slab;

use super::backing::Backing;
use super::error::RegionError;
use super::spec::RegionSpec;
use super::{MemoryId, Placement, Purpose, Region, RegionId, Section};
use crate::field::Bytes;
use crate::mapped::Mapped;
use crate::memfd::SharedMemory;
use crate::window::Window;

/// Refers to a registered region. After it is unregistered the handle refers to nothing, also when its place is
/// taken by another region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionHandle {
    slot: u32,
    id: RegionId,
}

impl RegionHandle {
    /// A small number that no other registered region has: its place in the directory.
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// The region's name.
    pub fn id(self) -> RegionId {
        self.id
    }
}

/// A window on a region, and the knowledge whether it may still be used.
#[derive(Clone, Debug)]
pub struct Lease {
    window: Mapped,
    revoked: Arc<AtomicBool>,
}

impl Lease {
    /// The region's bytes. They stay the region's until the last window cloned or narrowed from this one is dropped.
    pub fn window(&self) -> &Mapped {
        &self.window
    }

    /// Whether the region was revoked or unregistered. Its users must then stop, and drop their windows.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

/// Registers regions in the memories of a session and places them there.
///
/// The space of an unregistered region is used again when the last window on it is dropped, not before. Clones are
/// the same manager.
///
/// ```
/// use shmbus_shm::{
///     MemoryId, OneMemory, RegionKind, RegionManager, RegionSpec, Section, SharedMemory, Writers,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let regions = RegionManager::new(16);
/// let memory = SharedMemory::create("host", 65536, Writers::Creator)?;
/// regions.back(Section::Host, OneMemory::created(MemoryId::HOST, 0, memory)?)?;
///
/// let kind = RegionKind::Table { slots: 8, slot_bytes: 16 };
/// let table = regions.register(RegionSpec::new(Section::Host, kind, 4096).of_device(0, 1))?;
/// let lease = regions.lease(table)?;
/// assert_eq!(regions.region(table)?.placement.bytes, 4096);
///
/// regions.unregister(table)?;
/// assert!(lease.is_revoked());
/// assert!(regions.lease(table).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RegionManager {
    shared: Arc<Shared>,
}

struct Shared {
    max_regions: u32,
    /// No window may be dropped while it is locked: the last one on a region locks it too.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    regions: Slab<Registered>,
    backings: [Option<Box<dyn Backing>>; Section::ALL.len()],
    next_id: u64,
}

struct Registered {
    id: RegionId,
    purpose: Purpose,
    occupied: Arc<Occupied>,
    revoked: Arc<AtomicBool>,
}

/// A placement that is in use: by its registration, and by every window on it.
struct Occupied {
    shared: Weak<Shared>,
    placement: Placement,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        // Without a manager there is nobody to give the space to.
        if let Some(shared) = self.shared.upgrade() {
            let mut state = shared.state.lock();
            if let Some(backing) = state.backing(self.placement.memory.section()) {
                backing.free(self.placement);
            }
        }
    }
}

impl State {
    fn backing(&mut self, section: Section) -> Option<&mut Box<dyn Backing>> {
        self.backings[section as usize].as_mut()
    }

    fn registered(&self, handle: RegionHandle) -> Result<&Registered, RegionError> {
        self.regions
            .get(handle.slot as usize)
            .filter(|registered| registered.id == handle.id)
            .ok_or(RegionError::Unregistered { id: handle.id })
    }

    fn region(&self, registered: &Registered) -> Region {
        let placement = registered.occupied.placement;
        let backing = &self.backings[placement.memory.section() as usize];
        Region {
            id: registered.id,
            purpose: registered.purpose,
            placement,
            epoch: backing
                .as_ref()
                .map_or(0, |backing| backing.epoch(placement.memory)),
        }
    }
}

impl RegionManager {
    /// Registers up to `max_regions` regions. No section has memory yet.
    pub fn new(max_regions: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                max_regions,
                state: Mutex::default(),
            }),
        }
    }

    /// Gives a section its memory.
    ///
    /// # Errors
    ///
    /// [`RegionError::HasBacking`].
    pub fn back(
        &self,
        section: Section,
        backing: impl Backing + 'static,
    ) -> Result<(), RegionError> {
        let mut state = self.shared.state.lock();
        let place = &mut state.backings[section as usize];
        if place.is_some() {
            return Err(RegionError::HasBacking { section });
        }
        *place = Some(Box::new(backing));
        Ok(())
    }

    /// Takes in a memory that was planned, now that its writer has created it. A restarted writer's next memory takes
    /// the place of the one before: new leases are on it, those that there are stay where they are.
    ///
    /// # Errors
    ///
    /// [`BackingError::NotPlanned`](super::BackingError::NotPlanned) and
    /// [`BackingError::WrongSize`](super::BackingError::WrongSize), in [`RegionError::Backing`].
    pub fn attach(&self, memory: MemoryId, epoch: u64, window: Mapped) -> Result<(), RegionError> {
        let section = memory.section();
        let mut state = self.shared.state.lock();
        let replaced = state
            .backing(section)
            .ok_or(RegionError::NoBacking { section })?
            .attach(memory, epoch, &window);
        drop(state);
        replaced.map(drop).map_err(Into::into)
    }

    /// Registers a region. Its bytes read as zeros, where they lie in a memory that the host writes.
    ///
    /// # Errors
    ///
    /// [`RegionError`] says what of `spec` cannot be, or what is used up.
    pub fn register(&self, spec: RegionSpec) -> Result<RegionHandle, RegionError> {
        spec.validate()?;
        let RegionSpec { section, .. } = spec;
        let limit = self.shared.max_regions;
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        if state.regions.len() >= limit as usize {
            return Err(RegionError::TooMany { limit });
        }
        let backing = state
            .backing(section)
            .ok_or(RegionError::NoBacking { section })?;
        let placement = backing.place(spec.bytes, spec.alignment)?;
        let used_before = if section != Section::Guest && backing.is_used(placement) {
            backing.window(placement).ok()
        } else {
            None
        };
        state.next_id += 1;
        let id = RegionId(state.next_id);
        let slot = state.regions.insert(Registered {
            id,
            purpose: spec.purpose,
            occupied: Arc::new(Occupied {
                shared: Arc::downgrade(&self.shared),
                placement,
            }),
            revoked: Arc::default(),
        }) as u32;
        drop(guard);
        if let Some(window) = used_before {
            zero(&window);
        }
        tracing::debug!(id = id.0, ?placement, "region registered");
        Ok(RegionHandle { slot, id })
    }

    /// What is registered under a handle.
    ///
    /// # Errors
    ///
    /// [`RegionError::Unregistered`].
    pub fn region(&self, handle: RegionHandle) -> Result<Region, RegionError> {
        let state = self.shared.state.lock();
        Ok(state.region(state.registered(handle)?))
    }

    /// A window on a region.
    ///
    /// # Errors
    ///
    /// [`RegionError::Unregistered`], [`RegionError::Revoked`], or, while its memory is only planned,
    /// [`BackingError::NotMapped`](super::BackingError::NotMapped).
    pub fn lease(&self, handle: RegionHandle) -> Result<Lease, RegionError> {
        let state = self.shared.state.lock();
        let registered = state.registered(handle)?;
        if registered.revoked.load(Ordering::Acquire) {
            return Err(RegionError::Revoked { id: handle.id });
        }
        let placement = registered.occupied.placement;
        let section = placement.memory.section();
        let window = state.backings[section as usize]
            .as_ref()
            .ok_or(RegionError::NoBacking { section })?
            .window(placement)?;
        Ok(Lease {
            window: window.leased(Arc::clone(&registered.occupied)),
            revoked: Arc::clone(&registered.revoked),
        })
    }

    /// Takes a region away from its users: there are no new leases, and those that there are tell. It stays
    /// registered until its owner unregisters it.
    ///
    /// # Errors
    ///
    /// [`RegionError::Unregistered`].
    pub fn revoke(&self, handle: RegionHandle) -> Result<(), RegionError> {
        let state = self.shared.state.lock();
        state
            .registered(handle)?
            .revoked
            .store(true, Ordering::Release);
        Ok(())
    }

    /// Revokes a region and forgets it. Its space is used again when the last window on it is dropped.
    ///
    /// # Errors
    ///
    /// [`RegionError::Unregistered`].
    pub fn unregister(&self, handle: RegionHandle) -> Result<(), RegionError> {
        let mut state = self.shared.state.lock();
        state.registered(handle)?;
        let registered = state.regions.remove(handle.slot as usize);
        drop(state);
        registered.revoked.store(true, Ordering::Release);
        tracing::debug!(id = handle.id.0, "region unregistered");
        Ok(())
    }

    /// All registered regions: what the directory is written from.
    pub fn regions(&self) -> Vec<(RegionHandle, Region)> {
        let state = self.shared.state.lock();
        state
            .regions
            .iter()
            .map(|(slot, registered)| {
                let handle = RegionHandle {
                    slot: slot as u32,
                    id: registered.id,
                };
                (handle, state.region(registered))
            })
            .collect()
    }

    /// Shows each memory that the backings created, to pass its descriptor on. `visit` must not call the manager.
    pub fn each_memory(&self, mut visit: impl FnMut(MemoryId, &SharedMemory)) {
        let state = self.shared.state.lock();
        for backing in state.backings.iter().flatten() {
            backing.each_memory(&mut visit);
        }
    }
}

impl fmt::Debug for RegionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionManager")
            .field("max_regions", &self.shared.max_regions)
            .finish_non_exhaustive()
    }
}

fn zero(window: &Mapped) {
    const ZEROS: [u8; 4096] = [0; 4096];
    for offset in (0..window.len()).step_by(ZEROS.len()) {
        let bytes = (window.len() - offset).min(ZEROS.len());
        if let Ok(piece) = Bytes::new(window, offset, bytes) {
            piece.copy_from(0, &ZEROS);
        }
    }
}
