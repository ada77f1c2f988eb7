//! A function that vfio-ioctls opened.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use shmbus_shm::{Mapped, MemoryType};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};
use vfio_ioctls::VfioDevice;

use crate::pci::{Address, BarIndex, Function, FunctionError, bar_memory_type};

use super::command;
use super::error::refused;
use super::mapping::Space;
use super::memory::Memory;
use super::region::Region;
use super::registers::VfioRegisters;
use super::request;

/// An open device, and where it is.
pub(super) struct Device {
    pub(super) vfio: VfioDevice,
    pub(super) address: Address,
}

/// A function that vfio-ioctls opened. Dropped, it accesses no memory and signals nothing any more; it stays open as long as
/// registers or windows of it are left.
pub struct VfioFunction {
    device: Arc<Device>,
    config: VfioRegisters,
    memory: Memory,
    interrupts: Interrupts,
}

/// A function's message interrupts.
struct Interrupts {
    /// VFIO's number for MSI-X or MSI.
    index: u32,
    count: u16,
    are_enabled: bool,
}

impl VfioFunction {
    /// Takes over a device that was just opened, and enables its memory space.
    pub(super) fn new(
        vfio: VfioDevice,
        address: Address,
        space: Arc<Space>,
    ) -> Result<Self, FunctionError> {
        let device = Arc::new(Device { vfio, address });
        let region = region(&device, VFIO_PCI_CONFIG_REGION_INDEX)?;
        let function = Self {
            config: VfioRegisters::configuration(Arc::clone(&device), region),
            memory: Memory::new(space, device.clone()),
            interrupts: Interrupts::of(&device.vfio),
            device,
        };
        command::enable_memory_space(&function.config)?;
        Ok(function)
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.device.address
    }

    /// Memory for it.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The registers behind a BAR, each access a system call: slower than [`Function::bar`]'s where that maps them, but one that
    /// fails is an error in any case.
    ///
    /// # Errors
    ///
    /// [`FunctionError::NoBar`].
    pub fn unmapped_bar(&self, bar: BarIndex) -> Result<VfioRegisters, FunctionError> {
        let region = self.region_of(bar)?;
        Ok(VfioRegisters::descriptor(Arc::clone(&self.device), region))
    }

    fn region_of(&self, bar: BarIndex) -> Result<Region, FunctionError> {
        let region = region(&self.device, u32::from(bar.get()))?;
        if region.len == 0 {
            return Err(FunctionError::NoBar(bar));
        }
        Ok(region)
    }
}

fn region(device: &Device, index: u32) -> Result<Region, FunctionError> {
    Region::of(&device.vfio, index).map_err(|source| FunctionError::System {
        doing: "learn about a region",
        source,
    })
}

impl Interrupts {
    fn of(device: &VfioDevice) -> Self {
        let count = |index| device.get_irq_info(index).map_or(0, |irq| irq.count);
        let index = match count(VFIO_PCI_MSIX_IRQ_INDEX) {
            0 => VFIO_PCI_MSI_IRQ_INDEX,
            _ => VFIO_PCI_MSIX_IRQ_INDEX,
        };
        Self {
            index,
            // MSI-X has 2048 at most.
            count: count(index).min(u32::from(u16::MAX)) as u16,
            are_enabled: false,
        }
    }
}

impl Function for VfioFunction {
    type Registers = VfioRegisters;

    fn config(&self) -> Result<VfioRegisters, FunctionError> {
        let region = region(&self.device, VFIO_PCI_CONFIG_REGION_INDEX)?;
        let device = Arc::clone(&self.device);
        Ok(VfioRegisters::configuration(device, region))
    }

    /// Mapped, where all of the BAR can be; each call maps it anew.
    fn bar(&self, bar: BarIndex) -> Result<VfioRegisters, FunctionError> {
        let region = self.region_of(bar)?;
        let device = Arc::clone(&self.device);
        let whole = 0..region.len;
        if region.is_mappable(&whole)
            && let Ok(window) = region.map(&device.vfio, &whole, MemoryType::Device)
            && let Ok(mapped) = VfioRegisters::mapped(Arc::clone(&device), region.clone(), window)
        {
            return Ok(mapped);
        }
        Ok(VfioRegisters::descriptor(device, region))
    }

    fn map(
        &self,
        bar: BarIndex,
        offset: u64,
        len: u64,
        is_memory: bool,
    ) -> Result<Mapped, FunctionError> {
        let region = self.region_of(bar)?;
        let part = offset..offset.saturating_add(len);
        if !region.is_mappable(&part) {
            return Err(FunctionError::NotMappable {
                bar,
                offset,
                len,
                areas: region.areas,
            });
        }
        let memory_type = bar_memory_type(is_memory);
        let window = region.map(&self.device.vfio, &part, memory_type);
        let window = window.map_err(|source| FunctionError::Map {
            bar,
            offset,
            len,
            source,
        })?;
        Ok(window.leased(Arc::clone(&self.device)))
    }

    fn vectors(&self) -> u16 {
        self.interrupts.count
    }

    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        let (wanted, found) = (eventfds.len(), self.interrupts.count);
        if wanted > usize::from(found) {
            return Err(FunctionError::Vectors { wanted, found });
        }
        // More than before cannot be enabled in one step.
        self.disable_vectors()?;
        if eventfds.is_empty() {
            return Ok(());
        }
        let fd = request::descriptor(&self.device.vfio);
        let enabled = request::enable_interrupts(fd, self.interrupts.index, eventfds);
        self.interrupts.are_enabled = enabled.is_ok();
        enabled.map_err(refused("enable vectors"))
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        if !self.interrupts.are_enabled {
            return Ok(());
        }
        let fd = request::descriptor(&self.device.vfio);
        let disabled = request::disable_interrupts(fd, self.interrupts.index);
        self.interrupts.are_enabled = disabled.is_err();
        disabled.map_err(refused("disable vectors"))
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), FunctionError> {
        Ok(command::set_bus_master(&self.config, enabled)?)
    }

    /// Its vectors are disabled, too. vfio-ioctls has a reset that tells nobody whether it was one.
    fn reset(&mut self) -> Result<(), FunctionError> {
        self.disable_vectors()?;
        self.set_bus_master(false)?;
        let fd = request::descriptor(&self.device.vfio);
        request::reset(fd).map_err(refused("reset the function"))?;
        Ok(command::enable_memory_space(&self.config)?)
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        if let Err(error) = self
            .set_bus_master(false)
            .and_then(|()| self.disable_vectors())
        {
            tracing::error!(%error, function = %self.address(), "a function could not be stopped");
        }
    }
}

impl fmt::Debug for VfioFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioFunction")
            .field("address", &self.address())
            .field("vectors", &self.interrupts.count)
            .finish_non_exhaustive()
    }
}
