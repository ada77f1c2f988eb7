//! The driver's end of an emulated device.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use shmbus_shm::{Mapped, Window};

use super::super::error::{AccessError, FunctionError};
use super::super::function::{BarIndex, Function, Registers};
use super::bar_layout as layout;
use super::device::EmulatedDevice;
use super::register::Register;

/// What a driver takes for a function.
#[derive(Debug)]
pub struct EmulatedFunction {
    device: EmulatedDevice,
}

impl EmulatedFunction {
    pub(super) fn new(device: &EmulatedDevice) -> Self {
        Self {
            device: device.clone(),
        }
    }
}

impl Function for EmulatedFunction {
    type Registers = EmulatedRegisters;

    fn config(&self) -> Result<EmulatedRegisters, FunctionError> {
        Ok(EmulatedRegisters {
            device: self.device.clone(),
            bar: None,
            len: self.device.model().config_space.len() as u64,
        })
    }

    fn bar(&self, bar: BarIndex) -> Result<EmulatedRegisters, FunctionError> {
        match self.device.model().bars[usize::from(bar.get())] {
            0 => Err(FunctionError::NoBar(bar)),
            len => Ok(EmulatedRegisters {
                device: self.device.clone(),
                bar: Some(bar),
                len,
            }),
        }
    }

    fn map(&self, bar: BarIndex, offset: u64, len: u64, _: bool) -> Result<Mapped, FunctionError> {
        let model = self.device.model();
        let refused = |source| FunctionError::Map {
            bar,
            offset,
            len,
            source,
        };
        if bar.get() != layout::SHARED || !offset.is_multiple_of(4096) || !len.is_multiple_of(4096)
        {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        let shared = model.shared.narrow(offset as usize, len as usize);
        shared.map_err(|error| refused(io::Error::other(error)))
    }

    fn vectors(&self) -> u16 {
        self.device.model().vectors
    }

    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        let mut model = self.device.model();
        let (wanted, found) = (eventfds.len(), model.vectors);
        if wanted > usize::from(found) {
            return Err(FunctionError::Vectors { wanted, found });
        }
        let eventfds = eventfds.iter().map(BorrowedFd::try_clone_to_owned);
        model.eventfds =
            eventfds
                .collect::<Result<_, _>>()
                .map_err(|source| FunctionError::System {
                    doing: "take over eventfds",
                    source,
                })?;
        Ok(())
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        self.device.model().eventfds.clear();
        Ok(())
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), FunctionError> {
        self.device.model().bus_master = enabled;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), FunctionError> {
        self.device.model().reset_function();
        Ok(())
    }
}

/// The registers of an emulated device: its configuration space, or a BAR.
#[derive(Clone)]
pub struct EmulatedRegisters {
    device: EmulatedDevice,
    bar: Option<BarIndex>,
    len: u64,
}

impl fmt::Debug for EmulatedRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bar, len, .. } = self;
        write!(f, "EmulatedRegisters {{ bar: {bar:?}, len: {len:#x} }}")
    }
}

impl EmulatedRegisters {
    fn check(&self, offset: u64, bytes: u64) -> Result<Register, AccessError> {
        let mut model = self.device.model();
        model.accesses += 1;
        let len = self.len;
        if offset.checked_add(bytes).is_none_or(|end| end > len) {
            model.strayed += 1;
            return Err(AccessError::OutOfBounds { offset, bytes, len });
        }
        if !offset.is_multiple_of(bytes) {
            model.strayed += 1;
            return Err(AccessError::Misaligned { offset, bytes });
        }
        Ok(match self.bar {
            None => Register::ConfigSpace(offset),
            Some(bar) => Register::in_bar(bar.get(), offset, bytes),
        })
    }

    fn read(&self, offset: u64, width: u64) -> Result<u32, AccessError> {
        let register = self.check(offset, width)?;
        Ok(self.device.model().read(register, width))
    }

    fn write(&self, offset: u64, width: u64, value: u32) -> Result<(), AccessError> {
        let register = self.check(offset, width)?;
        self.device.write(register, width, value);
        Ok(())
    }
}

impl Registers for EmulatedRegisters {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        Ok(self.read(offset, 1)? as u8)
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        Ok(self.read(offset, 2)? as u16)
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        self.read(offset, 4)
    }

    fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError> {
        self.write(offset, 1, value.into())
    }

    fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError> {
        self.write(offset, 2, value.into())
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        self.write(offset, 4, value)
    }
}
