//! The life of an honest virtio device under its driver.

mod emulated;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use emulated::{BASIC, SETUP, blueprint, eventfd, negotiated, opened, started};
use rustix::io::{Errno, read};
use shmbus_shm::{Field, Window};
use shmbus_signal::os::Wake;
use shmbus_transports::pci::emulated::{Claim, CommonRegister, EmulatedDma, Notification, lies};
use shmbus_transports::pci::virtio::{
    DeviceError, InterruptStatus, QueueSetup, StructureKind, VirtioCapability, device_id,
};
use shmbus_transports::pci::{
    AccessError, Bar, BarIndex, BarSpace, Capability, DmaMemory, Function, FunctionError, Header,
    Msix,
};
use shmbus_virtio::{DeviceId, DeviceStatus, FeatureError, Features};

/// Whether an eventfd has been written to since the last time.
fn rang(fd: impl AsFd) -> bool {
    let mut count = [0; 8];
    match read(fd, &mut count) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, Errno::AGAIN);
            false
        }
    }
}

/// QEMU's network card: the queues of all pairs are there once MQ is negotiated.
#[test]
fn queues_may_be_more_once_features_are_negotiated() {
    let (mut driver, device) = opened(&blueprint());
    let mut reads = 0;
    device.lie(lies::changed(CommonRegister::NumQueues, move |honest| {
        reads += 1;
        if reads == 1 { 1 } else { honest }
    }));
    driver.reset().unwrap();
    assert_eq!(driver.queues(), 1);
    driver.negotiate(BASIC).unwrap();
    assert_eq!(driver.queues(), 3);
    assert_eq!(driver.queue_size(2).unwrap(), Some(256));
}

#[test]
fn a_device_is_walked_through_its_life() {
    let (mut driver, device) = opened(&blueprint());
    assert_eq!(driver.id(), DeviceId::NET);
    assert_eq!(driver.available_vectors(), 4);
    assert_eq!(
        device.status(),
        DeviceStatus::empty(),
        "it is only looked at"
    );

    driver.reset().unwrap();
    assert!(!device.is_bus_master(), "it has no memory to access yet");
    let acknowledged = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    assert_eq!(device.status(), acknowledged);
    assert_eq!(driver.queues(), 3);
    assert_eq!(driver.offered(), blueprint().features, "all 128 bits");

    let accepted = BASIC | Features::EVENT_IDX | Features::bit(100);
    driver.negotiate(accepted).unwrap();
    assert_eq!(device.features(), accepted);
    assert_eq!(driver.queue_size(2).unwrap(), Some(256));

    let bells = [eventfd(), eventfd()];
    driver
        .enable_vectors(&[bells[0].as_fd(), bells[1].as_fd()])
        .unwrap();
    driver.set_config_vector(Some(0)).unwrap();
    let setup = QueueSetup {
        vector: Some(1),
        ..SETUP
    };
    let notifier = driver.enable_queue(2, &setup).unwrap();
    driver.start().unwrap();
    assert!(device.status().contains(DeviceStatus::DRIVER_OK));

    let queue = device.queue(2).unwrap();
    assert_eq!(queue.size, 64);
    assert_eq!(queue.descriptor_area, SETUP.descriptor_area);
    assert_eq!(queue.driver_area, SETUP.driver_area);
    assert_eq!(queue.device_area, SETUP.device_area);
    assert_eq!(device.queue(1), None);

    notifier.wake().unwrap();
    assert_eq!(device.take_notifications().len(), 1);
    assert!(device.signal_queue(2).unwrap());
    assert!(rang(&bells[1]) && !rang(&bells[0]));
    assert!(device.change_config(|config| config[6] = 0).unwrap());
    assert!(rang(&bells[0]) && !rang(&bells[1]));
    assert_eq!(driver.read_config(|config| config.read_u16(6)).unwrap(), 0);

    driver.finish().unwrap();
    assert_eq!(device.status(), DeviceStatus::empty());
    assert!(!device.is_bus_master());
    assert_eq!(device.eventfds(), 0);
    assert_eq!(device.function_resets(), 0);
    assert_eq!(device.breaches(), [""; 0]);
    assert_eq!(device.strayed(), 0);
}

