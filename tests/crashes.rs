//! Processes that are killed in the middle of their work: the others go on.

mod support;

use std::collections::BTreeSet;

use rustix::process::Signal;

use support::{Bus, Traffic, contents, eventually, sha256};

/// Guests killed one after the other.
const KILLS: usize = 50;

/// A file that takes long enough to be interrupted.
const BYTES: usize = 30_000_000;

/// Takes turns at being in the middle of a transfer and being killed.
fn kill_guests(bus: &Bus, server: &support::ServingGuest, sum: &str, kills: usize) {
    for _ in 0..kills {
        let victim = Traffic::start(bus, server, "file", sum);
        victim.flows(1);
        victim.process.kill();
    }
}

fn gone(bus: &Bus, left: usize) {
    eventually("the host has noticed", || {
        // A guest whose socket is closed is no longer shown, and counted out a little later.
        let view = bus.inspect();
        let shown = view["guests"].as_array().unwrap().len();
        (shown == left && view["totals"]["guests"] == left as u64).then_some(())
    });
}

#[test]
fn a_killed_guest_takes_nothing_with_it() {
    let mut bus = Bus::start();
    let file = contents(BYTES);
    let sum = sha256(&file);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let traffic = Traffic::start(&bus, &server, "file", &sum);
    traffic.flows(1);

    // The first ones make the host's heap and tables as large as they need to be.
    kill_guests(&bus, &server, &sum, 5);
    gone(&bus, 2);
    let (memory, descriptors) = (bus.host.private_kib(), bus.host.descriptors());
    let mapped = bus.host.resident_kib();
    let fired = bus.counter("timer", "fired");

    kill_guests(&bus, &server, &sum, KILLS - 5);
    gone(&bus, 2);
    eventually("no descriptor leaks, the last inspector's included", || {
        (bus.host.descriptors() == descriptors).then_some(())
    });
    let grown = bus.host.private_kib().saturating_sub(memory);
    assert!(grown < 1024, "the host's heap grew by {grown} KiB");
    let grown = bus.host.resident_kib().saturating_sub(mapped);
    assert!(grown < 8192, "the host's mappings grew by {grown} KiB");
    let view = bus.inspect();
    assert_eq!(view["totals"]["guests"], 2, "{}", view["totals"]);
    assert_eq!(view["totals"]["guests_ever"], KILLS as u64 + 2);
    assert_eq!(bus.counter("net", "ports"), 2);

    // The one that was there all the time got every byte, and its timers went on.
    traffic.flows(BYTES as u64);
    assert!(bus.counter("timer", "fired") > fired);
    assert!(traffic.stop() > 0);
    // An address is free again when its guest is gone.
    let timers = bus.guest(&["timer", "--count", "20"]);
    let fetch = bus.fetch(&server, "file");
    timers.finish().expect_success();
    let fetched = fetch.finish().expect_success();
    assert!(fetched.stdout == file, "another file: {fetched}");

    assert!(bus.host.is_running());
    let lines = bus.host.stderr().lines().count();
    // Two or three for each guest that comes and is killed.
    assert!(lines < 4 * KILLS, "{lines} lines");
    println!(
        "{KILLS} guests killed in mid-transfer: {descriptors} descriptors before and after, host's heap {} KiB",
        bus.host.private_kib()
    );
    bus.stop();
}

#[test]
fn a_killed_guest_s_address_goes_to_the_next() {
    let bus = Bus::start();
    let directory = bus.scratch.offer("file", b"contents");
    let mut addresses = BTreeSet::new();
    for _ in 0..5 {
        let server = bus.serve(&directory);
        bus.expect_fetch(&server, "file", b"contents");
        addresses.insert(server.address);
        server.process.kill();
        gone(&bus, 0);
    }
    assert_eq!(addresses.len(), 1, "{addresses:?}");
}

#[test]
fn a_host_that_is_killed_and_restarted_gets_its_guests_back() {
    let mut bus = Bus::start();
    let file = contents(BYTES);
    let sum = sha256(&file);
    let directory = bus.scratch.offer("file", &file);
    let mut server = bus.serve(&directory);
    let mut traffic: Vec<_> = (0..2)
        .map(|_| Traffic::start(&bus, &server, "file", &sum))
        .collect();

    // The next host may have other rings: guests take what they find.
    for format in ["packed", "tagged", "split"] {
        traffic.iter().for_each(|guest| guest.flows(1));
        let killed = bus.restart_host(Signal::KILL, format);
        // Connections go on where they were: bytes are counted within one fetch.
        traffic.iter().for_each(|guest| guest.flows(BYTES as u64));
        assert_eq!(bus.guests(), 3, "{killed}");
    }
    for guest in &mut traffic {
        assert!(guest.process.is_running());
    }
    assert!(server.process.is_running());
    for guest in traffic {
        assert!(guest.stop() > 0);
    }
    // A newcomer finds the server where it was.
    bus.expect_fetch(&server, "file", &file);
}

#[test]
fn a_host_that_is_stopped_says_goodbye_and_its_guests_wait_for_the_next() {
    let mut bus = Bus::start();
    let file = contents(BYTES);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
    traffic.flows(1);
    bus.restart_host(Signal::TERM, "split").expect_success();
    traffic.flows(BYTES as u64);
    assert!(traffic.stop() > 0);
    let said = server.process.stop().expect_success();
    for words in ["the host is gone", "on the bus again"] {
        assert!(said.stderr.contains(words), "{words}: {said}");
    }
}

/// Who takes interrupts goes on with the next host, and has lost none that the one before had raised.
#[test]
fn interrupts_go_on_with_a_restarted_host() {
    let scratch = support::Scratch::new();
    let socket = scratch.path("bus");
    let host = || {
        let mut command = support::program();
        command.args(["host", "--device", "intc", "--socket"]);
        let host = support::Process::start(command.arg(&socket));
        host.said("serving");
        host
    };
    let guest = |arguments: &[&str]| {
        let mut command = support::program();
        command.args(["guest", "--socket"]).arg(&socket);
        support::Process::start(command.arg("intc").args(arguments))
    };
    let first = host();
    let watching = guest(&["watch"]);
    watching.said("taking interrupts");
    let raise = |edges: u64| {
        let number = edges.to_string();
        let raising = guest(&["raise", "5", "--edges", &number]);
        raising.finish().expect_success();
        eventually("the host has passed everything on", || {
            let view = support::inspect(&socket).expect_success().json();
            let raised = &view["devices"][0]["counters"][0];
            assert_eq!(raised[0], "raised");
            (raised[1] == edges).then_some(())
        });
    };
    raise(20);
    first.kill();
    let second = host();
    eventually("its driver is ready again", || {
        let view = support::inspect(&socket).expect_success().json();
        (view["guests"][0]["devices"][0]["status"] == 0x0f).then_some(())
    });
    raise(30);
    // It waits for a third one that does not come; and may be told to stop waiting.
    second.kill();
    watching.said("failures=8");
    let watched = watching.stop().expect_success();
    assert!(watched.text().contains("for 50 edges"), "{watched}");
}
