//! Guests behind ivshmem functions, on one bus with processes: all in processes of this machine, with a client in the place of
//! QEMU. Real virtual machines are in `tests/vm`.

mod support;

#[path = "../transports/tests/qemu/mod.rs"]
mod qemu;

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use shmbus::devices::clock::monotonic_ns;
use shmbus::devices::net::app::fetch::{Fetch, FetchConfig};
use shmbus::devices::net::app::ping::{Ping, PingConfig};
use shmbus::devices::timer::device::role as timer;
use shmbus::guest::timer_driver;
use shmbus::shm::{DirectoryHeader, Field, Mapped, Window, Writing};
use shmbus::transports::ivshmem::layout::Header;
use shmbus::virtio::DeviceId;
use shmbus::{Guest, Network};

use qemu::Qemu;
use support::{Bus, LIMIT, Random, Traffic, contents, eventually, sha256};

/// How long a guest that writes everywhere goes on.
const TIME: Duration = Duration::from_secs(3);

/// What the host may say about it.
const MOST_LINES: usize = 100;

const FILE_BYTES: usize = 10_000_000;

fn attach(qemu: &Qemu, name: &str) -> Guest {
    Guest::attach(qemu.function(), name, LIMIT).unwrap()
}

/// Pings, and returns how many were answered.
fn ping(network: &mut Network, target: Ipv4Addr, count: u32) -> u32 {
    let config = PingConfig {
        count,
        interval: Duration::from_millis(1),
        ..PingConfig::new(target)
    };
    let mut ping = Ping::new(network.stack(), config);
    let mut answers = 0;
    network
        .run(&mut ping, |_, ping, _| {
            while let Some(echo) = ping.next_echo() {
                answers += u32::from(echo.round_trip.is_some());
            }
            match ping.is_done() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .unwrap();
    answers
}

/// Sets a timer, and waits until it has fired.
fn fire(guest: &mut Guest) {
    let device = guest.find(DeviceId::TIMER).unwrap();
    let mut driver = timer_driver(guest, device).unwrap();
    let notify = driver.set(0, monotonic_ns() + 1_000_000).unwrap();
    guest.signal(device, timer::DEADLINES, notify);
    let give_up = Instant::now() + LIMIT;
    let mut fired = false;
    while !fired {
        assert!(Instant::now() < give_up, "the timer does not fire");
        guest.wait(Some(LIMIT)).unwrap();
        while guest.next_event().is_some() {}
        let notify = driver.poll(|_| fired = true).unwrap();
        guest.signal(device, timer::DEADLINES, notify);
    }
}

#[test]
fn guests_in_qemu_and_processes_are_on_one_bus() {
    let bus = Bus::for_qemu("split");
    let file = contents(1_000_000);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let alone = Qemu::connect(&bus.scratch.path("private")).ready();
    let sharing = [0, 1].map(|_| Qemu::connect(&bus.scratch.path("shared")).ready());
    let all = [&alone, &sharing[0], &sharing[1]];

    let mut networks = all.map(|qemu| Network::new(attach(qemu, "vm"), None).unwrap());
    for network in &mut networks {
        assert_eq!(ping(network, server.address, 10), 10);
    }
    // Through the host, whose switch copies between memories.
    let address = networks[0].address();
    let (ours, theirs) = networks.split_at_mut(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It only answers, until the other has seen enough.
            while !stop.load(SeqCst) {
                ping(&mut ours[0], server.address, 1);
            }
        });
        let answers = ping(&mut theirs[1], address, 10);
        stop.store(true, SeqCst);
        assert!(answers > 5, "{answers}");
    });
    drop(networks);

    // The next program in the same virtual machine gets a session of its own.
    for qemu in all {
        let mut guest = attach(qemu, "again");
        fire(&mut guest);
        guest.leave();
    }
    bus.expect_fetch(&server, "file", &file);
    let host = bus.stop();
    assert!(!host.stderr.contains("panicked"), "{host}");
}

/// Their own memories are shown to nobody, as nobody keeps them from writing there. What inspectors see is the gallery.
#[test]
fn inspectors_see_guests_in_qemu() {
    let bus = Bus::for_qemu("split");
    let server = bus.serve(&bus.scratch.offer("file", b"file"));
    let qemu = Qemu::connect(&bus.scratch.path("private")).ready();
    let mut network = Network::new(attach(&qemu, "vm"), None).unwrap();
    assert_eq!(ping(&mut network, server.address, 10), 10);
    let seen = |name: &str| {
        let bus = bus.inspect();
        let guests = bus["guests"].as_array().unwrap();
        guests.iter().find(|guest| guest["name"] == name).cloned()
    };
    let vm = eventually("what it did is seen", || {
        let vm = seen("vm")?;
        let transmitted = vm["rings"][1]["device_positions"]["used"].as_u64()?;
        (transmitted >= 10).then_some(vm)
    });
    assert_eq!(vm["devices"][0]["status"], 0x0f);
    drop(network);
    eventually("it has left", || seen("vm").is_none().then_some(()));

    let mut guest = attach(&qemu, "timed");
    fire(&mut guest);
    eventually("its timer is seen", || {
        let timers = seen("timed")?["timers"].clone();
        (timers[0]["set"] == 1 && timers[0]["expired_ns"].is_u64()).then_some(())
    });
    // Whatever it writes then, in its tables too: it can be looked at, and others are seen as before.
    let local = |guest: serde_json::Value| [guest["devices"].clone(), guest["regions"].clone()];
    let names = bus.inspect()["guests"].clone();
    let name = names
        .as_array()
        .unwrap()
        .iter()
        .find(|guest| guest["name"] != "timed");
    let name = name.unwrap()["name"].as_str().unwrap().to_owned();
    let before = local(seen(&name).unwrap());
    let mut random = Random::new(3);
    for _ in 0..5 {
        scribble(&qemu, &mut random);
        assert_eq!(local(seen(&name).unwrap()), before);
    }
    bus.expect_fetch(&server, "file", b"file");
    let host = bus.stop();
    assert!(!host.stderr.contains("panicked"), "{host}");
}

