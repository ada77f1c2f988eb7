//! Two guests in stock QEMU on one bus, by `ivshmem-doorbell`: interrupts and a network between them, the host's clock, its
//! timers.

use std::time::Duration;

use serde_json::Value;
use shmbus_vm::{Bus, Error, Guest, Interop, Kernel, Machine, Parts, Qemu, newest_or_all};

/// Where the function is.
const PCI: &str = "--pci 0000:00:01.0";
/// The address of the guest that came first.
const FIRST: &str = "10.111.0.1";
/// The largest error of the clock that is taken, in nanoseconds: this machine may do much else.
const MAX_ERROR: u32 = 50_000_000;
/// For commands that take longer than usual.
const LONG: Duration = Duration::from_secs(300);

fn bus() -> Result<Bus, Error> {
    // QEMU's guests see another counter than this machine, and the host does not know which.
    let devices = ["net", "clock", "timer", "intc"].map(|device| ["--device", device]);
    let mut arguments = devices.concat();
    arguments.extend(["--guest-counter", "unknown"]);
    Bus::start(&arguments)
}

fn machine(parts: &Parts, (qemu, kernel): (Qemu, Kernel), bus: &Bus) -> Machine {
    Machine::new(parts, qemu, kernel)
        .memory_mib(256)
        .chardev(&format!("socket,id=bus,path={}", bus.ivshmem().display()))
        .device("ivshmem-doorbell,chardev=bus,vectors=4")
}

fn over_vfio(parts: &Parts, which: (Qemu, Kernel), bus: &Bus) -> Result<Guest, Error> {
    machine(parts, which, bus).vfio("1af4 1110").boot()
}

/// Runs the program as a guest of the bus, and gives what it wrote to its standard output.
fn shmbus(guest: &Guest, arguments: &str) -> Result<String, Error> {
    let command = format!("shmbus guest {PCI} {arguments} 2>/tmp/log || (cat /tmp/log; false)");
    guest.succeed_within(LONG, &command)
}

/// A directory with a file, served until the guest ends; the file's SHA-256.
fn serve(guest: &Guest) -> Result<String, Error> {
    let command = "mkdir /srv && head -c 3000000 /dev/urandom > /srv/file && sha256sum /srv/file";
    let sum = guest.succeed(command)?;
    let serving =
        guest.start_command(&format!("shmbus guest {PCI} --name server net serve /srv"))?;
    serving.wait_for("serving /srv")?;
    Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Pings the first guest, and fetches its file, which must be what it was there.
fn talk(guest: &Guest, sha256: &str) -> Result<(), Error> {
    let ping = shmbus(guest, &format!("net ping {FIRST} --count 5"))?;
    assert!(ping.contains("5 asked, 5 answered"), "{ping}");
    let fetch = format!("net fetch {FIRST}:80/file --sha256 {sha256} >/tmp/file");
    shmbus(guest, &fetch)?;
    let sum = guest.succeed("sha256sum /tmp/file")?;
    assert!(sum.starts_with(sha256), "{sum}");
    Ok(())
}

/// The clock against the host's own counter, for some seconds: outside of its bound in no exchange. The largest bound claimed for
/// the monotonic clock.
fn clock(guest: &Guest) -> Result<String, Error> {
    let shown = shmbus(guest, &format!("clock --count 4 --max-error {MAX_ERROR}"))?;
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<&str>| words.first() == Some(&"monotonic"))
        .collect();
    assert_eq!(rows.len(), 4, "{shown}");
    for row in &rows {
        assert_eq!(row[5], "0", "outside of its bound: {shown}");
    }
    let bounds = rows.iter().filter_map(|row| row[3].parse::<u32>().ok());
    let bound = bounds.max().unwrap_or_default();
    assert!(bound <= MAX_ERROR, "{shown}");
    Ok(format!("{:.1} us", f64::from(bound) / 1000.0))
}

