//! Peers that are none, at the host's socket: noise, strangers, crowds. The bus serves on, and says little about it.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use support::{Bus, LIMIT, Random, Traffic, contents, eventually, sha256};

const FILE_BYTES: usize = 10_000_000;

/// How many connections a crowd makes.
const CROWD: usize = 10_000;

/// Every kind of line has a rate, and this test causes a few kinds for some seconds.
const MOST_LINES: usize = 250;

/// A bus on which a transfer is going on.
struct BusyBus {
    bus: Bus,
    _server: support::ServingGuest,
    traffic: Traffic,
    before: Footprint,
}

#[derive(Clone, Copy, Debug)]
struct Footprint {
    private_kib: u64,
    descriptors: usize,
    log_lines: usize,
}

impl BusyBus {
    fn start() -> Self {
        let bus = Bus::start();
        let file = contents(FILE_BYTES);
        let server = bus.serve(&bus.scratch.offer("file", &file));
        let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
        traffic.flows(FILE_BYTES as u64);
        let before = Footprint::of(&bus);
        Self {
            bus,
            _server: server,
            traffic,
            before,
        }
    }

    fn connect(&self) -> UnixStream {
        // The backlog may be full for a moment.
        let stream = eventually("the host takes a connection", || {
            UnixStream::connect(&self.bus.socket).ok()
        });
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// The host has given everything back, the transfer goes on and its files are right, and newcomers are served.
    #[track_caller]
    fn assert_unharmed(mut self, what: &str) {
        self.traffic.flows(2 * FILE_BYTES as u64);
        eventually("the host has given the descriptors back", || {
            (self.bus.host.descriptors() <= self.before.descriptors).then_some(())
        });
        let after = Footprint::of(&self.bus);
        println!("{what}: {:?}, then {after:?}", self.before);
        let grown = after.private_kib.saturating_sub(self.before.private_kib);
        assert!(grown < 4096, "the host grew by {grown} KiB");
        let lines = after.log_lines - self.before.log_lines;
        assert!(lines > 0, "not a word about {what}");
        assert!(lines < MOST_LINES, "{lines} lines about {what}");
        assert!(self.bus.host.is_running());
        self.bus
            .guest(&["clock", "--count", "1"])
            .finish()
            .expect_success();
        assert!(self.traffic.stop() > 0);
        let host = self.bus.stop();
        assert!(!host.stderr.contains("panicked"), "{host}");
    }
}

impl Footprint {
    fn of(bus: &Bus) -> Self {
        Self {
            private_kib: bus.host.private_kib(),
            descriptors: bus.host.descriptors(),
            log_lines: bus.host.stderr().lines().count(),
        }
    }
}

/// HELLO, as `docs/local.md` lays it out.
fn hello(version: u16) -> Vec<u8> {
    let mut body = vec![0; 64];
    body[..2].copy_from_slice(&version.to_le_bytes());
    body[2] = 1; // a guest
    body[3] = 4; // bytes of its name
    body[16 + 4] = 1; // VIRTIO_F_VERSION_1: bit 32
    body[32..36].copy_from_slice(b"test");
    frame(1, &body)
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = b"sbus".to_vec();
    frame.extend([kind, 0]);
    frame.extend((body.len() as u16).to_le_bytes());
    frame.extend(body);
    frame
}

/// What the host answers before it hangs up.
fn last_words(mut stream: UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset is an end, too: the host need not have read all that was written.
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn random_bytes_are_hung_up_on() {
    let busy = BusyBus::start();
    let mut random = Random::new(1);
    for _ in 0..500 {
        let mut noise: Vec<u8> = (0..1 + random.below(4000))
            .map(|_| random.next() as u8)
            .collect();
        if random.below(2) == 0 {
            // Noise that begins as it should gets further.
            let start = frame(random.below(12) as u8, &[]);
            let most = noise.len().min(start.len());
            noise[..most].copy_from_slice(&start[..most]);
        }
        let mut stream = busy.connect();
        // It may hang up before everything is written.
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        last_words(stream);
    }
    busy.assert_unharmed("random bytes");
}

#[test]
fn a_hello_of_another_version_is_refused_with_words() {
    let busy = BusyBus::start();
    for version in [0, 1, 3, 0xffff] {
        let mut stream = busy.connect();
        stream.write_all(&hello(version)).unwrap();
        let answer = last_words(stream);
        assert_eq!(&answer[..4], b"sbus");
        assert_eq!(answer[4], 3, "REFUSED");
        assert_eq!(answer[8..10], [1, 0], "code: version");
        let text = String::from_utf8_lossy(&answer[12..]);
        assert!(text.contains("version"), "{text}");
    }
    let mut stream = busy.connect();
    stream.write_all(&hello(2)).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4], 2, "WELCOME: the test's own HELLO is right");
    drop(stream);
    let line = busy.bus.host.said("version");
    assert!(line.contains("WARN"), "{line}");
    busy.assert_unharmed("other versions");
}

#[test]
fn a_crowd_of_connections_leaves_room_for_guests() {
    let busy = BusyBus::start();
    thread::scope(|scope| {
        for part in 0..4 {
            let busy = &busy;
            scope.spawn(move || {
                // Some say nothing and stay, some leave at once, some begin and never go on.
                let mut kept = Vec::new();
                for number in 0..CROWD / 4 {
                    let mut stream = busy.connect();
                    match (number + part) % 3 {
                        0 => kept.push(stream),
                        1 => drop(stream),
                        _ => {
                            let _ = stream.write_all(&hello(2)[..20]);
                            kept.push(stream);
                        }
                    }
                    // As many descriptors as this process may have are not enough for all.
                    kept.truncate(100);
                }
            });
        }
        // Meanwhile a guest comes, works, and goes.
        let timers = busy.bus.guest(&["timer", "--count", "20"]);
        timers.finish().expect_success();
        let most = busy.bus.host.descriptors();
        assert!(most < 200, "{most} descriptors in the crowd");
    });
    busy.assert_unharmed(&format!("{CROWD} connections"));
}

#[test]
fn guests_that_never_finish_their_handshake_are_hung_up_on() {
    let busy = BusyBus::start();
    let mut halfway = Vec::new();
    for _ in 0..100 {
        let mut stream = busy.connect();
        stream.write_all(&hello(2)).unwrap();
        halfway.push(stream);
    }
    let mut refused = 0;
    for stream in halfway {
        // Nobody waits longer than the handshake may take.
        stream
            .set_read_timeout(Some(LIMIT.max(Duration::from_secs(30))))
            .unwrap();
        let answer = last_words(stream);
        refused += usize::from(answer.get(4) == Some(&3));
    }
    // Two good guests hold places, too: 64 are all there is.
    assert_eq!(refused, 100 - 62, "more than there was room for");
    busy.assert_unharmed("unfinished handshakes");
}
