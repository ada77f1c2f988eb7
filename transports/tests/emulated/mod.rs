//! What the tests over an emulated virtio device share.
#![allow(
    dead_code,
    reason = "each test file is a crate of its own and uses a part"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::EventfdFlags;
use shmbus_transports::pci::DmaMemory;
use shmbus_transports::pci::emulated::{
    Blueprint, EmulatedDevice, EmulatedDma, EmulatedFunction, Lie,
};
use shmbus_transports::pci::virtio::{DeviceError, Patience, QueueSetup, VirtioPci};
use shmbus_virtio::{DeviceId, Features};

pub(crate) type Driver = VirtioPci<EmulatedFunction>;

/// Looks four times, without a pause.
pub(crate) const HASTY: Patience = Patience {
    polls: 4,
    pause: Duration::ZERO,
};

/// What every driver here accepts.
pub(crate) const BASIC: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM);

/// A network card's configuration: address, status, queue pairs, MTU.
pub(crate) const CONFIG: [u8; 12] = [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0xdc, 5];

/// An honest card with three queues and every feature that concerns the transport.
pub(crate) fn blueprint() -> Blueprint {
    let features = Features::NOTIFICATION_DATA
        | Features::NOTIF_CONFIG_DATA
        | Features::RING_RESET
        | Features::RING_PACKED
        | Features::EVENT_IDX
        // Of a device type that is yet to come.
        | Features::bit(100);
    Blueprint::new(DeviceId::NET, features, 3, &CONFIG)
}

/// A device and its driver, which has only opened it.
pub(crate) fn opened(blueprint: &Blueprint) -> (Driver, EmulatedDevice) {
    let (function, device) = blueprint.build(&EmulatedDma::new(1 << 20));
    let driver = VirtioPci::open_with(function, HASTY).unwrap();
    (driver, device)
}

/// The same, reset and with these features.
pub(crate) fn negotiated(blueprint: &Blueprint, features: Features) -> (Driver, EmulatedDevice) {
    let (mut driver, device) = opened(blueprint);
    driver.reset().unwrap();
    driver.negotiate(features).unwrap();
    (driver, device)
}

/// A queue of 64 entries, without a vector.
pub(crate) const SETUP: QueueSetup = QueueSetup {
    size: 64,
    descriptor_area: 0x1_2345_6000,
    driver_area: 0x2_3456_7000,
    device_area: 0x3_4567_8000,
    vector: None,
};

/// All that a driver does, as far as the device lets it: the driver, if the device could be opened, and what went
/// wrong.
pub(crate) fn life(
    function: EmulatedFunction,
    dma: &EmulatedDma,
    wanted: Features,
) -> (Option<Driver>, Result<(), DeviceError>) {
    match VirtioPci::open_with(function, HASTY) {
        Ok(mut driver) => {
            let result = begin(&mut driver, dma, wanted);
            (Some(driver), result)
        }
        Err(error) => (None, Err(error)),
    }
}

/// The same with a device that lets it.
pub(crate) fn started(function: EmulatedFunction, dma: &EmulatedDma) -> Driver {
    let (driver, result) = life(function, dma, BASIC);
    result.unwrap();
    driver.unwrap()
}

fn begin(driver: &mut Driver, dma: &EmulatedDma, wanted: Features) -> Result<(), DeviceError> {
    let bell = eventfd();
    driver.reset()?;
    driver.negotiate(wanted.choose(driver.offered()))?;
    driver.read_config(|config| {
        Ok((
            config.read_bytes::<6>(0)?,
            config.read_u16(6)?,
            config.read_u32(8)?,
        ))
    })?;
    driver.enable_vectors(&[bell.as_fd()])?;
    driver.set_config_vector(Some(0))?;
    let mut notifiers = Vec::new();
    for queue in 0..driver.queues().min(4) {
        let Some(maximum) = driver.queue_size(queue)? else {
            continue;
        };
        let memory = dma.allocate(1 << 16).unwrap();
        let setup = QueueSetup {
            size: maximum.min(64),
            descriptor_area: memory.address,
            driver_area: memory.address + 0x4000,
            device_area: memory.address + 0x8000,
            vector: Some(0),
        };
        notifiers.push(driver.enable_queue(queue, &setup)?);
    }
    driver.start()?;
    for notifier in &notifiers {
        notifier.notify(1)?;
    }
    driver.interrupt_status()?;
    if driver.features().contains(Features::RING_RESET) && !notifiers.is_empty() {
        driver.reset_queue(0)?;
        driver.enable_queue(0, &SETUP)?;
    }
    driver.check()
}

/// An eventfd that nobody has written to.
pub(crate) fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

/// A driver that has only opened a device that lies from then on.
pub(crate) fn opened_by(blueprint: &Blueprint, lie: Lie) -> (Driver, EmulatedDevice) {
    let (driver, device) = opened(blueprint);
    device.lie(lie);
    (driver, device)
}
