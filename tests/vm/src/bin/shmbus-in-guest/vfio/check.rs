//! What a function gives: registers, mapped BARs, interrupts, memory, reset.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shmbus_shm::{Access, Field, SharedMemory, Window, Writers};
use shmbus_signal::os::Waiter;
use shmbus_transports::bounce::{Bounce, Direction};
use shmbus_transports::pci::{
    AccessError, Address, BarIndex, DmaError, DmaMemory, FunctionError, Registers,
};
use shmbus_transports::vfio::OpenError;

use super::edu::{Edu, IDENTITY, LIVENESS, RAISE};
use super::{Checked, Passed, bar_0, contents, ensure, ensure_full_of, fill};

const COMMAND: u64 = 4;
const IDENTIFICATION: u32 = 0x0100_00ed;

pub(super) fn run<F: Passed>(address: Address) -> Checked {
    let mut edu = Edu::<F>::open(address)?;
    let busy = F::open(address).err();
    ensure(
        matches!(busy, Some(OpenError::GroupBusy { .. })),
        format!("opened twice: {busy:?}"),
    )?;
    registers(&edu)?;
    mapped(&edu)?;
    interrupts(&mut edu)?;
    memory(&edu)?;
    bounced(&edu)?;
    reset(&mut edu)
}

fn registers<F: Passed>(edu: &Edu<F>) -> Checked {
    let unmapped = edu.function.unmapped_bar(bar_0()?)?;
    ensure(F::are_mapped(&edu.registers), "the BAR is not mapped")?;
    ensure(!F::are_mapped(&unmapped), "the BAR is mapped")?;
    for (registers, value) in [(&edu.registers, 0x1234_5678), (&unmapped, 0x8765_4321)] {
        ensure(
            registers.len() == 1 << 20,
            format!("{} bytes", registers.len()),
        )?;
        let found = registers.read_u32(IDENTITY)?;
        ensure(found == IDENTIFICATION, format!("identity {found:#x}"))?;
        registers.write_u32(LIVENESS, value)?;
        let found = registers.read_u32(LIVENESS)?;
        ensure(found == !value, format!("{value:#x} became {found:#x}"))?;
        let outside = registers.read_u32(1 << 20);
        ensure(
            matches!(outside, Err(AccessError::OutOfBounds { .. })),
            "read outside",
        )?;
        let outside = registers.write_u16(u64::MAX - 1, 0);
        ensure(
            matches!(outside, Err(AccessError::OutOfBounds { .. })),
            "written outside",
        )?;
        let crooked = registers.read_u32(2);
        ensure(
            matches!(crooked, Err(AccessError::Misaligned { .. })),
            "read misaligned",
        )?;
    }
    let none = BarIndex::new(5).map(|bar| edu.function.bar(bar));
    ensure(
        matches!(none, Some(Err(FunctionError::NoBar(_)))),
        "there is a BAR 5",
    )?;

    let config = edu.function.config()?;
    let identity = (config.read_u16(0)?, config.read_u16(2)?);
    ensure(identity == (0x1234, 0x11e8), format!("{identity:x?}"))?;
    // Without its memory space, the next access to the mapped BAR would end this process.
    let command = config.read_u16(COMMAND)?;
    config.write_u16(COMMAND, 0)?;
    ensure(
        edu.registers.read_u32(IDENTITY)? == IDENTIFICATION,
        "no memory space",
    )?;
    let [low, high] = command.to_le_bytes();
    config.write_u8(COMMAND, low)?;
    config.write_u8(COMMAND + 1, high)?;
    let found = config.read_u16(COMMAND)?;
    ensure(
        found == command,
        format!("command {found:#x}, not {command:#x}"),
    )?;
    Ok(())
}

