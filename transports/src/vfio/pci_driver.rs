//! The same over the crate pci-driver.
//!
//! What it does otherwise than one would think, and what is made of it here:
//!
//! - Ends of I/O virtual address ranges are the kernel's last addresses, but are given as the first behind: a page less
//!   is used of each.
//! - Unmapping what was never mapped succeeds: a mapping is a value here, which is unmapped once. Nor can be asked how many
//!   mappings are left: ours are counted.
//! - Ranges that do not lie inside a BAR are cut to what does: they are checked before.
//! - Sparse areas are not known. A BAR that has them can be mapped by those who know where they are; the kernel refuses the rest.
//! - Fewer vectors than were asked for count as success, which happens with MSI: of that, one is used.
//! - There are no 64-bit registers; capabilities are left to whoever reads configuration space.

mod mapped;
mod registers;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use pci_driver::backends::vfio::{VfioContainer, VfioPciDevice};
use pci_driver::device::PciDevice;
use pci_driver::regions::{OwningPciRegion, PciRegion, Permissions};
use shmbus_shm::Mapped;

use crate::pci::{Address, BarIndex, Function, FunctionError, bar_memory_type};

use super::command;
use super::container::group_refused;
use super::error::{OpenError, refused};
use super::iommu::Iommu;
use super::mapping::Space;
use super::memory::Memory;
use super::sysfs;

pub use registers::PciDriverRegisters;

/// A function that pci-driver opened, in a container of its own. Dropped, it accesses no memory and signals nothing any more; it
/// stays open as long as registers or windows of it are left.
pub struct PciDriverFunction {
    device: Arc<VfioPciDevice>,
    address: Address,
    config: PciDriverRegisters,
    memory: Memory,
    vectors: Vectors,
}

/// Which interrupts stand for vectors.
struct Vectors {
    are_msix: bool,
    count: u16,
    are_enabled: bool,
}

impl PciDriverFunction {
    /// Opens a function, which must be bound to vfio-pci, and enables its memory space; it is no bus master yet.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(address: Address) -> Result<Self, OpenError> {
        let place = sysfs::find(Path::new("/sys"), address)?;
        let container = VfioContainer::new(&[place.group]);
        let container = container.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OpenError::NoVfio(source),
            _ => group_refused(source, address, place.group),
        })?;
        let container = Arc::new(container);
        let device = VfioPciDevice::open_in_container(&place.directory, Arc::clone(&container));
        let device = Arc::new(device.map_err(|source| OpenError::System {
            doing: "open a function of its IOMMU group",
            source,
        })?);
        let space = Arc::new(Space::new(
            Box::new(Arc::clone(&container)),
            &iommu(&container),
        ));
        let function = Self {
            config: PciDriverRegisters::configuration(Arc::clone(&device)),
            memory: Memory::new(space, device.clone()),
            vectors: Vectors::of(&device),
            address,
            device,
        };
        command::enable_memory_space(&function.config).map_err(FunctionError::from)?;
        Ok(function)
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Memory for it.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The registers behind a BAR, each access a system call.
    ///
    /// # Errors
    ///
    /// [`FunctionError::NoBar`].
    pub fn unmapped_bar(&self, bar: BarIndex) -> Result<PciDriverRegisters, FunctionError> {
        self.region(bar).map(PciDriverRegisters::descriptor)
    }

    fn region(&self, bar: BarIndex) -> Result<OwningPciRegion, FunctionError> {
        let region = self.device.bar(usize::from(bar.get()));
        region.ok_or(FunctionError::NoBar(bar))
    }
}

/// What pci-driver knows of the IOMMU.
fn iommu(container: &VfioContainer) -> Iommu {
    let iommu = container.iommu();
    let ranges = iommu.valid_iova_ranges().iter();
    Iommu {
        page: iommu.alignment() as u64,
        addresses: ranges
            .filter(|range| !range.is_empty())
            .map(|range| range.start..=range.end - 1)
            .collect(),
        mappings_left: Some(iommu.max_num_mappings()),
    }
}

