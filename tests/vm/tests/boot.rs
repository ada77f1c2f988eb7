//! Guests start, run commands, and end; those that do not are reported with what they said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use shmbus_vm::{Error, Interop, Kernel, Machine, Parts, Qemu, matrix};

/// Set for the process that [`nothing_is_left_of_a_test_that_is_killed`] kills.
const VICTIM: &str = "SHMBUS_VM_VICTIM";

#[test]
fn debian_guests_run_our_program_and_bind_vfio() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for (qemu, kernel) in matrix() {
        let guest = Machine::new(&parts, qemu, kernel)
            .netdev("user,id=net")
            .device("virtio-net-pci,netdev=net,disable-legacy=on,iommu_platform=on,romfile=")
            .vfio("1af4 1041")
            .boot()?;
        let row = Interop::new("a Debian guest", guest.name()).feature("VFIO behind vIOMMU");

        let version = guest.succeed("shmbus --version")?;
        assert!(version.starts_with("shmbus "), "{version}");
        let vfio = guest.succeed("ls /dev/vfio")?;
        let groups: Vec<_> = vfio.lines().filter(|name| *name != "vfio").collect();
        assert_eq!(groups.len(), 1, "{vfio}");

        let seconds = format!("{:.1} s", guest.boot_time().as_secs_f64());
        assert!(guest.shut_down()?.success());
        row.figure("start", seconds).passed();
    }
    Ok(())
}

#[test]
fn commands_go_on_beside_each_other_and_give_back_every_byte() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let bytes: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    let guest = Machine::new(&parts, Qemu::V11_1, Kernel::V7_2)
        .without_iommu()
        .processors(2)
        .memory_mib(384)
        .shares_memory()
        .file("/etc/some/bytes", bytes.as_slice())
        .kernel_argument("shmbus.word=1")
        .module("virtio_net")
        .boot()?;

    let waiting = guest.start_command(
        "echo waiting; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo gone; exit 3",
    )?;
    waiting.wait_for("waiting\n")?;
    let endless = guest.start_command(
        "trap 'echo term; exit 4' TERM; echo endless; while :; do sleep 0.1; done",
    )?;
    endless.wait_for("endless\n")?;

    assert_eq!(guest.run("cat /etc/some/bytes")?.output, bytes);
    assert!(
        guest
            .succeed("cat /proc/cmdline")?
            .contains("shmbus.word=1")
    );
    assert_eq!(guest.succeed("nproc")?, "2\n");
    let memory = guest.succeed("grep MemTotal /proc/meminfo | tr -dc 0-9")?;
    let kib: u32 = memory.parse().unwrap();
    assert!((256 << 10..384 << 10).contains(&kib), "{kib}");
    assert_eq!(guest.succeed("ls /sys/kernel/iommu_groups")?, "");
    guest.succeed("echo to whom it may concern > /dev/console")?;
    guest.wait_for_console("to whom it may concern", Duration::from_secs(60))?;
    assert!(guest.succeed("lsmod")?.contains("virtio_net"));

    guest.succeed("touch /tmp/go")?;
    let waited = waiting.wait()?;
    assert_eq!(
        (waited.status, waited.text().as_str()),
        (3, "waiting\ngone\n")
    );
    endless.signal(15)?;
    let ended = endless.wait()?;
    assert_eq!(ended.status, 4);
    assert!(ended.text().ends_with("term\n"), "{}", ended.text());
    assert_eq!(guest.run("kill -9 $$")?.status, 128 + 9);

    let failed = guest.succeed("echo why; false").unwrap_err();
    assert!(
        matches!(&failed, Error::Command { status: 1, output, .. } if output == "why\n"),
        "{failed}"
    );
    Ok(())
}

#[test]
fn a_guest_that_hangs_is_reported_with_its_console_and_is_gone() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let guest = Machine::new(&parts, Qemu::V7_2, Kernel::V6_1).boot()?;
    let process = process(guest.pid());
    assert!(process.exists());
    let hung = guest
        .run_within(
            Duration::from_secs(2),
            "echo last words > /dev/console; echo started; while :; do :; done",
        )
        .unwrap_err();
    assert!(
        matches!(&hung, Error::Hung { output, .. } if output == "started\n"),
        "{hung}"
    );
    let report = hung.to_string();
    assert!(report.contains("last words"), "{report}");
    assert!(report.contains("init: up"), "{report}");
    assert!(!guest.is_running());
    assert!(!process.exists());
    Ok(())
}

#[test]
fn a_kernel_panic_is_reported_at_once() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let guest = Machine::new(&parts, Qemu::V7_2, Kernel::V6_1).boot()?;
    let asked = Instant::now();
    let ended = guest
        .run_within(
            Duration::from_secs(600),
            "echo c > /proc/sysrq-trigger; sleep 1000",
        )
        .unwrap_err();
    assert!(matches!(ended, Error::Ended { .. }), "{ended}");
    let report = ended.to_string();
    assert!(report.contains("Kernel panic"), "{report}");
    // The kernel itself takes its time to print where it was.
    assert!(asked.elapsed() < Duration::from_secs(300));
    Ok(())
}

#[test]
fn what_qemu_does_not_like_is_reported() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let machine = Machine::new(&parts, Qemu::V7_2, Kernel::V6_1).device("no-such-device");
    let ended = machine.boot().err().map(|error| error.to_string());
    let report = ended.unwrap_or_default();
    assert!(
        report.contains("'no-such-device' is not a valid device"),
        "{report}"
    );
    Ok(())
}

#[test]
fn nothing_is_left_of_a_test_that_is_killed() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    if let Some(told) = env::var_os(VICTIM) {
        let guest = Machine::new(&parts, Qemu::V7_2, Kernel::V6_1).boot()?;
        fs::write(told, guest.pid().to_string()).unwrap();
        thread::sleep(Duration::from_secs(3600));
        return Ok(());
    }
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("pid");
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "nothing_is_left_of_a_test_that_is_killed"])
        .env(VICTIM, &told)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = eventually("the victim's guest starts", || {
        fs::read_to_string(&told).ok()?.parse().ok()
    });
    assert!(process(pid).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("QEMU is gone", || (!process(pid).exists()).then_some(()));
    Ok(())
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
