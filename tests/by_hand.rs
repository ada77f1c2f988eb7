//! The commands that a user gives by hand, in separate terminals: what they print, and what they say of mistakes.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use support::{Bus, Process, Scratch, Traffic, contents, eventually, program, sha256};

/// An address that no guest has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 200);

#[test]
fn a_fetched_file_is_the_served_one() {
    let bus = Bus::start();
    let file = contents(5_000_003);
    let directory = bus.scratch.offer("a file", &file);
    fs::write(directory.join("empty"), []).unwrap();
    let server = bus.serve(&directory);

    bus.expect_fetch(&server, "a%20file", &file);
    bus.expect_fetch(&server, "empty", &[]);
    let fetch = |arguments: &[&str]| {
        let url = server.url("a%20file");
        bus.guest(&[&["net", "fetch", &url], arguments].concat())
            .finish()
    };
    fetch(&["--sha256", &sha256(&file)]).expect_success();
    fetch(&["--sha256", &sha256(b"another")]).expect_error(&["not the file"]);
    fetch(&["--sha256", "12"]).expect_error(&["64 hexadecimal digits", "12"]);

    let missing = bus.fetch(&server, "missing").finish();
    missing.expect_error(&["404"]);
    let server = server.process.stop().expect_success();
    assert!(server.stderr.contains("served"), "{server}");
    bus.stop();
}

#[test]
fn a_guest_answers_a_ping_and_nobody_does_not() {
    let bus = Bus::start();
    let server = bus.serve(&bus.scratch.offer("x", b"x"));
    let address = server.address.to_string();
    let ping = bus.guest(&["net", "ping", &address, "--count", "3"]);
    let ping = ping.finish().expect_success();
    assert!(ping.text().contains("3 asked, 3 answered"), "{ping}");

    let nobody = NOBODY.to_string();
    let ping = bus.guest(&["net", "ping", &nobody, "--count", "2"]);
    let ping = ping.finish().expect_error(&[&nobody, "did not answer"]);
    assert!(ping.text().contains("2 asked, 0 answered"), "{ping}");
}

#[test]
fn fetching_from_nobody_says_so() {
    let bus = Bus::start();
    let server = bus.serve(&bus.scratch.offer("x", b"x"));
    let nobody = bus.guest(&["net", "fetch", &format!("{NOBODY}/x")]);
    let refused = bus.guest(&["net", "fetch", &format!("{}:81/x", server.address)]);
    nobody.finish().expect_error(&["10.111.0.200:80"]);
    refused.finish().expect_error(&[":81"]);
}

#[test]
fn the_clock_is_the_machine_s() {
    let bus = Bus::start();
    bus.tells_the_time();
}

#[test]
fn timers_fire_once_for_the_deadline_that_was_left() {
    let bus = Bus::start();
    let arguments = ["timer", "--count", "50", "--ahead", "500"];
    let timer = bus.guest(&arguments).finish().expect_success();
    // Each was set to a later time first, which never fires.
    for words in ["100 deadlines set", "50 superseded", "50 fired"] {
        assert!(timer.text().contains(words), "{words}: {timer}");
    }
    assert_eq!(bus.counter("timer", "fired"), 50);
}

