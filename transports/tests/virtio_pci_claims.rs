//! A virtio device that lies in its configuration space. Each lie is a typed error, before anything is used.

mod emulated;

use emulated::{BASIC, HASTY, blueprint, negotiated};
use shmbus_transports::pci::emulated::{Blueprint, Claim, EmulatedDma};
use shmbus_transports::pci::virtio::VirtioPci;
use shmbus_transports::pci::{Bar, Function};

/// Opens a device, and returns what is said against it.
fn refusal(blueprint: &Blueprint) -> String {
    let (function, device) = blueprint.build(&EmulatedDma::new(0));
    let error = VirtioPci::open_with(function, HASTY).map(drop).unwrap_err();
    assert_eq!(device.strayed(), 0);
    error.to_string()
}

#[test]
fn what_capabilities_say_is_checked_before_it_is_used() {
    let claimed = |kind: u8, change: fn(&mut Claim)| {
        let mut blueprint = blueprint();
        change(blueprint.claim(kind));
        refusal(&blueprint)
    };
    let (common, notify, isr, device, shared) = (
        Claim::COMMON,
        Claim::NOTIFY,
        Claim::ISR,
        Claim::DEVICE,
        Claim::SHARED_MEMORY,
    );
    for (kind, change, said) in [
        (
            common,
            (|c| c.bar = 6) as fn(&mut Claim),
            "the device has no common configuration",
        ),
        (
            common,
            |c| c.kind = 77,
            "the device has no common configuration",
        ),
        (
            common,
            |c| c.bar = 3,
            "the common configuration lies in BAR 3, which the function does not have",
        ),
        (
            common,
            |c| c.offset = 0x3fe0,
            "the common configuration: 0x40 bytes at offset 0x3fe0 do not lie inside BAR 4, which has 0x4000",
        ),
        (
            common,
            |c| c.offset = u64::from(u32::MAX - 3),
            "the common configuration: 0x40 bytes at offset 0xfffffffc do not lie inside BAR 4, which has 0x4000",
        ),
        (
            common,
            |c| c.len = u64::from(u32::MAX),
            "the common configuration: 0xffffffff bytes at offset 0x0 do not lie inside BAR 4, which has 0x4000",
        ),
        (
            common,
            |c| c.len = 55,
            "the common configuration: 56 bytes were expected, 55 found",
        ),
        (
            common,
            |c| c.offset = 2,
            "the common configuration: an offset that 4 divides was expected, 0x2 found",
        ),
        (
            common,
            |c| c.cap_len = 15,
            "the capability at 0x4c: 16 bytes were expected, 15 found",
        ),
        (
            common,
            |c| c.cap_len = 0xff,
            "the capability at 0x4c, of 255 bytes, does not end before 0x100",
        ),
        (
            common,
            |c| c.offset = 0xff0,
            "the common configuration at BAR 4, offset 0xff0, 0x40 bytes and the ISR status at BAR 4, offset 0x1000, \
             0x1 bytes share bytes",
        ),
        (
            isr,
            |c| (c.bar, c.offset) = (1, 0x3f),
            "the MSI-X table at BAR 1, offset 0x0, 0x40 bytes and the ISR status at BAR 1, offset 0x3f, 0x1 bytes share bytes",
        ),
        (
            isr,
            |c| c.len = 0,
            "the ISR status: 1 bytes were expected, 0 found",
        ),
        (
            device,
            |c| c.offset = 0x2001,
            "the device configuration: an offset that 4 divides was expected, 0x2001 found",
        ),
        (
            notify,
            |c| c.cap_len = 16,
            "the capability at 0x7c: 20 bytes were expected, 16 found",
        ),
        (
            notify,
            |c| c.len = 1,
            "the notification structure: 2 bytes were expected, 1 found",
        ),
        (
            notify,
            |c| (c.offset, c.len) = (0x3001, 0x10),
            "the notification structure: an offset that 2 divides was expected, 0x3001 found",
        ),
        (
            notify,
            |c| c.multiplier = 1,
            "a notify multiplier of 0 or an even power of 2 was expected, 0x1 found",
        ),
        (
            notify,
            |c| c.multiplier = 6,
            "a notify multiplier of 0 or an even power of 2 was expected, 0x6 found",
        ),
        (
            notify,
            |c| (c.bar, c.offset, c.len) = (1, 0, 0x1000),
            "the MSI-X table at BAR 1, offset 0x0, 0x40 bytes and the notification structure at BAR 1, offset 0x0, 0x1000 \
             bytes share bytes",
        ),
        (
            shared,
            |c| c.id = 1,
            "there are two shared memory regions with number 1",
        ),
        (
            shared,
            |c| (c.offset, c.len) = (u64::MAX - 0xfff, 0x1000),
            "the shared memory region: 0x1000 bytes at offset 0xfffffffffffff000 do not lie inside BAR 2, which has 0x10000",
        ),
        (
            shared,
            |c| (c.offset, c.len) = (0x1000, u64::MAX),
            "the shared memory region: 0xffffffffffffffff bytes at offset 0x1000 do not lie inside BAR 2, which has 0x10000",
        ),
        (
            shared,
            |c| c.bar = 4,
            "the shared memory region: 0x8000 bytes at offset 0x0 do not lie inside BAR 4, which has 0x4000",
        ),
        (
            shared,
            |c| (c.bar, c.len) = (4, 8),
            "the common configuration at BAR 4, offset 0x0, 0x40 bytes and the shared memory region at BAR 4, offset 0x0, \
             0x8 bytes share bytes",
        ),
    ] {
        assert_eq!(claimed(kind, change), said);
    }
}

