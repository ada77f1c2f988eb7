//! A virtio device whose registers lie. Each lie is a typed error; the work is bounded, nothing outside is accessed,
//! and a reset makes all well again once the device is honest.

mod emulated;

use std::os::fd::AsFd;

use emulated::{
    BASIC, Driver, SETUP, blueprint, eventfd, life, negotiated, opened, opened_by, started,
};
use proptest::prelude::*;
use shmbus_transports::pci::emulated::CommonRegister as R;
use shmbus_transports::pci::emulated::{Blueprint, Claim, EmulatedDma, Lie, lies};
use shmbus_transports::pci::virtio::{DeviceError, QueueSetup};
use shmbus_virtio::Features;

/// What becomes of a device whose features are negotiated, and which lies from then on; and it recovers.
fn lied_to(
    blueprint: &Blueprint,
    lie: Lie,
    work: impl Fn(&mut Driver) -> Result<(), DeviceError>,
) -> DeviceError {
    let all =
        BASIC | Features::RING_RESET | Features::NOTIF_CONFIG_DATA | Features::NOTIFICATION_DATA;
    let (mut driver, device) = negotiated(blueprint, all);
    device.lie(lie);
    let error = work(&mut driver).unwrap_err();
    assert!(device.accesses() < 1000);
    assert_eq!(device.strayed(), 0);
    if error.is_fault() {
        let again = driver.check().unwrap_err();
        let fault = error.to_string();
        assert!(
            matches!(&again, DeviceError::Latched { fault: first } if *first == fault),
            "{again}"
        );
    }
    device.stop_lying();
    driver.reset().unwrap();
    driver.negotiate(all).unwrap();
    error
}