/// One guest raises, another takes: edges that nobody looked at between come together, a level lasts as long as it is
/// held, and falls with whoever held it.
#[test]
fn guests_interrupt_each_other() {
    let bus = Bus::with(&["--device", "intc,lines=1000"]);
    let watch = |arguments: &[&str]| {
        let watching = bus.guest(&[&["intc", "watch"], arguments].concat());
        watching.said("taking interrupts");
        watching
    };
    let raise = |arguments: &[&str]| {
        bus.guest(&[&["intc", "raise"], arguments].concat())
            .finish()
    };

    let everything = watch(&[]);
    let some = watch(&["7:3", "999:0"]);
    raise(&["7", "--edges", "500"]).expect_success();
    raise(&["8"]).expect_success();
    bus.guest(&["intc", "hold", "999", "--seconds", "0.1"])
        .finish()
        .expect_success();
    let holder = bus.guest(&["intc", "hold", "3", "--seconds", "3600"]);
    let line_3 = |bus: &Bus, up: bool| {
        let what = format!("line 3 is up: {up}");
        eventually(&what, || {
            let view = bus.inspect();
            let guests = view["guests"].as_array().unwrap();
            let mut lines = guests
                .iter()
                .flat_map(|guest| guest["lines"].as_array().unwrap());
            let is_up = lines.any(|line| line["line"] == 3 && line["asserted"] == true);
            (is_up == up).then_some(())
        });
    };
    line_3(&bus, true);
    holder.kill();
    line_3(&bus, false);
    let view = Process::start(program().args(["inspect", "--socket"]).arg(&bus.socket)).finish();
    assert!(
        view.text().contains("500 edges, 500 delivered in"),
        "{view}"
    );
    assert_eq!(bus.counter("intc", "raised"), 501);

    for (watching, expected) in [(everything, 501), (some, 500)] {
        let watched = watching.stop().expect_success();
        let sum = format!("for {expected} edges");
        assert!(watched.text().contains(&sum), "{watched}");
        let edges = |line: &str| -> u64 {
            let shown = watched
                .text()
                .lines()
                .filter(|shown| shown.starts_with(line));
            let edges = shown.filter_map(|shown| shown.split_once("): ")?.1.split_once(' '));
            edges.map(|(edges, _)| edges.parse::<u64>().unwrap()).sum()
        };
        assert_eq!(edges("line 7 "), 500, "{watched}");
        assert_eq!(edges("line 8 "), expected - 500, "{watched}");
        for words in ["line 999 (priority", "level up", "line 999: the level fell"] {
            assert!(watched.text().contains(words), "{words}: {watched}");
        }
    }

    let nowhere = raise(&["1000"]);
    nowhere.expect_error(&["1000 lines", "no line 1000"]);
    bus.guest(&["intc", "watch", "3:32"])
        .finish()
        .expect_error(&["LINE:PRIORITY"]);
    bus.stop();
}

/// The formats of rings, with the feature bits that they are negotiated by: virtio's, and private ones.
const FORMATS: [(&str, u128, u128); 5] = [
    ("split", 0, 0),
    ("split-inorder", 1 << 35, 0),
    ("packed", 1 << 34, 0),
    ("packed-inorder", 1 << 34 | 1 << 35, 0),
    ("tagged", 0, 1 << 3),
];

/// A file is moved in each format, whole, and a third party sees how both sides of every ring get on meanwhile.
#[test]
fn rings_of_every_format_move_a_file_and_show_their_lag() {
    for (format, bits, private) in FORMATS {
        let bus = Bus::on_rings(format);
        let file = contents(3_000_001);
        let server = bus.serve(&bus.scratch.offer("file", &file));
        bus.expect_fetch(&server, "file", &file);
        let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
        traffic.flows(1);

        let mut seen = BTreeMap::<_, BTreeSet<_>>::new();
        eventually("both sides of every ring move on", || {
            let view = bus.inspect();
            let mut there = 0;
            for guest in view["guests"].as_array().unwrap() {
                let accepted = |features: &str| {
                    let features = guest["devices"][0][features].as_str().unwrap();
                    u128::from_str_radix(features.trim_start_matches("0x"), 16).unwrap()
                };
                assert_eq!(accepted("features") & (3 << 34), bits, "{guest}");
                assert_eq!(accepted("private_features"), private, "{guest}");
                for ring in guest["rings"].as_array().unwrap() {
                    assert_ring_seen_whole(ring, format);
                    for side in ["driver_positions", "device_positions"] {
                        let queue = ring["queue"].as_str().unwrap();
                        let positions = ring[side].to_string();
                        let session = guest["session"].as_u64();
                        let whose = (session, queue.to_owned(), side);
                        seen.entry(whose).or_default().insert(positions);
                        there += 1;
                    }
                }
            }
            let moved = seen.values().filter(|positions| positions.len() > 1);
            (there == 8 && moved.count() >= 8).then_some(())
        });
        traffic.flows(2 * file.len() as u64);
        assert!(traffic.stop() > 0);
        drop(server);
        bus.stop();
    }
}