#[test]
fn a_queue_is_notified_where_and_as_was_negotiated() {
    let data = Features::NOTIFICATION_DATA;
    let named = Features::NOTIF_CONFIG_DATA;
    for (notify_off, multiplier, features, offset, value, width) in [
        (2, 4, BASIC, 8, 2, 2),
        (2, 0, BASIC, 0, 2, 2),
        (2, 2, BASIC, 4, 2, 2),
        (2, 4, BASIC | data, 8, 0x8003_0002, 4),
        (2, 0x400, BASIC | named, 0x800, 0x102, 2),
        (2, 4, BASIC | data | named, 8, 0x8003_0102, 4),
        // The last places inside.
        (0x7ff, 2, BASIC, 0xffe, 2, 2),
        (0x3ff, 4, BASIC | data, 0xffc, 0x8003_0002, 4),
    ] {
        let mut blueprint = blueprint();
        blueprint.claim(Claim::NOTIFY).multiplier = multiplier;
        blueprint.queues[2].notify_off = notify_off;
        let (mut driver, device) = negotiated(&blueprint, features);
        let notifier = driver.enable_queue(2, &SETUP).unwrap();
        driver.start().unwrap();
        notifier.notify(0x8003).unwrap();
        let notification = Notification {
            offset,
            value,
            width,
        };
        assert_eq!(device.take_notifications(), [notification]);
        assert_eq!(device.breaches(), [""; 0]);
        // Nobody could say which position.
        assert_eq!(notifier.wake().is_err(), features.contains(data));
    }
}

#[test]
fn a_queue_is_reset_alone_and_enabled_again_with_another_size() {
    let mut blueprint = blueprint();
    blueprint.slow_reset = 3;
    let (mut driver, device) = negotiated(&blueprint, BASIC | Features::RING_RESET);
    driver.enable_queue(0, &SETUP).unwrap();
    driver.enable_queue(1, &SETUP).unwrap();
    driver.start().unwrap();
    driver.reset_queue(0).unwrap();
    assert_eq!(device.queue(0), None);
    assert!(device.queue(1).is_some(), "the other goes on");
    let size = 128;
    driver
        .enable_queue(0, &QueueSetup { size, ..SETUP })
        .unwrap();
    assert_eq!(device.queue(0).unwrap().size, size);
    assert_eq!(device.breaches(), [""; 0]);

    let (mut driver, _) = negotiated(&blueprint, BASIC);
    driver.enable_queue(0, &SETUP).unwrap();
    driver.start().unwrap();
    let refused = driver.reset_queue(0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "RING_RESET is needed, and is not accepted"
    );
}

#[test]
fn packed_queues_have_any_size() {
    let mut blueprint = blueprint();
    blueprint.queues[0].max_size = 100;
    let size = 77;
    let (mut driver, device) = negotiated(&blueprint, BASIC | Features::RING_PACKED);
    driver
        .enable_queue(0, &QueueSetup { size, ..SETUP })
        .unwrap();
    assert_eq!(device.queue(0).unwrap().size, size);
    assert_eq!(device.breaches(), [""; 0]);
}

#[test]
fn a_configuration_is_read_as_it_was_at_one_moment() {
    let (mut driver, device) = negotiated(&blueprint(), BASIC);
    let changed = std::cell::Cell::new(0);
    let read = driver.read_config(|config| {
        let first = config.read_u16(6)?;
        // It changes between two fields, twice.
        if changed.get() < 2 {
            changed.set(changed.get() + 1);
            let change = |config: &mut Vec<u8>| {
                config[6] += 1;
                config[10] += 1;
            };
            device.change_config(change).unwrap();
        }
        Ok((first, config.read_u16(10)?, config.read_bytes::<6>(0)?))
    });
    assert_eq!(read.unwrap(), (3, 0x5de, [2, 0, 0, 0, 0, 7]));

    let end = driver.layout().device.unwrap().len;
    let behind = driver.read_config(|config| config.read_u64(end - 4));
    assert!(
        matches!(
            behind,
            Err(DeviceError::Access(AccessError::OutOfBounds { .. }))
        ),
        "{behind:?}"
    );
    driver
        .write_config(|config| config.write_u16(10, 1400))
        .unwrap();
    let mtu = driver
        .read_config(|config| Ok(config.read_u64(4)? >> 48))
        .unwrap();
    assert_eq!(mtu, 1400);
    assert_eq!(device.strayed(), 0);
    assert_eq!(device.breaches(), [""; 0]);
}

