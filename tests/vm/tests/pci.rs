//! `shmbus pci` in guests: what QEMU's functions are, and who drives them.

use shmbus_vm::{Bus, Error, Guest, Interop, Machine, Parts, matrix};

/// A network card, and a function that shares its group with another.
const NET: &str = "0000:00:03.0";
const CROWDED: &str = "0000:00:04.0";
const BESIDE: &str = "0000:00:04.1";

#[test]
fn functions_are_decoded_and_go_to_vfio_and_back() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for (qemu, kernel) in matrix() {
        let bus = Bus::start(&["--device", "clock"])?;
        let guest = Machine::new(&parts, qemu, kernel)
            .netdev("user,id=net")
            .device(
                "virtio-net-pci,netdev=net,addr=3,mac=52:54:00:12:34:56,vectors=4,host_mtu=1400,rx_queue_size=512,\
                 packed=on,disable-legacy=on,iommu_platform=on,romfile=",
            )
            .device("virtio-rng-pci,addr=4.0,multifunction=on,disable-legacy=on,iommu_platform=on")
            .device("virtio-rng-pci,addr=4.1,disable-legacy=on,iommu_platform=on")
            .arguments(["-object", "memory-backend-ram,id=shared,size=1M"])
            .device("ivshmem-plain,memdev=shared,addr=5")
            .chardev(&format!("socket,id=bus,path={}", bus.ivshmem().display()))
            .device("ivshmem-doorbell,chardev=bus,vectors=4,addr=6")
            .module("vfio_iommu_type1")
            .module("vfio_pci")
            .module("virtio_pci")
            .module("virtio_net")
            .file("/etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
            .boot()?;
        let row = Interop::new("virtio-net-pci", guest.name())
            .feature("decoded")
            .feature("bound to vfio-pci and back");
        lists(&guest)?;
        binds(&guest)?;
        refuses(&guest)?;
        guest.shut_down()?;
        row.passed();
    }
    Ok(())
}

fn lists(guest: &Guest) -> Result<(), Error> {
    let list = guest.succeed("shmbus pci list")?;
    has_line(
        &list,
        &[
            NET,
            "1af4:1041",
            "020000",
            "virtio-pci",
            "virtio network card",
        ],
    );
    has_line(&list, &[CROWDED, "1af4:1044", "virtio entropy source"]);
    has_line(
        &list,
        &["0000:00:05.0", "1af4:1110", "shared memory (ivshmem)"],
    );

    let shown = guest.succeed(&format!("shmbus pci show {NET}"))?;
    has_line(&shown, &["driver: virtio-pci"]);
    has_line(
        &shown,
        &["MSI-X: 4 vectors; table in BAR 1, offset 0x0, 0x40 bytes"],
    );
    has_line(
        &shown,
        &["virtio common configuration in BAR 4, offset 0x0, 0x1000 bytes"],
    );
    has_line(
        &shown,
        &["BAR 4: 0x4000 bytes of memory", "64 bits, prefetchable"],
    );
    has_line(&shown, &["the device is not asked: virtio-pci has it"]);
    let shown = guest.succeed("shmbus pci show 0000:00:05.0")?;
    has_line(&shown, &["BAR 2: 0x100000 bytes of memory"]);
    has_line(&shown, &["IOMMU group:", "alone"]);
    has_line(&shown, &["no bus to attach to: "]);
    let shown = guest.succeed("shmbus pci show 0000:00:06.0")?;
    has_line(
        &shown,
        &["a bus, in the memory of this guest alone: the host is peer 0"],
    );
    has_line(&shown, &["area of this machine: "]);
    // What a user may not see is left out.
    let shown = guest.succeed(&format!("su user -c 'shmbus pci show {NET}'"))?;
    has_line(&shown, &["capabilities are shown to root only"]);
    Ok(())
}

fn binds(guest: &Guest) -> Result<(), Error> {
    guest.succeed("ip link set eth0 up")?;
    let refused = guest.run(&format!("shmbus pci bind {NET}"))?;
    assert_ne!(refused.status, 0);
    has_line(&refused.text(), &["network interface eth0, which is up"]);

    guest.succeed("ip link set eth0 down")?;
    let bound = guest.succeed(&format!("shmbus pci bind {NET}"))?;
    has_line(&bound, &[NET, "from virtio-pci to vfio-pci, in /dev/vfio/"]);
    guest.succeed("ls /dev/vfio/[0-9]*")?;
    asked(&guest.succeed(&format!("shmbus pci show {NET}"))?);

    let back = guest.succeed(&format!("shmbus pci unbind {NET}"))?;
    has_line(&back, &["from vfio-pci to virtio-pci"]);
    guest.succeed("ip link show eth0")?;

    // The same by the files in sysfs.
    guest.succeed(&format!(
        "echo {NET} > /sys/bus/pci/devices/{NET}/driver/unbind"
    ))?;
    asked(&guest.succeed(&format!("shmbus pci show {NET}"))?);
    let bound = guest.succeed(&format!("shmbus pci bind {NET}"))?;
    has_line(&bound, &["from no driver to vfio-pci"]);
    Ok(())
}

/// What the card says of itself, by whatever way it was reached.
fn asked(shown: &str) {
    has_line(shown, &["15 MRG_RXBUF"]);
    has_line(shown, &["29 EVENT_IDX"]);
    has_line(shown, &["33 ACCESS_PLATFORM"]);
    has_line(shown, &["34 RING_PACKED"]);
    has_line(shown, &["0 receiveq1", "at most 512 entries"]);
    has_line(shown, &["1 transmitq1", "at most 256 entries"]);
    has_line(shown, &["2 controlq"]);
    has_line(shown, &["MAC address: 52:54:00:12:34:56"]);
    has_line(shown, &["MTU: 1400 bytes"]);
    has_line(shown, &["link: up"]);
    assert!(!shown.contains("(unknown)"), "{shown}");
}

fn refuses(guest: &Guest) -> Result<(), Error> {
    let refusal = |command: &str| -> Result<String, Error> {
        let refused = guest.run(command)?;
        assert_ne!(refused.status, 0, "{command}: {}", refused.text());
        Ok(refused.text())
    };
    let crowded = refusal(&format!("shmbus pci bind {CROWDED}"))?;
    has_line(
        &crowded,
        &["cannot be used alone", "0000:00:04.1 (virtio-pci)"],
    );
    let both = guest.succeed(&format!("shmbus pci bind {CROWDED} {BESIDE}"))?;
    assert_eq!(both.lines().count(), 2, "{both}");

    let denied = refusal("su user -c 'shmbus pci bind 0000:00:05.0'")?;
    has_line(&denied, &["only root may give functions to other drivers"]);
    has_line(
        &refusal("shmbus pci bind 0000:00:1e.0")?,
        &["there is no PCI function 0000:00:1e.0"],
    );
    has_line(
        &refusal("shmbus pci bind eth0")?,
        &["expected the address of a PCI function"],
    );
    has_line(
        &refusal("shmbus pci unbind 0000:00:05.0")?,
        &["bound to no driver, not to vfio-pci"],
    );
    Ok(())
}

/// Some line has all of these.
fn has_line(text: &str, parts: &[&str]) {
    assert!(
        text.lines()
            .any(|line| parts.iter().all(|part| line.contains(part))),
        "no line with {parts:?} in:\n{text}"
    );
}