#[test]
fn an_inspector_sees_a_transfer_without_disturbing_it() {
    let bus = Bus::start();
    let file = contents(20_000_000);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
    traffic.flows(1);

    let rings = |view: &Value, queue: &str| -> u64 {
        let guests = view["guests"].as_array().unwrap();
        let rings = guests
            .iter()
            .flat_map(|guest| guest["rings"].as_array().unwrap());
        let ring = rings.filter(|ring| ring["queue"] == queue);
        ring.map(|ring| ring["device_positions"]["used"].as_u64().unwrap())
            .sum()
    };
    let before = bus.inspect();
    let moved = eventually("the rings move on", || {
        let now = bus.inspect();
        let moves = |queue| rings(&now, queue) != rings(&before, queue);
        (moves("receiveq1") && moves("transmitq1")).then_some(now)
    });
    for guest in moved["guests"].as_array().unwrap() {
        assert_seen_whole(guest);
    }
    let clock = &moved["devices"][1];
    assert_eq!(clock["kind"], "clock");
    let clocks = clock["clocks"].as_array().unwrap();
    assert!(!clocks.is_empty() && clocks.iter().all(|c| c["now_ns"].as_u64() > Some(0)));
    assert!(bus.counter("net", "frames") > 0);
    assert!(moved["totals"]["signals_sent"].as_u64() > Some(0));

    assert_reads_well(&bus.socket);
    assert_can_be_watched(&bus.socket);
    traffic.flows(2 * file.len() as u64);
    assert!(traffic.stop() > 0);
    drop(server);
    eventually("nobody is left", || (bus.guests() == 0).then_some(()));
    bus.stop();
}

/// A guest's devices are in use, and its directory tells of every region's place.
#[track_caller]
fn assert_seen_whole(guest: &Value) {
    assert!(guest["name"].as_str().unwrap().starts_with("guest-"));
    for kind in ["net", "timer"] {
        let devices = guest["devices"].as_array().unwrap();
        let device = devices
            .iter()
            .find(|device| device["kind"] == kind)
            .unwrap();
        // ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK (virtio 1.4, 2.1).
        assert_eq!(device["status"], 0x0f, "{device}");
    }
    let rings = guest["rings"].as_array().unwrap();
    assert_eq!(rings.len(), 2, "{guest}");
    for ring in rings {
        assert_ring_seen_whole(ring, "split");
    }
    assert!(!guest["timers"].as_array().unwrap().is_empty(), "{guest}");

    let regions = guest["regions"].as_array().unwrap();
    let mut places: Vec<(&str, u64, u64)> = regions
        .iter()
        .map(|region| {
            let number = |name: &str| region[name].as_u64().unwrap();
            let memory = region["memory"].as_str().unwrap();
            (memory, number("offset"), number("offset") + number("bytes"))
        })
        .collect();
    places.sort_unstable();
    assert!(places.len() > 20, "{guest}");
    for pair in places.windows(2) {
        let (one, next) = (pair[0], pair[1]);
        assert!(one.0 != next.0 || one.2 <= next.1, "{one:?} {next:?}");
    }
}

/// Both sides of a ring tell how far they have come, and neither is ahead of what the other has published.
#[track_caller]
fn assert_ring_seen_whole(ring: &Value, format: &str) {
    assert_eq!(ring["format"], format, "{ring}");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{ring}"));
    let size = number(&ring["size"]);
    for side in ["driver_positions", "device_positions"] {
        for position in ["available", "used", "in_flight"] {
            number(&ring[side][position]);
        }
        assert!(number(&ring[side]["in_flight"]) <= size, "{ring}");
    }
    for lag in ["available_lag", "used_lag"] {
        assert!(number(&ring[lag]) <= size, "{ring}");
    }
}

/// What people get to see.
fn assert_reads_well(socket: &Path) {
    let command = &mut program();
    let view = Process::start(command.arg("inspect").arg("--socket").arg(socket)).finish();
    let view = view.expect_success();
    for word in [
        "2 guest(s) now",
        "devices",
        "receiveq1",
        "transmitq1",
        "timer",
        "monotonic",
        "directory of",
    ] {
        assert!(view.text().contains(word), "no {word}: {view}");
    }
}