/// What is there for all is told to a guest in QEMU as well, in a copy of its own, and goes on being told.
#[test]
fn clocks_go_on_in_a_copy_that_is_a_guest_s_own() {
    let bus = Bus::for_qemu("split");
    let qemus = [0, 1].map(|_| Qemu::connect(&bus.scratch.path("shared")).ready());
    let [first, second] = &qemus;
    let mut spoiler = attach(first, "spoiler");
    let mut reader = Network::new(attach(second, "reader"), None).unwrap();
    let area = Header::read(&first.memory)
        .unwrap()
        .area_of(first.id)
        .unwrap();
    let mut random = Random::new(1);
    for round in 0..20 {
        // Whatever it writes over its area ...
        for _ in 0..10_000 {
            let offset = area.offset as usize + 8 * random.below(area.bytes as usize / 8);
            store(&first.memory, offset, random.next());
        }
        spoiler.signal(0, 0, shmbus::shm::Notify::Yes);
        // ... the other's samples are as fresh as ever: twenty a second.
        eventually("a fresh sample", || {
            let reading = reader.reading().ok()?;
            assert!(reading.time_ns.abs_diff(monotonic_ns()) < reading.error_ns + 10_000_000);
            (reading.age_ns < 500_000_000).then_some(())
        });
        std::thread::sleep(Duration::from_millis(20 + round));
    }
}

fn store(memory: &Mapped, offset: usize, word: u64) {
    Field::<u64, _>::new(memory, offset)
        .unwrap()
        .store(word, Relaxed);
}

/// All of BAR 2, the host's own words and sections as well, by a guest that rings, attaches and hangs up meanwhile.
#[test]
fn a_guest_that_writes_all_over_its_memory_harms_itself_alone() {
    rage("split");
}

#[test]
fn a_guest_that_writes_all_over_its_packed_rings_harms_itself_alone() {
    rage("packed");
}

fn rage(ring: &str) {
    let mut bus = Bus::for_qemu(ring);
    let file = contents(FILE_BYTES);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
    traffic.flows(FILE_BYTES as u64);
    let socket = bus.scratch.path("private");
    // One in QEMU goes on as well.
    let honest = Qemu::connect(&socket).ready();
    let mut honest = Network::new(attach(&honest, "honest"), None).unwrap();
    assert_eq!(ping(&mut honest, server.address, 10), 10);
    let (memory, lines) = (bus.host.private_kib(), bus.host.stderr().lines().count());

    let until = Instant::now() + TIME;
    let (mut connections, mut sessions, mut words) = (0, 0, 0);
    let mut random = Random::new(11);
    while Instant::now() < until {
        let qemu = Qemu::connect(&socket).ready();
        connections += 1;
        let header = load_page(&qemu.memory);
        // With those under way eight attachments at most: more would be slow.
        for _ in 0..3 {
            // What it spoilt there keeps nobody else from anything, but itself from finding its area.
            for (index, word) in header.iter().enumerate() {
                store(&qemu.memory, 8 * index, *word);
            }
            // It comes in like any guest, and drives its devices ...
            let guest = eventually("an attachment that it did not write over", || {
                Guest::attach(qemu.function(), "intruder", Duration::from_secs(5)).ok()
            });
            let network = Network::new(guest, None).unwrap();
            sessions += 1;
            // ... and then nothing is what it was. Some begin anew under such circumstances, and some just leave.
            words += scribble(&qemu, &mut random);
            drop(network);
        }
    }
    let said = bus.host.stderr().lines().count() - lines;
    println!(
        "{connections} connections, {sessions} sessions, {words} words; the host wrote {said} lines"
    );
    assert!(
        sessions > 4 && words > 100_000,
        "{sessions} sessions, {words} words"
    );
    assert!(bus.host.is_running(), "{}", bus.host.stderr());
    assert!(said < MOST_LINES, "{said} lines:\n{}", bus.host.stderr());
    assert!(bus.host.private_kib() < memory + 8192);

    assert!(ping(&mut honest, server.address, 10) > 5);
    traffic.flows(2 * FILE_BYTES as u64);
    assert!(traffic.stop() > 0);
    bus.expect_fetch(&server, "file", &file);
    let host = bus.stop();
    assert!(!host.stderr.contains("panicked"), "{host}");
}