#[test]
fn what_registers_say_is_checked_and_faults_stay() {
    let enable = |driver: &mut Driver| driver.enable_queue(1, &SETUP).map(drop);
    let with_vector = |driver: &mut Driver| {
        let bells = [eventfd(), eventfd()];
        driver.enable_vectors(&[bells[0].as_fd(), bells[1].as_fd()])?;
        let vector = Some(1);
        driver
            .enable_queue(1, &QueueSetup { vector, ..SETUP })
            .map(drop)
    };
    let with_config_vector = |driver: &mut Driver| {
        driver.enable_vectors(&[eventfd().as_fd()])?;
        driver.set_config_vector(Some(0))
    };
    let reset_queue = |driver: &mut Driver| {
        driver.enable_queue(1, &SETUP)?;
        driver.start()?;
        driver.reset_queue(1)
    };
    let check = |driver: &mut Driver| driver.check();
    let configuration =
        |driver: &mut Driver| driver.read_config(|config| config.read_u16(6)).map(drop);
    type Work<'a> = &'a dyn Fn(&mut Driver) -> Result<(), DeviceError>;
    // `queue_enable` is read before and behind what enables it.
    let forgets = |good: u32| {
        let mut reads = 0;
        lies::changed(R::QueueEnable, move |honest| {
            reads += 1;
            if reads > good { 1 - honest } else { honest }
        })
    };
    let not_kept = || {
        let mut reads = 0;
        lies::changed(R::QueueSize, move |_| {
            reads += 1;
            if reads == 1 { 256 } else { 128 }
        })
    };
    let cases: [(Lie, Work<'_>, &str); 20] = [
        (
            lies::stuck(R::QueueSize, 0),
            &enable,
            "queue 1 is unavailable: its size reads as 0",
        ),
        (
            lies::stuck(R::QueueSize, 100),
            &enable,
            "queue 1: a size of at most 32768, a power of 2, was expected, 100 found",
        ),
        (
            lies::stuck(R::QueueSize, 0xffff),
            &enable,
            "queue 1: a size of at most 32768, a power of 2, was expected, 65535 found",
        ),
        (
            not_kept(),
            &enable,
            "queue 1: its queue_size should read as 64, and reads as 128",
        ),
        (
            forgets(0),
            &enable,
            "queue 1: its queue_enable should read as 0, and reads as 1",
        ),
        (
            forgets(1),
            &enable,
            "queue 1: its queue_enable should read as 1, and reads as 0",
        ),
        (
            lies::stuck(R::QueueNotifyOff, 0x400),
            &enable,
            "queue 1: 4 aligned bytes inside a notification structure of 0x1000 were expected, its notify address is at 0x1000",
        ),
        (
            lies::stuck(R::QueueNotifyOff, 0xffff),
            &enable,
            "queue 1: 4 aligned bytes inside a notification structure of 0x1000 were expected, its notify address is at 0x3fffc",
        ),
        (
            lies::stuck(R::QueueVector, 0xffff),
            &with_vector,
            "the device refuses vector 1 for queue 1",
        ),
        (
            lies::stuck(R::QueueVector, 0),
            &with_vector,
            "vector 0x1 was written for queue 1, and 0x0 is read",
        ),
        (
            lies::stuck(R::QueueVector, 0),
            &enable,
            "vector 0xffff was written for queue 1, and 0x0 is read",
        ),
        (
            lies::stuck(R::ConfigVector, 0xffff),
            &with_config_vector,
            "the device refuses vector 0 for configuration changes",
        ),
        (
            lies::stuck(R::ConfigVector, 3),
            &with_config_vector,
            "vector 0x0 was written for configuration changes, and 0x3 is read",
        ),
        (
            lies::stuck(R::QueueReset, 1),
            &reset_queue,
            "queue 1: its reset was not finished when it was looked at 4 times",
        ),
        (
            forgets(2),
            &reset_queue,
            "queue 1: its queue_enable should read as 0, and reads as 1",
        ),
        (
            lies::restless(),
            &configuration,
            "the device's configuration changed during each of 64 reads",
        ),
        (
            lies::gone(),
            &check,
            "the device is gone: its status reads as 0xff",
        ),
        (
            lies::stuck(R::DeviceStatus, 0x4f),
            &check,
            "the device asks for a reset: its status is DeviceStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | \
             DEVICE_NEEDS_RESET)",
        ),
        (
            lies::stuck(R::DeviceStatus, 0),
            &check,
            "a device status of DeviceStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK) was expected, DeviceStatus(0x0) found",
        ),
        (
            lies::stuck(R::DeviceStatus, 15),
            &|driver| driver.reset(),
            "after a reset a device status of 0 was expected, 0x0f found 4 times",
        ),
    ];
    for (lie, work, said) in cases {
        assert_eq!(lied_to(&blueprint(), lie, work).to_string(), said);
    }
}

#[test]
fn features_are_asked_for_once_and_refused_with_reason() {
    // Another set at each read; what was read first counts.
    let mut reads = 0;
    let changing = lies::changed(R::DeviceFeature, move |honest| {
        reads += 1;
        if reads > 4 { 0 } else { honest }
    });
    let (mut driver, _) = opened_by(&blueprint(), changing);
    driver.reset().unwrap();
    driver.negotiate(BASIC).unwrap();
    assert_eq!(driver.features(), BASIC);

    for (feature, said) in [
        (
            Features::VERSION_1,
            "VERSION_1 is needed, and is not offered by the device",
        ),
        (
            Features::ACCESS_PLATFORM,
            "ACCESS_PLATFORM is needed, and is not offered by the device",
        ),
    ] {
        let mut blueprint = blueprint();
        blueprint.features = BASIC - feature;
        let (mut driver, _) = opened(&blueprint);
        driver.reset().unwrap();
        let accepted = driver.offered() & BASIC & Features::VERSION_1;
        assert_eq!(driver.negotiate(accepted).unwrap_err().to_string(), said);
    }

    let keeps_quiet = lies::changed(R::DeviceStatus, |honest| honest & !8);
    let (mut driver, _) = opened_by(&blueprint(), keeps_quiet);
    driver.reset().unwrap();
    let refused = driver.negotiate(BASIC).unwrap_err();
    assert!(
        matches!(refused, DeviceError::FeaturesRefused { accepted, .. } if accepted == BASIC.bits()),
        "{refused}"
    );

    // Structures have what features need.
    let mut blueprint = blueprint();
    blueprint.claim(Claim::COMMON).len = 56;
    for (feature, said) in [
        (
            Features::NOTIF_CONFIG_DATA,
            "the common configuration: 58 bytes were expected, 56 found",
        ),
        (
            Features::RING_RESET,
            "the common configuration: 60 bytes were expected, 56 found",
        ),
    ] {
        let (mut driver, _) = opened(&blueprint);
        driver.reset().unwrap();
        let refused = driver.negotiate(BASIC | feature).unwrap_err();
        assert_eq!(refused.to_string(), said);
        driver.negotiate(BASIC).unwrap();
    }

    // A queue of two bytes' room is not notified with four; nor one at a crooked place.
    for change in [|c: &mut Claim| c.len = 2, |c: &mut Claim| c.offset += 2] {
        let mut blueprint = self::blueprint();
        blueprint.claim(Claim::NOTIFY).len -= 0x10;
        change(blueprint.claim(Claim::NOTIFY));
        let (mut driver, _) = negotiated(&blueprint, BASIC);
        driver.enable_queue(0, &SETUP).unwrap();
        let (mut driver, _) = negotiated(&blueprint, BASIC | Features::NOTIFICATION_DATA);
        let refused = driver.enable_queue(0, &SETUP).unwrap_err();
        assert!(
            matches!(
                refused,
                DeviceError::NotifyAddress {
                    queue: 0,
                    width: 4,
                    ..
                }
            ),
            "{refused}"
        );
    }
}

#[test]
fn a_device_that_was_reset_behind_the_drivers_back_is_noticed() {
    let dma = EmulatedDma::new(1 << 20);
    let (function, device) = blueprint().build(&dma);
    let mut driver = started(function, &dma);
    device.ask_for_reset();
    assert!(matches!(
        driver.check(),
        Err(DeviceError::NeedsReset { .. })
    ));
    assert!(
        device.status().bits() & 128 != 0,
        "it is told that it has been given up"
    );
    assert!(matches!(driver.start(), Err(DeviceError::Latched { .. })));
    driver.reset().unwrap();
    assert!(!device.is_bus_master());
}

proptest! {
    /// Registers read as anything, all of them or some, from the first moment on.
    #[test]
    fn no_device_makes_its_driver_panic_hang_or_stray(
        seed: u64,
        one_in in prop::sample::select(vec![1, 2, 5, 20, 100, 1000]),
        packed: bool,
        data: bool,
    ) {
        let mut wanted = BASIC | Features::RING_RESET;
        wanted.set(Features::RING_PACKED, packed);
        wanted.set(Features::NOTIFICATION_DATA | Features::NOTIF_CONFIG_DATA, data);
        let dma = EmulatedDma::new(1 << 20);
        let (function, device) = blueprint().build(&dma);
        device.lie(lies::random(seed, one_in));
        let (driver, result) = life(function, &dma, wanted);
        prop_assert!(device.accesses() < 5_000, "{}", device.accesses());
        prop_assert_eq!(device.strayed(), 0);
        if let (Some(mut driver), Err(error)) = (driver, result) {
            let latched = matches!(driver.check(), Err(DeviceError::Latched { .. }));
            prop_assert!(latched || !error.is_fault(), "{}", error);
        }
        prop_assert!(!device.is_bus_master());
        prop_assert_eq!(device.eventfds(), 0);
        prop_assert!(device.accesses() < 10_000);
        prop_assert_eq!(device.strayed(), 0);
    }
}
