//! QEMU's device `edu` (its docs/specs/edu.rst): registers, an interrupt that a register raises, and DMA of a buffer of its own.

use std::os::fd::AsFd;
use std::time::Duration;

use shmbus_signal::os::Waiter;
use shmbus_transports::pci::{Address, Registers};

use super::{Checked, Passed, bar_0, ensure};

/// What it is, and its version.
pub(super) const IDENTITY: u64 = 0;
/// Reads as the complement of what was written.
pub(super) const LIVENESS: u64 = 4;
/// Why it interrupts.
const INTERRUPTS: u64 = 0x24;
/// Raises interrupts.
pub(super) const RAISE: u64 = 0x60;
/// Acknowledges them.
pub(super) const ACKNOWLEDGE: u64 = 0x64;
const DMA_FROM: u64 = 0x80;
const DMA_TO: u64 = 0x88;
const DMA_BYTES: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;

const START: u32 = 1;
const TO_MEMORY: u32 = 2;
const INTERRUPT: u32 = 4;

/// Where its buffer of 4096 bytes is, among the addresses that DMA knows.
const BUFFER: u32 = 0x4_0000;
/// How it says that DMA is done.
const DMA_DONE: u32 = 0x100;
/// It waits a tenth of a second before it begins.
pub(super) const DMA_TIME: Duration = Duration::from_millis(500);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The device, open and enabled.
pub(super) struct Edu<F: Passed> {
    pub(super) function: F,
    pub(super) registers: F::Registers,
    pub(super) waiter: Waiter,
}

impl<F: Passed> Edu<F> {
    pub(super) fn open(address: Address) -> Checked<Self> {
        Self::over(F::open(address)?)
    }

    pub(super) fn over(mut function: F) -> Checked<Self> {
        let registers = function.bar(bar_0()?)?;
        let waiter = Waiter::new()?;
        function.enable_vectors(&[waiter.as_fd()])?;
        function.set_bus_master(true)?;
        Ok(Self {
            function,
            registers,
            waiter,
        })
    }

    /// Waits for an interrupt, acknowledges it, and says what it was for.
    pub(super) fn interrupt(&self) -> Checked<u32> {
        ensure(self.waiter.wait(Some(PATIENCE))?, "no interrupt")?;
        let why = self.registers.read_u32(INTERRUPTS)?;
        self.registers.write_u32(ACKNOWLEDGE, why)?;
        Ok(why)
    }

    /// Reads memory into its buffer.
    pub(super) fn read_memory(&self, address: u64, bytes: u32) -> Checked {
        self.start(u32::try_from(address)?, BUFFER, bytes, INTERRUPT)?;
        let why = self.interrupt()?;
        ensure(why == DMA_DONE, format!("an interrupt for {why:#x}"))
    }

    /// Writes its buffer to memory.
    pub(super) fn write_memory(&self, address: u64, bytes: u32) -> Checked {
        self.start_to_write_memory(address, bytes)?;
        let why = self.interrupt()?;
        ensure(why == DMA_DONE, format!("an interrupt for {why:#x}"))
    }

    /// The same, without waiting for it.
    pub(super) fn start_to_write_memory(&self, address: u64, bytes: u32) -> Checked {
        let to = u32::try_from(address)?;
        self.start(BUFFER, to, bytes, TO_MEMORY | INTERRUPT)
    }

    fn start(&self, from: u32, to: u32, bytes: u32, command: u32) -> Checked {
        // A transfer of the whole buffer is too long to its mind.
        ensure(bytes < 4096, "too many bytes")?;
        self.registers.write_u32(DMA_FROM, from)?;
        self.registers.write_u32(DMA_TO, to)?;
        self.registers.write_u32(DMA_BYTES, bytes)?;
        self.registers.write_u32(DMA_COMMAND, START | command)?;
        Ok(())
    }
}