fn mapped<F: Passed>(edu: &Edu<F>) -> Checked {
    let window = edu.function.map(bar_0()?, 0, 4096, false)?;
    let found = Field::<u32, _>::new(&window, IDENTITY as usize)?.load(Relaxed);
    ensure(found == IDENTIFICATION, format!("identity {found:#x}"))?;
    for (offset, len) in [(0, 2 << 20), (1 << 20, 4096), (0, 0), (u64::MAX, 4096)] {
        let outside = edu.function.map(bar_0()?, offset, len, false);
        ensure(
            matches!(outside, Err(FunctionError::NotMappable { .. })),
            format!("mapped {offset:#x} {len:#x}"),
        )?;
    }
    Ok(())
}

fn interrupts<F: Passed>(edu: &mut Edu<F>) -> Checked {
    // It has MSI, and no MSI-X.
    let vectors = edu.function.vectors();
    ensure(vectors == 1, format!("{vectors} vectors"))?;
    edu.registers.write_u32(RAISE, 5)?;
    let why = edu.interrupt()?;
    ensure(why == 5, format!("an interrupt for {why:#x}"))?;
    let other = Waiter::new()?;
    let both = edu
        .function
        .enable_vectors(&[edu.waiter.as_fd(), other.as_fd()]);
    ensure(
        matches!(
            both,
            Err(FunctionError::Vectors {
                wanted: 2,
                found: 1
            })
        ),
        "two vectors",
    )?;
    edu.function.disable_vectors()?;
    edu.function.disable_vectors()?;
    edu.registers.write_u32(RAISE, 1)?;
    let rung = edu.waiter.wait(Some(Duration::from_millis(200)))?;
    ensure(!rung, "an interrupt that is disabled")?;
    edu.registers.write_u32(super::edu::ACKNOWLEDGE, 1)?;
    edu.function.enable_vectors(&[other.as_fd()])?;
    edu.waiter = other;
    edu.registers.write_u32(RAISE, 2)?;
    let why = edu.interrupt()?;
    ensure(why == 2, format!("an interrupt for {why:#x}"))
}

fn memory<F: Passed>(edu: &Edu<F>) -> Checked {
    let memory = edu.function.memory();
    let ours = SharedMemory::create("ours", 4096, Writers::Creator)?;
    let fd = ours.as_fd().try_clone_to_owned()?;
    let read_only = SharedMemory::from_peer(fd, 4096, Access::Read)?;
    let refused = memory.map(read_only.window());
    ensure(
        matches!(refused, Err(DmaError::System { .. })),
        format!("{refused:?}"),
    )?;

    let (from, to) = (memory.allocate(4096)?, memory.allocate(8192)?);
    fill(&from.window, 0x5a)?;
    fill(&to.window, 0xff)?;
    edu.read_memory(from.address, 2048)?;
    edu.write_memory(to.address + 4096, 2048)?;
    let found = contents(&to.window)?;
    let expected = [[0xff; 4096], [0x5a; 4096]].concat();
    ensure(found[..6144] == expected[..6144], "other bytes")?;
    ensure_full_of(
        &to.window.narrow(6144, 2048)?,
        0xff,
        "behind what was written",
    )
}

/// What the function reads and writes are copies in a pool.
fn bounced<F: Passed>(edu: &Edu<F>) -> Checked {
    let pool = Bounce::new(edu.function.memory(), 16 << 10)?;
    let written: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let mut read = vec![0; written.len()];
    let from = pool.share(&written, Direction::ToDevice)?;
    let to = pool.share(&read, Direction::FromDevice)?;
    edu.read_memory(from, 1000)?;
    edu.write_memory(to, 1000)?;
    ensure(read.iter().all(|byte| *byte == 0), "not a copy")?;
    pool.unshare(to, &mut read)?;
    ensure(read == written, "other bytes")
}

/// A conventional function on the root bus may have no reset of its own; then that is an error and not only logged.
fn reset<F: Passed>(edu: &mut Edu<F>) -> Checked {
    match edu.function.reset() {
        Ok(()) => println!("reset: done"),
        Err(error @ FunctionError::System { .. }) => println!("reset: {error}"),
        Err(error) => return Err(error.into()),
    }
    let found = edu.registers.read_u32(IDENTITY)?;
    ensure(found == IDENTIFICATION, format!("identity {found:#x}"))
}
