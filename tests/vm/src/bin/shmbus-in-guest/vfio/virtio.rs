//! A virtio device that is given a wrong address: the driver learns of it, and memory stays as it is.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use shmbus_shm::{Field, Mapped};
use shmbus_signal::os::Waiter;
use shmbus_transports::pci::virtio::{DeviceError, QueueSetup, VirtioPci};
use shmbus_transports::pci::{Address, BarIndex, DmaMemory, FunctionError, Registers};
use shmbus_virtio::Features;

use super::{Checked, Passed, ensure, ensure_full_of, fill};

/// A network device's first transmit queue.
const TRANSMIT: u16 = 1;
const SIZE: u16 = 4;
/// Where a split queue's areas are in one region.
const DRIVER_AREA: u64 = 0x400;
const DEVICE_AREA: u64 = 0x800;

/// Where QEMU has its virtio devices' status.
const STATUS_BAR: u8 = 4;
const STATUS: u64 = 20;

/// A descriptor's flag: another one follows.
const NEXT: u32 = 1;

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run<F: Passed>(address: Address) -> Checked {
    let mut function = F::open(address)?;
    reset(&mut function)?;
    let vectors = function.vectors();
    ensure(vectors >= 3, format!("{vectors} vectors"))?;
    let waiter = Waiter::new()?;
    let many = vec![waiter.as_fd(); usize::from(vectors) + 1];
    let refused = function.enable_vectors(&many);
    ensure(
        matches!(refused, Err(FunctionError::Vectors { found, .. }) if found == vectors),
        format!("{refused:?}"),
    )?;
    let memory = function.memory().clone();

    let mut device = VirtioPci::open(function)?;
    device.reset()?;
    device.negotiate(Features::VERSION_1 | Features::ACCESS_PLATFORM)?;
    device.enable_vectors(&[waiter.as_fd()])?;
    device.set_config_vector(Some(0))?;
    let (rings, buffer) = (memory.allocate(4096)?, memory.allocate(4096)?);
    let setup = QueueSetup {
        size: SIZE,
        descriptor_area: rings.address,
        driver_area: rings.address + DRIVER_AREA,
        device_area: rings.address + DEVICE_AREA,
        vector: None,
    };
    let notifier = device.enable_queue(TRANSMIT, &setup)?;
    device.start()?;
    fill(&buffer.window, 0x5a)?;

    describe(&rings.window, 0, buffer.address, 72, None)?;
    make_available(&rings.window, 0)?;
    notifier.notify(1)?;
    let used = Field::<u16, _>::new(&rings.window, DEVICE_AREA as usize + 2)?;
    let sent = (0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        used.load(Relaxed) == 1
    });
    ensure(sent, "a good frame is not sent")?;
    device.check()?;

    let wrong = buffer.address + 4096;
    println!("fault at {wrong:#x}");
    // QEMU reads zeros from one address that it cannot access, but not from as many as this.
    describe(&rings.window, 1, wrong, 4096, Some(2))?;
    describe(&rings.window, 2, wrong, 4096, None)?;
    make_available(&rings.window, 1)?;
    notifier.notify(2)?;
    ensure(waiter.wait(Some(PATIENCE))?, "the device does not complain")?;
    let fault = device.check();
    ensure(
        matches!(fault, Err(DeviceError::NeedsReset { .. })),
        format!("{fault:?}"),
    )?;
    let latched = device.check();
    ensure(
        matches!(latched, Err(DeviceError::Latched { .. })),
        format!("{latched:?}"),
    )?;
    ensure(used.load(Relaxed) == 1, "the wrong frame is used")?;
    ensure_full_of(&buffer.window, 0x5a, "the right frame")?;
    // A reset recovers it.
    device.reset()?;
    device.check()?;
    device.finish()?;
    Ok(())
}

/// Behind a port, a function has a reset of its own, which a device's status does not survive.
fn reset<F: Passed>(function: &mut F) -> Checked {
    let bar = BarIndex::new(STATUS_BAR).ok_or("no such BAR")?;
    let registers = function.bar(bar)?;
    registers.write_u8(STATUS, 1)?;
    let before = registers.read_u8(STATUS)?;
    function.reset()?;
    let after = registers.read_u8(STATUS)?;
    ensure(
        (before, after) == (1, 0),
        format!("status {before}, then {after}"),
    )
}

/// Writes descriptor number `number`: `bytes` bytes at `address` that the device is to read, and what follows them.
fn describe(rings: &Mapped, number: u16, address: u64, bytes: u32, next: Option<u16>) -> Checked {
    let descriptor = usize::from(number) * 16;
    let flags_and_next = next.map_or(0, |next| NEXT | u32::from(next) << 16);
    Field::<u64, _>::new(rings, descriptor)?.store(address, Relaxed);
    Field::<u32, _>::new(rings, descriptor + 8)?.store(bytes, Relaxed);
    Field::<u32, _>::new(rings, descriptor + 12)?.store(flags_and_next, Relaxed);
    Ok(())
}

/// Makes frame number `number` available, which begins with the descriptor of that number.
fn make_available(rings: &Mapped, number: u16) -> Checked {
    let entry = DRIVER_AREA as usize + 4 + usize::from(number) * 2;
    Field::<u16, _>::new(rings, entry)?.store(number, Relaxed);
    let index = Field::<u16, _>::new(rings, DRIVER_AREA as usize + 2)?;
    index.fence(SeqCst);
    index.store(number + 1, Relaxed);
    index.fence(SeqCst);
    Ok(())
}
