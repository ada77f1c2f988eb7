//! Memory that an IOMMU lets a function access, and for how long.
#![allow(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use shmbus_shm::{Keep, Mapped, Window};
use vfio_ioctls::{VfioContainer, VfioError};

use super::iommu::Iommu;
use super::iova::Iovas;
use super::request;

/// What maps memory for functions: a container.
pub(super) trait Mapper: Send + Sync {
    /// Lets functions read and write the `len` bytes at `base`, which they find at `iova`.
    ///
    /// # Safety
    ///
    /// Until [`Mapper::unmap`] has succeeded, the bytes stay mapped in this process, and it accesses them as memory that changes
    /// at any moment: through windows, without a reference into them.
    unsafe fn map(&self, iova: u64, base: NonNull<u8>, len: usize) -> io::Result<()>;

    /// Takes back what was mapped; it is an error if that is not all of `len` bytes.
    fn unmap(&self, iova: u64, len: usize) -> io::Result<()>;

    /// How many more mappings there can be, with `mapped` of ours; `None` if nobody says.
    fn mappings_left(&self, mapped: u32) -> io::Result<Option<u32>>;
}

impl Mapper for Arc<VfioContainer> {
    unsafe fn map(&self, iova: u64, base: NonNull<u8>, len: usize) -> io::Result<()> {
        // SAFETY: the caller's contract.
        unsafe { self.vfio_dma_map(iova, len, base.as_ptr()) }.map_err(refusal)
    }

    fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        self.vfio_dma_unmap(iova, len).map_err(refusal)
    }

    fn mappings_left(&self, _mapped: u32) -> io::Result<Option<u32>> {
        let words = request::iommu_info(request::descriptor(&**self))?;
        Ok(Iommu::parse(&words).mappings_left)
    }
}

/// What the system said to vfio-ioctls.
pub(super) fn refusal(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(source) | VfioError::IommuDmaUnmap(source) => {
            io::Error::from_raw_os_error(source.errno())
        }
        error => io::Error::other(error),
    }
}

/// The I/O virtual addresses of a container, and what maps them.
pub(super) struct Space {
    mapper: Box<dyn Mapper>,
    /// How many mappings there can be; `None` if nobody says. All of a container's are ours.
    most: Option<u32>,
    /// The unit of mapping, in bytes.
    pub(super) page: u64,
    state: Mutex<State>,
}

struct State {
    iovas: Iovas,
    /// How many mappings there are.
    mapped: u32,
}

impl Space {
    pub(super) fn new(mapper: Box<dyn Mapper>, iommu: &Iommu) -> Self {
        let page = iommu.page.max(rustix::param::page_size() as u64);
        let iovas = Iovas::new(&iommu.addresses, page);
        Self {
            mapper,
            most: iommu.mappings_left,
            page,
            state: Mutex::new(State { iovas, mapped: 0 }),
        }
    }

    /// Takes addresses for `bytes` bytes, whole pages and not none.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        let range = self.with_state(|state| state.iovas.take(bytes))?;
        Some(Taken {
            space: Arc::clone(self),
            range,
        })
    }

    /// How many mappings there are.
    pub(super) fn mapped(&self) -> u32 {
        self.with_state(|state| state.mapped)
    }

    /// Whether there can be no more.
    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.mapped() >= most)
    }

    /// How many more there can be, by the IOMMU's driver; `None` if nobody says.
    pub(super) fn mappings_left(&self) -> io::Result<Option<u32>> {
        self.mapper.mappings_left(self.mapped())
    }

    /// Whether a container with these addresses can go on with this.
    pub(super) fn lies_in(&self, iommu: &Iommu) -> bool {
        iommu.page <= self.page && self.with_state(|state| state.iovas.lie_in(&iommu.addresses))
    }

    /// No thread panics with the lock; were it so, the state would still be whole.
    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Addresses that nobody else has, until this is dropped.
pub(super) struct Taken {
    space: Arc<Space>,
    range: Range<u64>,
}

impl Taken {
    /// The first of them.
    pub(super) fn start(&self) -> u64 {
        self.range.start
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let range = self.range.clone();
        self.space.with_state(|state| state.iovas.give_back(range));
    }
}

/// A window that a function may access, until this is dropped.
pub(super) struct Mapping {
    /// Both are there while it is mapped, and for ever if it cannot be unmapped.
    held: Option<(Taken, Mapped)>,
    /// Keeps the function open: without any, a container has no IOMMU.
    _function: Keep,
}

impl Mapping {
    /// Maps `window` at `taken`; both have the same number of bytes, whole pages.
    pub(super) fn new(taken: Taken, window: Mapped, function: Keep) -> io::Result<Self> {
        // SAFETY: the mapping holds the window, and so the bytes, until they are unmapped; nobody has a reference into what a
        // window looks at.
        unsafe {
            taken
                .space
                .mapper
                .map(taken.start(), window.as_ptr(), window.len())
        }?;
        taken.space.with_state(|state| state.mapped += 1);
        Ok(Self {
            held: Some((taken, window)),
            _function: function,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let Some((taken, window)) = self.held.take() else {
            return;
        };
        match taken.space.mapper.unmap(taken.start(), window.len()) {
            Ok(()) => taken.space.with_state(|state| state.mapped -= 1),
            Err(error) => {
                // The function may still access the bytes, so they are never used for anything else.
                tracing::error!(%error, iova = taken.start(), len = window.len(), "DMA memory cannot be unmapped");
                std::mem::forget((taken, window));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// An IOMMU in this process.
    #[derive(Default)]
    pub(in super::super) struct Table {
        pub(in super::super) entries: Mutex<BTreeMap<u64, (usize, usize)>>,
        pub(in super::super) stuck: AtomicBool,
        pub(in super::super) most: Option<u32>,
    }

    impl Mapper for Arc<Table> {
        unsafe fn map(&self, iova: u64, base: NonNull<u8>, len: usize) -> io::Result<()> {
            let mut entries = self.entries.lock().unwrap();
            let end = iova + len as u64;
            assert!(
                entries
                    .iter()
                    .all(|(at, (_, len))| end <= *at || at + *len as u64 <= iova)
            );
            entries.insert(iova, (base.as_ptr().addr(), len));
            Ok(())
        }

        fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
            if self.stuck.load(Ordering::Relaxed) {
                return Err(io::Error::other("stuck"));
            }
            let (_, mapped) = self.entries.lock().unwrap().remove(&iova).unwrap();
            assert_eq!(mapped, len);
            Ok(())
        }

        fn mappings_left(&self, mapped: u32) -> io::Result<Option<u32>> {
            Ok(self.most.map(|most| most - mapped))
        }
    }
}