impl Vectors {
    fn of(device: &VfioPciDevice) -> Self {
        let (msix, msi) = (
            device.interrupts().msi_x().max(),
            device.interrupts().msi().max(),
        );
        Self {
            are_msix: msix > 0,
            // MSI-X has 2048 at most.
            count: if msix > 0 { msix } else { msi.min(1) } as u16,
            are_enabled: false,
        }
    }
}

impl Function for PciDriverFunction {
    type Registers = PciDriverRegisters;

    fn config(&self) -> Result<PciDriverRegisters, FunctionError> {
        Ok(PciDriverRegisters::configuration(Arc::clone(&self.device)))
    }

    /// Mapped, where all of the BAR can be; each call maps it anew.
    fn bar(&self, bar: BarIndex) -> Result<PciDriverRegisters, FunctionError> {
        let region = self.region(bar)?;
        if region.is_mappable()
            && let Ok(mapped) = region.map(.., Permissions::ReadWrite)
        {
            return Ok(PciDriverRegisters::mapped(mapped));
        }
        Ok(PciDriverRegisters::descriptor(region))
    }

    fn map(
        &self,
        bar: BarIndex,
        offset: u64,
        len: u64,
        is_memory: bool,
    ) -> Result<Mapped, FunctionError> {
        let region = self.region(bar)?;
        let whole = PciRegion::len(&region);
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= whole && len != 0);
        let end = end.filter(|_| region.is_mappable());
        let end = end.ok_or_else(|| FunctionError::NotMappable {
            bar,
            offset,
            len,
            areas: std::iter::once(0..whole)
                .filter(|_| region.is_mappable())
                .collect(),
        })?;
        let memory_type = bar_memory_type(is_memory);
        region
            .map(offset..end, Permissions::ReadWrite)
            .and_then(|mapped| mapped::window(mapped, memory_type))
            .map_err(|source| FunctionError::Map {
                bar,
                offset,
                len,
                source,
            })
    }

    fn vectors(&self) -> u16 {
        self.vectors.count
    }

    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        let (wanted, found) = (eventfds.len(), self.vectors.count);
        if wanted > usize::from(found) {
            return Err(FunctionError::Vectors { wanted, found });
        }
        // More than before cannot be enabled in one step.
        self.disable_vectors()?;
        if eventfds.is_empty() {
            return Ok(());
        }
        let fds: Vec<RawFd> = eventfds.iter().map(AsRawFd::as_raw_fd).collect();
        let interrupts = self.device.interrupts();
        let enabled = if self.vectors.are_msix {
            interrupts.msi_x().enable(&fds)
        } else {
            interrupts.msi().enable(&fds)
        };
        self.vectors.are_enabled = enabled.is_ok();
        enabled.map_err(refused("enable vectors"))
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        if !self.vectors.are_enabled {
            return Ok(());
        }
        let interrupts = self.device.interrupts();
        let disabled = if self.vectors.are_msix {
            interrupts.msi_x().disable()
        } else {
            interrupts.msi().disable()
        };
        self.vectors.are_enabled = disabled.is_err();
        disabled.map_err(refused("disable vectors"))
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), FunctionError> {
        Ok(command::set_bus_master(&self.config, enabled)?)
    }

    /// Its vectors are disabled, too.
    fn reset(&mut self) -> Result<(), FunctionError> {
        self.disable_vectors()?;
        self.set_bus_master(false)?;
        self.device.reset().map_err(refused("reset the function"))?;
        Ok(command::enable_memory_space(&self.config)?)
    }
}

impl Drop for PciDriverFunction {
    fn drop(&mut self) {
        if let Err(error) = self
            .set_bus_master(false)
            .and_then(|()| self.disable_vectors())
        {
            tracing::error!(%error, function = %self.address, "a function could not be stopped");
        }
    }
}

impl fmt::Debug for PciDriverFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciDriverFunction")
            .field("address", &self.address)
            .field("vectors", &self.vectors.count)
            .finish_non_exhaustive()
    }
}