/// Looks again and again, until whoever reads it has seen enough.
fn assert_can_be_watched(socket: &Path) {
    let watch = |more: &str| {
        let mut command = std::process::Command::new("sh");
        let line = format!("\"$0\" inspect --socket \"$1\" --watch 0.05 {more}");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_shmbus")]);
        Process::start(command.arg(socket))
            .finish()
            .expect_success()
    };
    let views = watch("--json | head -n 20");
    let mut seen = BTreeSet::new();
    for line in views.text().lines() {
        let view: Value = serde_json::from_str(line).unwrap();
        seen.insert(view["guests"][0]["rings"][0].to_string());
    }
    assert!(seen.len() > 1, "nothing moves: {views}");
    let views = watch("| head -n 40");
    assert!(views.text().matches("guest(s) now").count() > 1, "{views}");
    assert!(!views.text().contains("directory of"), "{views}");
    assert!(!views.text().contains('\x1b'), "no terminal: {views}");
}

#[test]
fn what_is_recorded_can_be_read_and_replayed() {
    let scratch = Scratch::new();
    let pcap = scratch.path("frames.pcap");
    let bus = Bus::with(&["--record", pcap.to_str().unwrap()]);
    let file = contents(300_000);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    bus.expect_fetch(&server, "file", &file);
    server.process.stop().expect_success();
    let frames = bus.counter("net", "frames");
    bus.stop();

    let recorded = frames_of(&pcap);
    assert_eq!(recorded.len() as u64, frames, "every frame is in the file");
    let payload: usize = recorded.iter().map(Vec::len).sum();
    assert!(payload > file.len(), "{payload} bytes");
    // The request, as it crossed the switch: EtherType IPv4, protocol TCP, port 80.
    let request = recorded.iter().find(|frame| {
        let text = String::from_utf8_lossy(frame);
        frame[12..14] == [8, 0] && frame[23] == 6 && text.contains("GET /file HTTP/1.")
    });
    assert_eq!(request.expect("a request")[36..38], [0, 80]);

    let others = scratch.path("others.pcap");
    let again = scratch.path("again.pcap");
    let recorded = as_others(&pcap, &others);
    let bus = Bus::with(&[
        "--replay",
        others.to_str().unwrap(),
        "--record",
        again.to_str().unwrap(),
    ]);
    assert_eq!(bus.counter("net", "frames"), 0, "nobody is there to see it");
    let server = bus.serve(&bus.scratch.offer("file", &file));
    // The guest's answers are counted too: the recording is over when nothing comes any more.
    let mut before = 0;
    eventually("every frame is sent again", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = bus.counter("net", "frames");
        let is_over = now >= frames && now == before;
        before = now;
        is_over.then_some(())
    });
    server.process.stop().expect_success();
    bus.stop();
    // The guest answers some of them: its own frames are in between.
    let again = frames_of(&again);
    let mut rest = again.iter();
    let missing = recorded
        .iter()
        .position(|frame| !rest.any(|found| found == frame));
    assert_eq!(missing, None, "of {} frames", recorded.len());
}

/// Writes a recording anew, with sources that are no guests': a guest's address is its own, and a frame that claims it
/// elsewhere is dropped.
fn as_others(from: &Path, to: &Path) -> Vec<Vec<u8>> {
    use pcap_file::pcap::{PcapReader, PcapWriter};
    let mut reader = PcapReader::new(fs::File::open(from).unwrap()).unwrap();
    let header = reader.header();
    let mut writer = PcapWriter::with_header(fs::File::create(to).unwrap(), header).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let mut packet = packet.unwrap().into_owned();
        // The source, in bytes 6 to 11, stays one that is locally administered.
        packet.data.to_mut()[6] = 0x06;
        writer.write_packet(&packet).unwrap();
        frames.push(packet.data.into_owned());
    }
    frames
}

fn frames_of(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::File::open(path).unwrap();
    let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap().data.into_owned());
    }
    frames
}