fn timers(guest: &Guest) -> Result<(), Error> {
    let shown = shmbus(guest, "timer --count 50 --ahead 2000")?;
    for words in ["100 deadlines set", "50 superseded", "50 fired"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    Ok(())
}

/// Interrupts that one guest raises while the other stands still: once it goes on, the more urgent line comes first, and what was
/// raised again and again comes once.
fn interrupts(taker: &Guest, raiser: &Guest) -> Result<(), Error> {
    let command = format!("shmbus guest {PCI} intc watch 7:5 3:0 --count 3");
    let watching = taker.start_command(&command)?;
    watching.wait_for("taking interrupts")?;
    shmbus(raiser, "intc raise 7")?;
    watching.wait_for("line 7 ")?;
    taker.pause(true);
    let raised = shmbus(raiser, "intc raise 7 --edges 300")
        .and_then(|_| shmbus(raiser, "intc raise 3 --edges 200"));
    taker.pause(false);
    raised?;
    let shown = watching.succeed_within(LONG)?;
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| line.starts_with("line "))
        .collect();
    let starts = [
        "line 7 (priority 5): 1 edge(s)",
        "line 3 (priority 0): 200 edge(s)",
        "line 7 (priority 5): 300 edge(s)",
    ];
    assert_eq!(lines.len(), starts.len(), "{shown}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{shown}");
    }
    Ok(())
}

/// What the way to the host costs, as figures of the report.
fn figures(guest: &Guest, mut row: Interop, rounds: u32) -> Result<Interop, Error> {
    let shown = shmbus(guest, &format!("bench --rounds {rounds} --json"))?;
    let told: Value = serde_json::from_str(&shown).unwrap_or_default();
    for (name, key) in [
        ("doorbell round trip", "doorbell"),
        ("question and answer", "polling"),
        ("clock read", "clock_read"),
    ] {
        let figure = &told[key];
        let us = |key: &str| figure[key].as_f64().map(|ns| ns / 1000.0);
        let (Some(median), Some(p99)) = (us("median_ns"), us("p99_ns")) else {
            panic!("{key}: {shown}");
        };
        assert_eq!(figure["rounds"], rounds, "{shown}");
        let text = format!("{median:.2} us (median), {p99:.2} us (p99)");
        row = row.figure(name, text);
    }
    Ok(row)
}

#[test]
fn guests_of_stock_qemu_share_a_bus_over_vfio() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for which in newest_or_all() {
        let bus = bus()?;
        let first = over_vfio(&parts, which, &bus)?;
        let row = Interop::new("ivshmem-doorbell, VFIO", first.name()).feature("MSI-X");
        let second = over_vfio(&parts, which, &bus)?;
        interrupts(&first, &second)?;
        let sha256 = serve(&first)?;

        talk(&second, &sha256)?;
        let bound = clock(&second)?;
        timers(&second)?;

        // A program that is killed leaves its session behind; the next one gets one of its own.
        let command = format!("shmbus guest {PCI} clock --count 1000 --max-error {MAX_ERROR}");
        let killed = second.start_command(&command)?;
        killed.wait_for("is estimated")?;
        second.run("kill -9 $(pidof shmbus)")?;
        let killed = killed.wait()?;
        assert_eq!(killed.status, 128 + 9, "{}", killed.text());
        timers(&second)?;

        // The first one's processor is needed for nothing from here on.
        first.kill();
        let row = figures(&second, row.figure("clock's bound", bound), 300)?;
        row.passed();
    }
    Ok(())
}

/// Without VFIO: the function's files in sysfs, and no interrupts. The other guest has them.
#[test]
fn a_guest_without_vfio_polls() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    for which in newest_or_all() {
        let bus = bus()?;
        let first = over_vfio(&parts, which, &bus)?;
        let sha256 = serve(&first)?;
        let polling = machine(&parts, which, &bus).without_iommu().boot()?;
        let row = Interop::new("ivshmem-doorbell, sysfs", polling.name()).feature("polling");

        talk(&polling, &sha256)?;
        let bound = clock(&polling)?;
        timers(&polling)?;
        first.kill();
        let row = figures(&polling, row.figure("clock's bound", bound), 100)?;
        row.passed();
    }
    Ok(())
}