#[test]
fn what_the_msix_capability_says_is_checked() {
    for (change, said) in [
        (
            (|b| b.msix.as_mut().unwrap().table.0 = 7) as fn(&mut Blueprint),
            "the capability at 0x40: BAR 0 to 5 was expected, 7 found",
        ),
        (
            |b| b.msix.as_mut().unwrap().table.0 = 0,
            "the MSI-X table lies in BAR 0, which the function does not have",
        ),
        (
            |b| b.msix.as_mut().unwrap().last_vector = 0x7ff,
            "the MSI-X table: 0x8000 bytes at offset 0x0 do not lie inside BAR 1, which has 0x1000",
        ),
        (
            |b| b.msix.as_mut().unwrap().table.1 = 0xffff_fff8,
            "the MSI-X table: 0x40 bytes at offset 0xfffffff8 do not lie inside BAR 1, which has 0x1000",
        ),
        (
            |b| b.msix.as_mut().unwrap().pending.1 = 0x1000,
            "the MSI-X pending bits: 0x8 bytes at offset 0x1000 do not lie inside BAR 1, which has 0x1000",
        ),
    ] {
        let mut blueprint = blueprint();
        change(&mut blueprint);
        assert_eq!(refusal(&blueprint), said);
    }
}

#[test]
fn the_list_of_capabilities_is_walked_to_an_end() {
    let patched = |at: usize, byte: u8| {
        let (function, device) = blueprint().build(&EmulatedDma::new(0));
        device.patch_config_space(at, &[byte]);
        let opened = VirtioPci::open_with(function, HASTY);
        assert_eq!(device.strayed(), 0);
        assert!(device.accesses() < 500);
        opened.map(drop).map_err(|error| error.to_string())
    };
    // Each capability's pointer is behind its first byte: 0x40 leads to 0x4c.
    for (at, byte, said) in [
        (
            0x4d,
            0x40,
            "the pointer at 0x4d leads back to the capability at 0x40",
        ),
        (
            0x4d,
            0x4c,
            "the pointer at 0x4d leads back to the capability at 0x4c",
        ),
        (
            0x34,
            0x3c,
            "the pointer at 0x34 leads to 0x3c: a capability at 0x40 or above was expected",
        ),
        (
            0x4d,
            0x04,
            "the pointer at 0x4d leads to 0x4: a capability at 0x40 or above was expected",
        ),
        (0x34, 0, "the device has no virtio capabilities"),
        (0x06, 0, "the device has no virtio capabilities"),
        (0x00, 0x86, "a virtio device was expected, 1a86:1041 found"),
        (0x03, 0x11, "a virtio device was expected, 1af4:1141 found"),
    ] {
        let found = patched(at, byte).unwrap_err();
        assert!(found.starts_with(said), "{found}");
    }
    // The two lowest bits of a pointer mean nothing.
    patched(0x34, 0x43).unwrap();
    // A transitional card, 1af4:1000, is driven by its modern interface.
    patched(0x02, 0x00).unwrap();

    let (function, device) = blueprint().build(&EmulatedDma::new(0));
    device.patch_config_space(0x34, &[0xfc]);
    device.patch_config_space(0xfc, &[0x11, 0, 3, 0]);
    let cut = VirtioPci::open_with(function, HASTY).map(drop).unwrap_err();
    assert_eq!(
        cut.to_string(),
        "the capability at 0xfc, of 12 bytes, does not end before 0x100"
    );

    // What an unprivileged user is shown.
    let (function, device) = blueprint().build(&EmulatedDma::new(0));
    device.truncate_config_space(64);
    let short = VirtioPci::open_with(function, HASTY).map(drop).unwrap_err();
    assert_eq!(
        short.to_string(),
        "configuration space: 1 bytes at offset 0x40 do not lie inside a region of 64 bytes"
    );
}

#[test]
fn the_first_structure_that_can_be_used_is_used() {
    let mut blueprint = blueprint();
    let (good, mut bad) = (
        blueprint.claim(Claim::COMMON).clone(),
        blueprint.claim(Claim::COMMON).clone(),
    );
    bad.bar = 3;
    blueprint.claims.splice(0..1, [bad, good]);
    // Neither has configuration space room for all: shared memory is left out.
    blueprint.claims.truncate(5);
    let (mut driver, _) = negotiated(&blueprint, BASIC);
    assert_eq!(driver.queue_size(0).unwrap(), Some(256));
}

#[test]
fn bars_say_what_they_can_be() {
    let bars = |registers| {
        let mut blueprint = blueprint();
        blueprint.bar_registers = registers;
        let (function, _) = blueprint.build(&EmulatedDma::new(0));
        Bar::read_all(&function.config().unwrap()).map_err(|error| error.to_string())
    };
    assert_eq!(
        bars([0, 0, 0, 0, 0, 0xc]).unwrap_err(),
        "BAR 5: a 64-bit BAR needs a register more, and there is none"
    );
    assert_eq!(
        bars([0, 6, 0, 0, 0, 0]).unwrap_err(),
        "BAR 1: a memory BAR of 32 or 64 bits was expected, type 3 found"
    );
    let io = bars([0xc001, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(io[0].address, 0xc000);
}