#[test]
fn a_pcap_file_that_is_none_is_refused() {
    let scratch = Scratch::new();
    let junk = scratch.path("junk.pcap");
    fs::write(&junk, contents(1000)).unwrap();
    for (path, words) in [
        (junk, "junk.pcap"),
        (scratch.path("missing.pcap"), "missing.pcap"),
    ] {
        let host = host(&scratch, &["--device", "net", "--replay"], path.to_str());
        host.finish().expect_error(&[words]);
    }
}

fn host<'a>(
    scratch: &Scratch,
    arguments: &[&'a str],
    last: impl IntoIterator<Item = &'a str>,
) -> Process {
    let mut command = program();
    command.arg("host").arg("--socket").arg(scratch.path("bus"));
    Process::start(command.args(arguments).args(last))
}

#[test]
fn mistakes_are_explained() {
    let scratch = Scratch::new();
    let socket = scratch.path("nothing-here");
    let socket = socket.to_str().unwrap();
    let run = |arguments: &[&str]| Process::start(program().args(arguments)).finish();
    // A guest waits a while for a host that is about to start.
    run(&["guest", "--socket", socket, "clock"]).expect_error(&[socket, "start the host"]);
    run(&["inspect", "--socket", socket]).expect_error(&[socket, "start the host"]);
    run(&["host", "--socket", socket]).expect_error(&["--device"]);
    for period in ["0", "x", "4000"] {
        run(&["inspect", "--socket", socket, "--watch", period]).expect_error(&["0.01 to 3600"]);
    }
    for (device, word) in [
        ("disk", "net, clock, timer or intc"),
        ("intc,lines=0", "1 to 65536"),
        ("clock,lines=4", "lines is no option"),
        ("timer:0", "1 to 10000"),
        ("net:2", "one net device"),
        ("net,ring=round", "packed-inorder"),
        ("timer,ring=packed", "over tables"),
    ] {
        run(&["host", "--socket", socket, "--device", device]).expect_error(&[word]);
    }
    let guest =
        |arguments: &[&str]| run(&[&["guest", "--socket", socket, "net"], arguments].concat());
    guest(&["fetch", "example/x"]).expect_error(&["IPv4"]);
    guest(&["ping", "nowhere"]).expect_error(&["nowhere"]);
    run(&["guest", "--socket", socket, "--name", "a b", "clock"])
        .expect_error(&["letters, digits"]);
}

#[test]
fn a_missing_device_is_named() {
    let scratch = Scratch::new();
    let host = host(&scratch, &["--device", "timer"], []);
    host.said("serving");
    let socket = scratch.path("bus");
    let guest = |arguments: &[&str]| {
        let mut command = program();
        command.arg("guest").arg("--socket").arg(&socket);
        Process::start(command.args(arguments)).finish()
    };
    guest(&["clock"]).expect_error(&["no clock device", "--device clock"]);
    guest(&["intc", "watch"]).expect_error(&["no intc device", "--device intc"]);
    guest(&["net", "serve", "."]).expect_error(&["no net device", "--device net"]);
    host.stop().expect_success();
}

#[test]
fn a_socket_belongs_to_one_host() {
    let bus = Bus::start();
    let second = |socket: &Path| {
        let mut command = program();
        command.args(["host", "--device", "clock", "--socket"]);
        Process::start(command.arg(socket)).finish()
    };
    second(&bus.socket).expect_error(&["another host is listening"]);
    assert_eq!(bus.guests(), 0, "the first one serves on");

    let file = bus.scratch.path("file");
    fs::write(&file, "precious").unwrap();
    second(&file).expect_error(&["not a socket"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let socket = bus.socket.clone();
    let scratch = bus.scratch;
    bus.host.stop().expect_success();
    assert!(!socket.exists(), "{}", scratch.path("").display());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let bus = Bus::start();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "\"$0\" inspect --socket \"$1\" | true; echo seen"]);
    let socket = bus.socket.to_str().unwrap();
    command.args([env!("CARGO_BIN_EXE_shmbus"), socket]);
    let finished = Process::start(&mut command).finish().expect_success();
    assert_eq!(finished.stderr, "", "{finished}");
}
