//! Guests start, run commands, and end.

use shmbus_vm::{Error, Machine, Parts, matrix};

#[test]
fn our_program_runs_in_debian_guests() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for (qemu, kernel) in matrix() {
        let guest = Machine::new(&parts, qemu, kernel)
            .device("virtio-net-pci,disable-legacy=on,iommu_platform=on,romfile=")
            .vfio("1af4 1041")
            .boot()?;
        println!("{}: up after {:?}", guest.name(), guest.boot_time());
        let version = guest.succeed("shmbus --version")?;
        assert!(version.starts_with("shmbus "), "{version}");
        let vfio = guest.succeed("ls /dev/vfio; ls -l /sys/bus/pci/drivers/vfio-pci")?;
        println!("{vfio}");
        assert!(
            vfio.lines().any(|line| line.parse::<u32>().is_ok()),
            "{vfio}"
        );
        println!("{}", guest.console());
        assert!(guest.shut_down()?.success());
    }
    Ok(())
}
