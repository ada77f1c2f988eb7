//! The host's side of ivshmem, by stock QEMU: virtual machines that are killed leave nothing behind, whatever they were doing, and
//! the others go on.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shmbus_vm::{Bus, Error, Guest, Interop, Kernel, Machine, Parts, Qemu, newest_or_all};

/// Where the function is.
const PCI: &str = "--pci 0000:00:01.0";
/// For commands that take longer than usual.
const LONG: Duration = Duration::from_secs(300);

fn boot(parts: &Parts, (qemu, kernel): (Qemu, Kernel), socket: &Path) -> Result<Guest, Error> {
    Machine::new(parts, qemu, kernel)
        .memory_mib(256)
        .chardev(&format!("socket,id=bus,path={}", socket.display()))
        .device("ivshmem-doorbell,chardev=bus,vectors=4")
        .vfio("1af4 1110")
        .boot()
}

/// The descriptors that the host has, and its mappings of memories for guests in QEMU.
fn held(host: u32) -> (usize, usize) {
    let descriptors = fs::read_dir(format!("/proc/{host}/fd")).map_or(0, Iterator::count);
    let maps = fs::read_to_string(format!("/proc/{host}/maps")).unwrap_or_default();
    (descriptors, maps.matches("shmbus-ivshmem").count())
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not so: {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_left_of_a_virtual_machine_that_is_killed_under_load() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let scratch = tempfile::tempdir().map_err(Error::Start)?;
    for which in newest_or_all() {
        let shared = scratch.path().join("shared");
        let option = format!("{},shared,max-guests=3", shared.display());
        let mut arguments = vec!["--ivshmem", &option];
        arguments.extend(
            ["net", "clock", "timer"]
                .iter()
                .flat_map(|device| ["--device", device]),
        );
        let bus = Bus::start(&arguments)?;
        // Each in a memory of its own, or in one with others: the bus is the same.
        let server = boot(&parts, which, &bus.ivshmem())?;
        let row = Interop::new("a killed virtual machine", server.name()).feature("ivshmem");
        let sum = server.succeed(
            "mkdir /srv && head -c 3000000 /dev/urandom > /srv/file && sha256sum /srv/file",
        )?;
        let sha256 = sum.split_whitespace().next().unwrap_or_default();
        let serving = server.start_command(&format!("shmbus guest {PCI} net serve /srv"))?;
        serving.wait_for("http://10.111.0.1:80")?;

        let before = held(bus.pid());
        for socket in [bus.ivshmem(), shared.clone()] {
            let doomed = boot(&parts, which, &socket)?;
            let guests = |said: String| said.matches("guest on the bus").count();
            let (known, fetch) = (guests(bus.said()), "net fetch 10.111.0.1:80/file");
            let _fetching = doomed.start_command(&format!(
                "shmbus guest {PCI} {fetch} --sink discard --seconds 3600"
            ))?;
            eventually("it is on the bus", || guests(bus.said()) > known);
            // Files are on their way, one after the other.
            sleep(Duration::from_secs(2));
            assert!(held(bus.pid()) > before);
            doomed.kill();
            eventually("everything is freed", || held(bus.pid()) == before);
        }
        let said = bus.said();
        let told = said.matches("QEMU hung up, or was killed").count();
        assert_eq!(told, 2, "{said}");

        let next = boot(&parts, which, &shared)?;
        let fetch = format!(
            "shmbus guest {PCI} net fetch 10.111.0.1:80/file --sha256 {sha256} 2>/tmp/log > /tmp/file || \
             (cat /tmp/log; false)"
        );
        next.succeed_within(LONG, &fetch)?;
        assert!(next.succeed("sha256sum /tmp/file")?.starts_with(sha256));
        row.passed();
    }
    Ok(())
}
