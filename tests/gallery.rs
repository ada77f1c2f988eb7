//! The file in which a host shows its bus: what is in it, what is not, and what becomes of it.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use self::support::{Bus, Process, Random, Traffic, contents, eventually, program, sha256};

/// A bus with its file beside the socket.
fn start() -> (Bus, std::path::PathBuf) {
    let directory = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let file = directory.keep().join("gallery");
    let bus = Bus::with(&["--inspect-file", file.to_str().unwrap()]);
    (bus, file)
}

/// Ends the host, whose file goes with it.
fn end(mut bus: Bus, file: &Path) {
    bus.host.signal(Signal::TERM);
    bus.host.wait().expect_success();
    assert!(!file.exists());
    fs::remove_dir(file.parent().unwrap()).unwrap();
}

fn inspect_file(file: &Path) -> Process {
    let mut command = program();
    command.arg("inspect").arg("--file").arg(file).arg("--json");
    Process::start(&mut command)
}

/// What the file shows, but for what differs with each look.
fn shown(file: &Path) -> Value {
    let finished = inspect_file(file).finish().expect_success();
    without_now(serde_json::from_slice(&finished.stdout).unwrap())
}

fn without_now(mut bus: Value) -> Value {
    for device in bus["devices"].as_array_mut().unwrap() {
        let Some(device) = device.as_object_mut() else {
            continue;
        };
        device.remove("clocks");
        // The clock goes on: what it has counted is another number each time.
        if device["kind"] == "clock" {
            device.remove("counters");
        }
    }
    bus
}

fn count(bus: &Value, name: &str) -> u64 {
    let counters = bus["devices"][0]["counters"].as_array().unwrap();
    let found = counters.iter().find(|counter| counter[0] == name).unwrap();
    found[1].as_u64().unwrap()
}

#[test]
fn a_file_shows_what_the_socket_shows_while_guests_come_and_go() {
    let (bus, file) = start();
    let bytes = contents(3 << 20);
    let server = bus.serve(&bus.scratch.offer("file", &bytes));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&bytes));
    traffic.flows(1);
    for _ in 0..5 {
        let before = without_now(bus.inspect());
        let guest = bus.guest(&["timer", "--count", "3"]);
        traffic.flows(1 << 20);
        guest.finish().expect_success();
        // What the socket showed before, the file shows by now, or newer.
        let after = eventually("the file is not behind", || {
            let after = shown(&file);
            (count(&after, "frames") >= count(&before, "frames")).then_some(after)
        });
        let guests = after["guests"].as_array().unwrap();
        let busy = guests.iter().filter(|guest| {
            let rings = guest["rings"].as_array().unwrap();
            rings
                .iter()
                .any(|ring| ring["driver_positions"]["available"] != 0)
        });
        assert!(busy.count() >= 2, "{after:#}");
    }
    assert!(traffic.stop() > 0);
    let there = eventually("the file and the socket show the same", || {
        let (at_socket, in_file) = (without_now(bus.inspect()), shown(&file));
        (at_socket == in_file).then_some(in_file)
    });
    assert_eq!(there["guests"].as_array().unwrap().len(), 1);
    assert_eq!(there["guests"][0]["rings"].as_array().unwrap().len(), 2);
    drop(server);
    end(bus, &file);
}

/// The host writes the file and never reads it.
#[test]
fn what_others_write_to_the_file_changes_nothing_else() {
    let (bus, file) = start();
    let bytes = contents(1 << 20);
    let server = bus.serve(&bus.scratch.offer("file", &bytes));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&bytes));
    traffic.flows(1);
    let scribbled = OpenOptions::new().write(true).open(&file).unwrap();
    let length = scribbled.metadata().unwrap().len();
    let mut random = Random::new(7);
    for round in 0..40 {
        let before = count(&bus.inspect(), "frames");
        // All of it, or pages here and there, so that some of it still makes sense.
        let pages: Vec<u64> = match round % 4 {
            0 => (0..length / 4096).collect(),
            _ => (0..64).map(|_| random.next() % (length / 4096)).collect(),
        };
        let noise: Vec<u8> = (0..4096).map(|_| random.next() as u8).collect();
        for page in pages {
            scribbled.write_all_at(&noise, page * 4096).unwrap();
        }
        let seen = inspect_file(&file).finish();
        assert!(seen.status.code().is_some_and(|code| code <= 1), "{seen}");
        traffic.flows(1 << 16);
        eventually("frames are counted", || {
            (count(&bus.inspect(), "frames") > before).then_some(())
        });
    }
    // The frames went through, and the file's first page is as it was left: noise.
    assert!(traffic.stop() > 0);
    inspect_file(&file)
        .finish()
        .expect_error(&["not a gallery"]);
    drop(server);
    end(bus, &file);
}

#[test]
fn no_byte_of_a_packet_is_in_the_file() {
    let (bus, file) = start();
    let pattern = b"A packet's own!!";
    let bytes = pattern.repeat(1 << 16);
    let server = bus.serve(&bus.scratch.offer("file", &bytes));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&bytes));
    traffic.flows(4 << 20);
    let shows = |needle: &[u8]| {
        let found = fs::read(&file).unwrap();
        found.windows(needle.len()).any(|window| window == needle)
    };
    for _ in 0..20 {
        // Half of it, wherever it begins, is in any part of the stream of that length.
        assert!(!shows(&pattern[..8]) && !shows(&pattern[8..]));
        traffic.flows(1 << 18);
    }
    assert!(shows(b"shmbusgl"), "the search finds what is there");
    assert!(traffic.stop() > 0);
    drop(server);
    end(bus, &file);
}

#[test]
fn a_file_is_one_hosts_and_does_not_outlive_it_for_long() {
    let (bus, file) = start();
    let path = file.to_str().unwrap();
    let second = |socket: &Path| {
        let mut command = program();
        command.arg("host").arg("--socket").arg(socket);
        command.args(["--device", "clock", "--inspect-file", path]);
        Process::start(&mut command)
    };
    let refused = second(&bus.scratch.path("second")).finish();
    refused.expect_error(&["another host shows its bus in"]);
    shown(&file);

    let scratch = bus.scratch;
    bus.host.kill();
    assert!(file.exists());
    // What a dead host left can still be looked at.
    assert_eq!(shown(&file)["devices"].as_array().unwrap().len(), 3);
    let mut next = second(&scratch.path("third"));
    next.said("serving");
    assert_eq!(shown(&file)["devices"].as_array().unwrap().len(), 1);
    next.signal(Signal::TERM);
    next.wait().expect_success();
    assert!(!file.exists());
    fs::remove_dir(file.parent().unwrap()).unwrap();
}
