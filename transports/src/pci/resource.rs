//! A function by its files in sysfs: for a guest without VFIO.
//!
//! Linux shows the configuration space of each function, and each of its memory BARs, as a file that can be mapped. That is registers
//! and memory, but neither interrupts nor DMA: who waits for such a function polls it. Only a function that no driver has is
//! taken, since nobody else keeps two drivers apart here.
//!
//! UIO would give interrupts of a function that has a line; its generic driver knows no MSI-X.

use core::sync::atomic::Ordering::Relaxed;
use std::fs::{File, OpenOptions, read_link};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use shmbus_shm::{Bytes, Field, Mapped, MemoryType, Window, WindowError, map_device};

use super::address::Address;
use super::error::{AccessError, FunctionError};
use super::function::{BarIndex, Function, Registers, bar_memory_type};

/// Offset of the command register in configuration space, in bytes, and its bit by which a function accesses memory.
const COMMAND: u64 = 4;
const BUS_MASTER: u16 = 1 << 2;

const PAGE: u64 = 4096;

/// A function by its files in sysfs. It has no vectors, and there is no memory that it could access.
#[derive(Debug)]
pub struct ResourceFunction {
    directory: PathBuf,
    config: ResourceRegisters,
}

impl ResourceFunction {
    /// Takes the function at `address`, and enables it. That needs the rights of root.
    ///
    /// # Errors
    ///
    /// [`FunctionError::System`], also if a driver has it.
    pub fn open(address: Address) -> Result<Self, FunctionError> {
        Self::at(address.directory())
    }

    fn at(directory: PathBuf) -> Result<Self, FunctionError> {
        if let Ok(driver) = read_link(directory.join("driver")) {
            let driver = driver.file_name().unwrap_or_default().display();
            let source = io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("the driver {driver} has it"),
            );
            return Err(failed("take the function")(source));
        }
        let config = open(&directory.join("config")).map_err(failed("open config"))?;
        let len = length(&config).map_err(failed("open config"))?;
        let enable = directory.join("enable");
        // Each that is written is counted, so none too many.
        let enabled = std::fs::read_to_string(&enable).map_err(failed("read enable"))?;
        if enabled.trim() == "0" {
            std::fs::write(&enable, "1").map_err(failed("enable the function"))?;
        }
        Ok(Self {
            directory,
            config: ResourceRegisters(Reached::File { file: config, len }),
        })
    }

    /// How far into a page the BAR starts, in bytes: a file is mapped from the start of that page on.
    fn lead(&self, bar: BarIndex) -> io::Result<usize> {
        let text = std::fs::read_to_string(self.directory.join("resource"))?;
        let start = address_of(&text, bar).ok_or(io::ErrorKind::InvalidData)?;
        Ok((start % PAGE) as usize)
    }

    fn resource(&self, bar: BarIndex) -> Result<File, FunctionError> {
        let name = format!("resource{}", bar.get());
        open(&self.directory.join(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FunctionError::NoBar(bar),
            _ => failed("open a resource file")(error),
        })
    }
}

