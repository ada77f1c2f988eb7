//! PCI functions in a guest, each test over both crates that open them.

mod check;
mod edu;
mod limits;
mod measure;
mod safety;
mod together;
mod virtio;

use std::error::Error;
use std::fmt::{Debug, Display};

use shmbus_shm::{Bytes, Mapped, Window};
use shmbus_transports::pci::{Address, BarIndex, Function, FunctionError};
use shmbus_transports::vfio::{Container, Memory, OpenError, PciDriverFunction, VfioFunction};

/// What a test says.
type Checked<T = ()> = Result<T, Box<dyn Error>>;

/// A function that one of the crates opens.
trait Passed: Function<Registers: Debug> + Sized {
    /// The crate's name.
    const CRATE: &'static str;

    fn open(address: Address) -> Result<Self, OpenError>;
    fn memory(&self) -> &Memory;
    fn unmapped_bar(&self, bar: BarIndex) -> Result<Self::Registers, FunctionError>;
    fn are_mapped(registers: &Self::Registers) -> bool;
}

impl Passed for VfioFunction {
    const CRATE: &'static str = "vfio-ioctls";

    fn open(address: Address) -> Result<Self, OpenError> {
        Container::new()?.open(address)
    }

    fn memory(&self) -> &Memory {
        self.memory()
    }

    fn unmapped_bar(&self, bar: BarIndex) -> Result<Self::Registers, FunctionError> {
        self.unmapped_bar(bar)
    }

    fn are_mapped(registers: &Self::Registers) -> bool {
        registers.are_mapped()
    }
}

impl Passed for PciDriverFunction {
    const CRATE: &'static str = "pci-driver";

    fn open(address: Address) -> Result<Self, OpenError> {
        Self::open(address)
    }

    fn memory(&self) -> &Memory {
        self.memory()
    }

    fn unmapped_bar(&self, bar: BarIndex) -> Result<Self::Registers, FunctionError> {
        self.unmapped_bar(bar)
    }

    fn are_mapped(registers: &Self::Registers) -> bool {
        registers.are_mapped()
    }
}

/// Runs a test on the function at an address, over one of the crates.
pub(crate) fn run(arguments: &[&str]) -> Checked {
    match arguments {
        ["measure", address] => measure::run(address.parse()?),
        ["together", edu, other] => together::run(edu.parse()?, other.parse()?),
        [test, VfioFunction::CRATE, address] => run_over::<VfioFunction>(test, address),
        [test, PciDriverFunction::CRATE, address] => run_over::<PciDriverFunction>(test, address),
        _ => Err("a test, a crate and an address are expected".into()),
    }
}

fn run_over<F: Passed>(test: &str, address: &str) -> Checked {
    let address = address.parse()?;
    match test {
        "check" => check::run::<F>(address),
        "safety" => safety::run::<F>(address),
        "mappings" => limits::mappings::<F>(address),
        "locked" => limits::locked::<F>(address),
        "virtio" => virtio::run::<F>(address),
        other => Err(format!("no such test: {other}").into()),
    }
}

/// An error unless something holds.
fn ensure(holds: bool, what: impl Display) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(what.to_string().into())
    }
}

fn bar_0() -> Checked<BarIndex> {
    Ok(BarIndex::new(0).ok_or("no BAR 0")?)
}

/// Fills a window with one byte.
fn fill(window: &Mapped, byte: u8) -> Checked {
    let bytes = vec![byte; window.len()];
    Bytes::new(window, 0, bytes.len())?.copy_from(0, &bytes);
    Ok(())
}

/// What a window holds.
fn contents(window: &Mapped) -> Checked<Vec<u8>> {
    let mut bytes = vec![0; window.len()];
    Bytes::new(window, 0, bytes.len())?.copy_to(0, &mut bytes);
    Ok(bytes)
}

/// Checks that a window holds one byte throughout.
fn ensure_full_of(window: &Mapped, byte: u8, what: &str) -> Checked {
    let found = contents(window)?;
    let wrong = found.iter().position(|found| *found != byte);
    match wrong {
        None => Ok(()),
        Some(at) => Err(format!("{what}: {:#04x} at {at:#x}, not {byte:#04x}", found[at]).into()),
    }
}
