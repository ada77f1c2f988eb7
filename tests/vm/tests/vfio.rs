//! Functions passed through to a guest's user space, by vfio-ioctls and by pci-driver, behind an emulated IOMMU.

use std::thread::sleep;
use std::time::Duration;

use shmbus_vm::{Error, Guest, Interop, Kernel, Machine, Parts, Qemu, matrix};

const EDU: &str = "0000:00:01.0";
/// Behind a port, where it has a reset of its own.
const NETWORK: &str = "0000:01:00.0";

/// A machine with QEMU's `edu` and a virtio network card, both VFIO's.
fn machine(parts: &Parts, qemu: Qemu, kernel: Kernel) -> Machine {
    Machine::new(parts, qemu, kernel)
        .device("edu")
        .device("pcie-root-port,id=root1,chassis=1")
        .device("virtio-net-pci,bus=root1,disable-legacy=on,iommu_platform=on,romfile=")
        .vfio("1234 11e8")
        .vfio("1af4 1041")
}

/// The crates that open functions.
const CRATES: [&str; 2] = ["vfio-ioctls", "pci-driver"];

/// What a test in the guest shows.
struct Test {
    name: &'static str,
    function: &'static str,
    shows: &'static [&'static str],
    /// How many accesses to memory the IOMMU stops, to addresses that the test says.
    faults: usize,
}

const CHECK: Test = Test {
    name: "check",
    function: EDU,
    shows: &["registers", "MSI", "DMA"],
    faults: 0,
};
/// A wrong address in a ring: the device says so, its driver latches that, and a reset recovers it.
const VIRTIO: Test = Test {
    name: "virtio",
    function: NETWORK,
    shows: &["MSI-X", "reset", "a wrong address in a ring"],
    faults: 1,
};
const SAFETY: Test = Test {
    name: "safety",
    function: EDU,
    shows: &["wrong addresses", "unmapping"],
    faults: 3,
};
const LOCKED: Test = Test {
    name: "locked",
    function: EDU,
    shows: &["RLIMIT_MEMLOCK"],
    faults: 0,
};
/// The host leaves three mappings to the guest's IOMMU driver.
const MAPPINGS: Test = Test {
    name: "mappings",
    function: EDU,
    shows: &["dma_entry_limit"],
    faults: 0,
};

impl Test {
    /// Runs it over both crates.
    fn run(&self, guest: &Guest) -> Result<(), Error> {
        for name in CRATES {
            let mut row = Interop::new(format!("VFIO by {name}"), guest.name());
            for feature in self.shows {
                row = row.feature(feature);
            }
            self.run_over(name, guest)?;
            row.passed();
        }
        Ok(())
    }

    fn run_over(&self, name: &str, guest: &Guest) -> Result<(), Error> {
        if self.faults > 0 {
            // The kernel tells of three faults in five seconds.
            sleep(Duration::from_secs(6));
        }
        guest.succeed("dmesg -c")?;
        let (test, function) = (self.name, self.function);
        let said = guest.succeed(&format!("shmbus-in-guest vfio {test} {name} {function}"))?;
        let log = guest.succeed("dmesg")?;
        let wrong = said
            .lines()
            .filter_map(|line| line.strip_prefix("fault at "));
        let stopped = wrong.filter(|wrong| {
            let fault = format!("fault addr {wrong} ");
            log.lines()
                .any(|line| line.contains("DMAR") && line.contains(&fault))
        });
        assert_eq!(stopped.count(), self.faults, "{said}{log}");
        Ok(())
    }
}

#[test]
fn both_crates_reach_registers_interrupts_memory_and_reset() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for (qemu, kernel) in matrix() {
        let guest = machine(&parts, qemu, kernel).boot()?;
        CHECK.run(&guest)?;
        VIRTIO.run(&guest)?;
        guest.succeed(&format!("shmbus-in-guest vfio together {EDU} {NETWORK}"))?;
        guest.shut_down()?;
    }
    Ok(())
}

#[test]
fn a_wrong_address_is_a_fault_and_nothing_stays_mapped() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for (qemu, kernel) in matrix() {
        let guest = machine(&parts, qemu, kernel).boot()?;
        SAFETY.run(&guest)?;
        LOCKED.run(&guest)?;
        guest.succeed("echo 3 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit")?;
        MAPPINGS.run(&guest)?;
        guest.shut_down()?;
    }
    Ok(())
}

#[test]
fn functions_that_cannot_be_opened_say_why() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let guest = machine(&parts, Qemu::V7_2, Kernel::V6_1).boot()?;
    let expect_refusal = |address: &str, expected: &str| {
        for name in CRATES {
            let refused = guest.run(&format!("shmbus-in-guest vfio check {name} {address}"))?;
            let said = refused.text();
            assert!(
                refused.status == 1 && said.contains(expected),
                "{name}: {said}"
            );
        }
        Ok::<_, Error>(())
    };
    expect_refusal("0000:00:1e.0", "there is no PCI function 0000:00:1e.0")?;
    let vfio_pci = "/sys/bus/pci/drivers/vfio-pci";
    guest.succeed(&format!("echo {EDU} > {vfio_pci}/unbind"))?;
    expect_refusal(EDU, "is bound to no driver, not to vfio-pci")?;
    guest.succeed(&format!("echo {EDU} > {vfio_pci}/bind"))?;
    guest.succeed("mv /dev/vfio/vfio /dev/vfio/away")?;
    expect_refusal(EDU, "/dev/vfio/vfio cannot be opened")
}

/// Prints what both crates cost, for docs/vfio.md: medians, with the tenth and the ninetieth of a hundred.
#[test]
fn what_both_crates_cost_is_told() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let guest = machine(&parts, Qemu::V11_1, Kernel::V7_2).boot()?;
    let command = format!("shmbus-in-guest vfio measure {EDU}");
    let said = guest.succeed_within(Duration::from_secs(300), &command)?;
    eprintln!("{}:\n{said}", guest.name());
    for name in CRATES {
        let figures = said
            .lines()
            .filter(|line| line.contains(&format!("| {name} |")));
        assert_eq!(figures.count(), 11, "{said}");
    }
    guest.shut_down()?;
    Ok(())
}