fn load_page(memory: &Mapped) -> Vec<u64> {
    let word = |index: usize| Field::<u64, _>::new(memory, 8 * index).unwrap();
    (0..512).map(|index| word(index).load(Relaxed)).collect()
}

/// Writes words everywhere and rings, while the host works on it; attaches meanwhile.
fn scribble(qemu: &Qemu, random: &mut Random) -> u64 {
    let until = Instant::now() + Duration::from_millis(200);
    let stop = AtomicBool::new(false);
    let seed = random.next();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random::new(seed);
            let mut words = 0;
            while !stop.load(SeqCst) {
                let word = match random.below(4) {
                    0 => 0,
                    1 => u64::MAX,
                    2 => random.below(300) as u64,
                    _ => random.next(),
                };
                // Any word of it, or one of its first pages: those of the handshake, directories and tables.
                let len = match random.below(2) {
                    0 => qemu.memory.len(),
                    _ => qemu.memory.len().min(1 << 16),
                };
                store(&qemu.memory, 8 * random.below(len / 8), word);
                words += 1;
            }
            words
        });
        while Instant::now() < until {
            for vector in 0..4 {
                qemu.ring(0, vector);
            }
        }
        let patience = Duration::from_millis(5);
        drop(Guest::attach(qemu.function(), "again", patience));
        stop.store(true, SeqCst);
        writer.join().unwrap()
    })
}

/// Whatever a guest did when QEMU was killed: everything of it is freed, again and again, and the others go on.
#[test]
fn nothing_is_left_of_a_guest_whose_qemu_was_killed() {
    let bus = Bus::for_qemu("split");
    let file = contents(FILE_BYTES);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
    traffic.flows(FILE_BYTES as u64);
    let counts = || (bus.host.descriptors(), mapped(bus.host.id()));
    let before = counts();
    for socket in ["private", "shared"] {
        let socket = bus.scratch.path(socket);
        for _ in 0..3 {
            let qemu = Qemu::connect(&socket).ready();
            let network = Network::new(attach(&qemu, "doomed"), None).unwrap();
            fetch_until_killed(qemu, network, &server.url("file"));
            eventually("everything freed", || (counts() == before).then_some(()));
        }
    }
    traffic.flows(FILE_BYTES as u64);
    assert!(traffic.stop() > 0);
    bus.expect_fetch(&server, "file", &file);
    let host = bus.stop();
    assert!(
        host.stderr.contains("QEMU hung up, or was killed"),
        "{host}"
    );
    assert!(!host.stderr.contains("panicked"), "{host}");
}

/// Has traffic under way, and goes without a word.
fn fetch_until_killed(qemu: Qemu, mut network: Network, url: &str) {
    let (server, _) = url.split_once(':').unwrap();
    let config = FetchConfig::new(server.parse().unwrap(), 80, "/file");
    let now = network.now().unwrap();
    let mut fetch = Fetch::new(network.stack(), config, std::io::sink(), now);
    network
        .run(&mut fetch, |_, fetch, _| match fetch.progress().0 {
            0..1_000_000 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        })
        .unwrap();
    drop(qemu);
    // Its memory goes on being there in this process, and nobody answers.
    drop(network);
}

/// How many of the host's mappings are memories for guests in QEMU.
fn mapped(host: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{host}/maps")).unwrap();
    maps.matches("shmbus-ivshmem").count()
}

#[test]
fn the_directory_says_that_nobody_s_writing_is_enforced() {
    let bus = Bus::for_qemu("split");
    let qemu = Qemu::connect(&bus.scratch.path("private")).ready();
    let guest = attach(&qemu, "reader");
    let area = Header::read(&qemu.memory)
        .unwrap()
        .area_of(qemu.id)
        .unwrap();
    let host = qemu
        .memory
        .narrow(area.offset as usize + 4096, area.bytes as usize - 4096)
        .unwrap();
    let header = DirectoryHeader::read(&host).unwrap();
    assert_eq!(header.writing, Writing::Unenforced);
    drop(guest);
}

#[test]
fn what_cannot_be_served_is_told_with_its_numbers() {
    let scratch = support::Scratch::new();
    let run = |arguments: &[&str]| {
        let mut command = support::program();
        command.arg("host").args(["--device", "net"]);
        command.args(arguments).current_dir(scratch_path(&scratch));
        support::Process::start(&mut command).finish()
    };
    run(&["--ivshmem", "iv,shared,size=1"])
        .expect_error(&["16 guests with", "there may be 1048576"]);
    run(&["--ivshmem", "iv,shared,max-guests=64,size=16"]).expect_error(&[
        "64 guests with",
        "there may be 16777216",
        "larger size",
    ]);
    run(&["--ivshmem", "iv,size=3"]).expect_error(&["power of two"]);
    run(&[]).expect_error(&["--socket"]);
}

fn scratch_path(scratch: &support::Scratch) -> std::path::PathBuf {
    let path = scratch.path("x");
    path.parent().unwrap_or(Path::new("/")).to_owned()
}