#[test]
fn without_vectors_the_interrupt_status_tells() {
    let (mut driver, device) = negotiated(&blueprint(), BASIC);
    driver.enable_queue(0, &SETUP).unwrap();
    driver.start().unwrap();
    let nothing = InterruptStatus {
        queue: false,
        configuration: false,
    };
    assert_eq!(driver.interrupt_status().unwrap(), nothing);
    assert!(!device.signal_queue(0).unwrap());
    let queue = InterruptStatus {
        queue: true,
        ..nothing
    };
    assert_eq!(driver.interrupt_status().unwrap(), queue);
    device.change_config(|_| ()).unwrap();
    let configuration = InterruptStatus {
        configuration: true,
        ..nothing
    };
    assert_eq!(driver.interrupt_status().unwrap(), configuration);
    assert_eq!(driver.interrupt_status().unwrap(), nothing);
}

#[test]
fn shared_memory_is_mapped_as_far_as_it_goes() {
    let (driver, device) = opened(&blueprint());
    let ids: Vec<_> = driver
        .shared_memory()
        .iter()
        .map(|region| region.id)
        .collect();
    assert_eq!(ids, [0, 1]);
    assert_eq!(driver.map_shared_memory(0).unwrap().len(), 0x8000);
    let second = driver.map_shared_memory(1).unwrap();
    assert_eq!(second.len(), 0x100, "not the pages around it");
    Field::<u64, _>::new(&second, 0).unwrap().store(7, Relaxed);
    let there = Field::<u64, _>::new(&device.shared_memory(), 0x8010).unwrap();
    assert_eq!(there.load(Relaxed), 7);
    assert!(matches!(
        driver.map_shared_memory(2),
        Err(DeviceError::NoSharedMemory { id: 2 })
    ));
}

#[test]
fn a_device_that_takes_its_time_is_waited_for() {
    let mut blueprint = blueprint();
    let dma = EmulatedDma::new(1 << 20);
    for (slow_reset, comes) in [(3, true), (4, false)] {
        blueprint.slow_reset = slow_reset;
        let (function, device) = blueprint.build(&dma);
        // The first reset has nothing to wait for: the device is as new.
        let mut driver = started(function, &dma);
        match driver.reset() {
            Ok(()) => assert!(comes),
            Err(error) => {
                assert!(!comes);
                let said = "a device status of 0 was expected, 0x01 found 4 times";
                assert!(error.to_string().contains(said), "{error}");
            }
        }
        assert_eq!(device.breaches(), [""; 0]);
    }
}

#[test]
fn who_is_dropped_leaves_the_device_at_rest() {
    let dma = EmulatedDma::new(1 << 20);
    let (function, device) = blueprint().build(&dma);
    drop(started(function, &dma));
    assert_eq!(device.status(), DeviceStatus::empty());
    assert!(!device.is_bus_master());
    assert_eq!((device.eventfds(), device.function_resets()), (0, 0));

    // One that does not listen is reset from outside.
    let (function, device) = blueprint().build(&dma);
    let driver = started(function, &dma);
    device.lie(lies::stuck(CommonRegister::DeviceStatus, 15));
    driver.finish().unwrap();
    assert!(!device.is_bus_master());
    assert_eq!((device.eventfds(), device.function_resets()), (0, 1));
}

#[test]
fn the_device_reaches_memory_as_long_as_it_is_there_and_it_may() {
    let dma = EmulatedDma::new(1 << 20);
    let (function, device) = blueprint().build(&dma);
    let memory = dma.allocate(100).unwrap();
    assert!(device.window(memory.address, 100).is_none(), "not yet");
    let driver = started(function, &dma);
    assert!(device.window(memory.address, 100).is_some());
    assert!(device.window(memory.address + 4000, 100).is_none());
    assert_eq!(dma.mapped(), 1, "the queues' memory is gone");
    let part = memory.window.narrow(8, 8).unwrap();
    drop(memory.window);
    assert!(device.window(memory.address, 100).is_some());
    drop(part);
    assert!(device.window(memory.address, 100).is_none());
    drop(driver);
}