/// The first of three numbers in a line of `resource`: the BAR's address.
fn address_of(text: &str, bar: BarIndex) -> Option<u64> {
    let line = text.lines().nth(bar.get().into())?;
    let start = line.split_whitespace().next()?;
    u64::from_str_radix(start.trim_start_matches("0x"), 16).ok()
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> FunctionError {
    move |source| FunctionError::System { doing, source }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

impl Function for ResourceFunction {
    type Registers = ResourceRegisters;

    fn config(&self) -> Result<ResourceRegisters, FunctionError> {
        let Reached::File { file, len } = &self.config.0 else {
            return Err(failed("reach config")(io::ErrorKind::Unsupported.into()));
        };
        let file = file.try_clone().map_err(failed("open config"))?;
        Ok(ResourceRegisters(Reached::File { file, len: *len }))
    }

    fn bar(&self, bar: BarIndex) -> Result<ResourceRegisters, FunctionError> {
        let file = self.resource(bar)?;
        let len = length(&file).map_err(failed("open a resource file"))?;
        let lead = self.lead(bar).map_err(failed("read resource"))?;
        let refused = |source| FunctionError::Map {
            bar,
            offset: 0,
            len,
            source,
        };
        // Longer than a pointer reaches is longer than can be mapped.
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        let whole = bytes.saturating_add(lead);
        let window = map_device(file.as_fd(), 0, whole, true, MemoryType::Device)
            .and_then(|window| window.narrow(lead, bytes).map_err(io::Error::other))
            .map_err(refused)?;
        Ok(ResourceRegisters(Reached::Mapped(window)))
    }

    fn map(
        &self,
        bar: BarIndex,
        offset: u64,
        len: u64,
        is_memory: bool,
    ) -> Result<Mapped, FunctionError> {
        let refused = |source| FunctionError::Map {
            bar,
            offset,
            len,
            source,
        };
        let file = self.resource(bar)?;
        let bytes = length(&file).map_err(refused)?;
        // What reaches beyond the BAR would be mapped all the same, and be a SIGBUS.
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > bytes) {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        let memory_type = bar_memory_type(is_memory);
        map_device(file.as_fd(), offset, len as usize, true, memory_type).map_err(refused)
    }

    fn vectors(&self) -> u16 {
        0
    }

    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        match eventfds.len() {
            0 => Ok(()),
            wanted => Err(FunctionError::Vectors { wanted, found: 0 }),
        }
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        Ok(())
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), FunctionError> {
        let command = self.config.read_u16(COMMAND)?;
        let command = match enabled {
            true => command | BUS_MASTER,
            false => command & !BUS_MASTER,
        };
        Ok(self.config.write_u16(COMMAND, command)?)
    }

    fn reset(&mut self) -> Result<(), FunctionError> {
        std::fs::write(self.directory.join("reset"), "1").map_err(failed("reset the function"))
    }
}

/// Registers behind a file of sysfs.
#[derive(Debug)]
pub struct ResourceRegisters(Reached);

#[derive(Debug)]
enum Reached {
    /// Configuration space: each access is a system call.
    File { file: File, len: u64 },
    /// A BAR.
    Mapped(Mapped),
}

impl ResourceRegisters {
    fn check(&self, offset: u64, bytes: u64) -> Result<usize, AccessError> {
        let len = self.len();
        if offset.checked_add(bytes).is_none_or(|end| end > len) {
            return Err(AccessError::OutOfBounds { offset, bytes, len });
        }
        if !offset.is_multiple_of(bytes) {
            return Err(AccessError::Misaligned { offset, bytes });
        }
        Ok(offset as usize)
    }

    fn read<const N: usize>(
        &self,
        offset: u64,
        load: impl FnOnce(&Mapped, usize) -> Result<[u8; N], WindowError>,
    ) -> Result<[u8; N], AccessError> {
        let at = self.check(offset, N as u64)?;
        match &self.0 {
            Reached::File { file, .. } => {
                let mut value = [0; N];
                let done = file.read_exact_at(&mut value, offset);
                done.map(|()| value).map_err(failed_at(offset, N))
            }
            Reached::Mapped(window) => {
                load(window, at).map_err(|error| failed_at(offset, N)(io::Error::other(error)))
            }
        }
    }

    fn write<const N: usize>(
        &self,
        offset: u64,
        value: [u8; N],
        store: impl FnOnce(&Mapped, usize) -> Result<(), WindowError>,
    ) -> Result<(), AccessError> {
        let at = self.check(offset, N as u64)?;
        match &self.0 {
            Reached::File { file, .. } => {
                let done = file.write_all_at(&value, offset);
                done.map_err(failed_at(offset, N))
            }
            Reached::Mapped(window) => {
                store(window, at).map_err(|error| failed_at(offset, N)(io::Error::other(error)))
            }
        }
    }
}

fn failed_at(offset: u64, bytes: usize) -> impl Fn(io::Error) -> AccessError {
    move |source| AccessError::Io {
        offset,
        bytes: bytes as u64,
        source,
    }
}

impl Registers for ResourceRegisters {
    fn len(&self) -> u64 {
        match &self.0 {
            Reached::File { len, .. } => *len,
            Reached::Mapped(window) => window.len() as u64,
        }
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        let load = |window: &Mapped, at| {
            let mut value = [0];
            Bytes::new(window, at, 1)?.copy_to(0, &mut value);
            Ok(value)
        };
        self.read(offset, load).map(u8::from_le_bytes)
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        let load = |window: &Mapped, at| {
            Ok(Field::<u16, _>::new(window, at)?
                .load(Relaxed)
                .to_le_bytes())
        };
        self.read(offset, load).map(u16::from_le_bytes)
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        let load = |window: &Mapped, at| {
            Ok(Field::<u32, _>::new(window, at)?
                .load(Relaxed)
                .to_le_bytes())
        };
        self.read(offset, load).map(u32::from_le_bytes)
    }

    fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError> {
        self.write(offset, [value], |window, at| {
            Bytes::new(window, at, 1)?.copy_from(0, &[value]);
            Ok(())
        })
    }

    fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError> {
        self.write(offset, value.to_le_bytes(), |window, at| {
            Field::<u16, _>::new(window, at)?.store(value, Relaxed);
            Ok(())
        })
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        self.write(offset, value.to_le_bytes(), |window, at| {
            Field::<u32, _>::new(window, at)?.store(value, Relaxed);
            Ok(())
        })
    }
}

#[cfg(test)]
#[cfg(not(miri))] // it maps no files
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A made-up function, with a BAR of registers and one of memory.
    fn function() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in [("config", 256), ("resource0", 256), ("resource2", 8192)] {
            let file = File::create(directory.path().join(name)).unwrap();
            file.set_len(bytes).unwrap();
        }
        let resources = "0x00000000febd5000 0x00000000febd50ff 0x0000000000040200\n\
                         0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                         0x0000008000000000 0x0000008000001fff 0x000000000014220c\n";
        std::fs::write(directory.path().join("resource"), resources).unwrap();
        std::fs::write(directory.path().join("enable"), "0\n").unwrap();
        directory
    }

    fn bar(index: u8) -> BarIndex {
        BarIndex::new(index).unwrap()
    }

    #[test]
    fn a_function_is_its_files() {
        let directory = function();
        let mut taken = ResourceFunction::at(directory.path().into()).unwrap();
        let file = |name| directory.path().join(name);
        assert_eq!(std::fs::read_to_string(file("enable")).unwrap(), "1");

        taken.set_bus_master(true).unwrap();
        let registers = taken.bar(bar(0)).unwrap();
        assert_eq!((registers.len(), taken.config().unwrap().len()), (256, 256));
        registers.write_u32(12, 0x0102_0304).unwrap();
        registers.write_u16(16, 0x0506).unwrap();
        registers.write_u8(18, 7).unwrap();
        assert_eq!(registers.read_u32(12).unwrap(), 0x0102_0304);
        assert_eq!(registers.read_u16(14).unwrap(), 0x0102);
        assert_eq!(registers.read_u8(15).unwrap(), 1);
        let bytes = std::fs::read(file("resource0")).unwrap();
        assert_eq!(bytes[12..19], [4, 3, 2, 1, 6, 5, 7]);
        assert_eq!(std::fs::read(file("config")).unwrap()[4], 4);
        taken.set_bus_master(false).unwrap();
        assert_eq!(std::fs::read(file("config")).unwrap()[4], 0);

        let memory = taken.map(bar(2), 4096, 4096, true).unwrap();
        assert_eq!(memory.memory_type(), MemoryType::Ordinary);
        Field::<u64, _>::new(&memory, 8).unwrap().store(42, Relaxed);
        assert_eq!(std::fs::read(file("resource2")).unwrap()[4104], 42);
    }

    #[test]
    fn a_bar_may_start_within_a_page() {
        let directory = function();
        let resources = "0x00000000febd5080 0x00000000febd50ff 0x0000000000040200\n";
        std::fs::write(directory.path().join("resource"), resources).unwrap();
        let taken = ResourceFunction::at(directory.path().into()).unwrap();
        taken.bar(bar(0)).unwrap().write_u32(12, 9).unwrap();
        let bytes = std::fs::read(directory.path().join("resource0")).unwrap();
        assert_eq!((bytes[12], bytes[0x8c]), (0, 9));
    }

    #[test]
    fn what_leaves_a_region_is_refused() {
        let directory = function();
        let taken = ResourceFunction::at(directory.path().into()).unwrap();
        for registers in [taken.config().unwrap(), taken.bar(bar(0)).unwrap()] {
            let len = registers.len();
            for offset in [len, len - 2, u64::MAX - 3] {
                let error = registers.read_u32(offset).unwrap_err();
                assert!(matches!(error, AccessError::OutOfBounds { .. }), "{error}");
            }
            let error = registers.write_u16(3, 0).unwrap_err();
            assert!(matches!(error, AccessError::Misaligned { .. }), "{error}");
        }
        for (offset, len) in [(0, 8193), (8192, 4096), (4096, u64::MAX), (0, 0)] {
            let error = taken.map(bar(2), offset, len, true).unwrap_err();
            assert!(matches!(error, FunctionError::Map { .. }), "{error}");
        }
        let error = taken.bar(bar(1)).unwrap_err();
        assert!(matches!(error, FunctionError::NoBar(_)), "{error}");
    }

    #[test]
    fn a_function_that_a_driver_has_is_left_alone() {
        let directory = function();
        symlink("/drivers/vfio-pci", directory.path().join("driver")).unwrap();
        let error = ResourceFunction::at(directory.path().into()).unwrap_err();
        assert!(error.to_string().contains("vfio-pci"), "{error}");
        let enable = std::fs::read_to_string(directory.path().join("enable")).unwrap();
        assert_eq!(enable, "0\n");
    }
}