#[test]
fn mistakes_of_the_caller_leave_the_device_as_it_was() {
    let (mut driver, device) = opened(&blueprint());
    let early = driver.negotiate(BASIC).unwrap_err();
    assert_eq!(
        early.to_string(),
        "cannot negotiate features while the device is not reset yet"
    );
    driver.reset().unwrap();
    for (accepted, said) in [
        (
            Features::VERSION_1,
            "ACCESS_PLATFORM is needed, and is not accepted",
        ),
        (
            Features::EVENT_IDX,
            "VERSION_1 is needed, and is not accepted",
        ),
    ] {
        assert_eq!(driver.negotiate(accepted).unwrap_err().to_string(), said);
    }
    let more = driver.negotiate(BASIC | Features::bit(3));
    let bits = Features::bit(3).bits();
    assert!(
        matches!(more, Err(DeviceError::Features(FeatureError::NotOffered { bits: found })) if found == bits)
    );
    driver.negotiate(BASIC).unwrap();

    let with = |change: fn(&mut QueueSetup)| {
        let mut setup = SETUP;
        change(&mut setup);
        setup
    };
    let sizes = "queue 0: a size of 1 to 256, a power of 2, was expected";
    for (queue, setup, said) in [
        (3, SETUP, "there is no queue 3: the device has 3"),
        (0, with(|s| s.size = 0), &*format!("{sizes}, 0 wanted")),
        (0, with(|s| s.size = 512), &format!("{sizes}, 512 wanted")),
        (0, with(|s| s.size = 65), &format!("{sizes}, 65 wanted")),
        (
            0,
            with(|s| s.descriptor_area += 8),
            "queue 0: the descriptor area at 0x123456008 is not aligned to 16 bytes",
        ),
        (
            0,
            with(|s| s.driver_area += 1),
            "queue 0: the driver area at 0x234567001 is not aligned to 2 bytes",
        ),
        (
            0,
            with(|s| s.device_area += 2),
            "queue 0: the device area at 0x345678002 is not aligned to 4 bytes",
        ),
        (
            0,
            with(|s| s.vector = Some(0)),
            "vector 0 is wanted for queue 0, and 0 are enabled",
        ),
    ] {
        let refused = driver.enable_queue(queue, &setup).unwrap_err();
        assert_eq!(refused.to_string(), said);
        assert!(!refused.is_fault());
    }
    let bells: Vec<_> = (0..5).map(|_| eventfd()).collect();
    let bells: Vec<_> = bells.iter().map(AsFd::as_fd).collect();
    assert!(matches!(
        driver.enable_vectors(&bells),
        Err(DeviceError::Function(FunctionError::Vectors {
            wanted: 5,
            found: 4
        }))
    ));
    driver.enable_queue(0, &SETUP).unwrap();
    let twice = driver.enable_queue(0, &SETUP).unwrap_err();
    assert_eq!(twice.to_string(), "queue 0 is enabled already");
    driver.start().unwrap();
    driver.check().unwrap();
    assert_eq!(device.breaches(), [""; 0]);
}

#[test]
fn a_configuration_space_is_read_without_a_driver() {
    let mut blueprint = blueprint();
    blueprint.claims.truncate(5);
    blueprint.claims.push(Claim::vendor(&[0x34, 0x12, 9, 8]));
    let (function, device) = blueprint.build(&EmulatedDma::new(0));
    let config = function.config().unwrap();
    let header = Header::read(&config).unwrap();
    assert_eq!(header.identity.to_string(), "1af4:1041");
    assert_eq!((header.class.base, header.revision), (2, 1));
    assert_eq!(
        (header.subsystem_vendor, header.subsystem),
        (0x1af4, 0x1100)
    );
    assert_eq!(device_id(header.identity).unwrap(), DeviceId::NET);

    let bars = Bar::read_all(&config).unwrap();
    let memory = |is_64_bit, is_prefetchable| BarSpace::Memory {
        is_64_bit,
        is_prefetchable,
    };
    let bar = |index, space, address| Bar {
        index: BarIndex::new(index).unwrap(),
        space,
        address,
    };
    assert_eq!(
        bars,
        [
            bar(1, memory(false, false), 0xfe00_0000),
            bar(2, memory(true, true), 0x38_0000_0000),
            bar(4, memory(true, true), 0x38_1000_0000),
        ]
    );

    let capabilities = Capability::read_all(&config).unwrap();
    let msix = Msix::read(&config, &capabilities).unwrap().unwrap();
    assert_eq!((msix.vectors, msix.table.len, msix.pending.len), (4, 64, 8));
    assert_eq!(msix.pending.offset, 0x800);
    let capabilities = VirtioCapability::read_all(&config, &capabilities).unwrap();
    assert_eq!(capabilities.len(), 6);
    let VirtioCapability::Structure {
        kind, multiplier, ..
    } = capabilities[3]
    else {
        panic!("{capabilities:?}");
    };
    assert_eq!((kind, multiplier), (StructureKind::Notify, 4));
    assert_eq!(capabilities[4], VirtioCapability::ConfigAccess);
    let vendor = VirtioCapability::Vendor {
        vendor: 0x1234,
        data: vec![9, 8],
    };
    assert_eq!(capabilities[5], vendor);
    assert_eq!(device.strayed(), 0);
}
