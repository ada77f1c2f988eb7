//! Two stacks on one wire, in virtual time: each turn that moves nothing lets the time jump to the next deadline.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::os::unix::fs::symlink;

use sha2::{Digest, Sha256};

use super::fetch::{Fetch, FetchConfig, FetchError, Fetched, hex};
use super::ping::{Echo, Ping, PingConfig};
use super::serve::{Server, ServerConfig};
use super::{Application, turn};
use crate::net::mac_address::MacAddress;
use crate::net::port::Port;
use crate::net::queues::QueueMemory;
use crate::net::stack::{Stack, StackConfig};
use crate::net::test_port::TestPort;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Only answers what smoltcp answers by itself.
struct Nothing;

impl<P: Port> Application<P> for Nothing {
    fn advance(&mut self, _: &mut Stack<P>, _: Duration) -> bool {
        false
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }
}

struct Wire {
    server: Stack<TestPort>,
    client: Stack<TestPort>,
    now: Duration,
}

impl Wire {
    fn new(room: usize, mtu: u16) -> Self {
        let (near, far) = TestPort::pair(room);
        let stack = |port, address: Ipv4Addr| {
            let memory = QueueMemory::new(256, mtu).unwrap();
            let config = StackConfig::new(MacAddress::local(address.into()), address, 24, memory);
            Stack::new(port, &config, Duration::ZERO).unwrap()
        };
        Self {
            server: stack(near, SERVER),
            client: stack(far, CLIENT),
            now: Duration::ZERO,
        }
    }

    /// Takes turns until `done`, for at most ten virtual minutes.
    fn run<A: Application<TestPort>, B: Application<TestPort>>(
        &mut self,
        server: &mut A,
        client: &mut B,
        mut done: impl FnMut(&mut B, &mut Stack<TestPort>) -> bool,
    ) {
        loop {
            let before = (self.server.counters(), self.client.counters());
            let turns = [
                turn(&mut self.server, server, self.now, 64),
                turn(&mut self.client, client, self.now, 64),
            ];
            if done(client, &mut self.client) {
                return;
            }
            if (self.server.counters(), self.client.counters()) != before
                || turns.iter().any(|turn| turn.more)
            {
                continue;
            }
            let next = turns.iter().filter_map(|turn| turn.deadline).min();
            let next = next.expect("both wait, and for nothing");
            self.now = next.max(self.now + Duration::from_micros(1));
            assert!(self.now < Duration::from_secs(600), "it takes for ever");
        }
    }

    fn fetch(
        &mut self,
        server: &mut Server,
        path: &str,
        patience: Duration,
    ) -> (Result<Fetched, FetchError>, Vec<u8>) {
        let config = FetchConfig {
            connect_timeout: patience,
            ..FetchConfig::new(SERVER, 80, path)
        };
        let mut fetch = Fetch::new(&mut self.client, config, Vec::new(), self.now);
        let mut outcome = None;
        self.run(server, &mut fetch, |fetch, _| {
            outcome = fetch.outcome();
            outcome.is_some()
        });
        if let Some(Ok(_)) = outcome {
            self.run(server, &mut fetch, |fetch, stack| fetch.has_closed(stack));
        }
        (outcome.unwrap(), fetch.finish(&mut self.client))
    }
}

fn serve(wire: &mut Wire, directory: &std::path::Path) -> Server {
    let config = ServerConfig {
        connections: 2,
        ..ServerConfig::default()
    };
    Server::new(&mut wire.server, directory, config).unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "uses files")]
fn files_arrive_whole_and_nothing_outside_is_served() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let root = tempfile::tempdir().unwrap();
    let file: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    fs::write(root.path().join("some file"), &file).unwrap();
    fs::write(root.path().join("empty"), b"").unwrap();
    fs::create_dir(root.path().join("dir")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("leak")).unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink("../some file", root.path().join("dir/inside")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();

    let mut wire = Wire::new(256, 9000);
    let mut server = serve(&mut wire, root.path());
    let patience = Duration::from_secs(5);
    for path in ["/some file", "some file", "dir/inside"] {
        let (outcome, content) = wire.fetch(&mut server, path, patience);
        let fetched = outcome.unwrap();
        assert_eq!(
            (fetched.bytes, fetched.sha256),
            (3_000_000, Sha256::digest(&file).into()),
            "{path}"
        );
        assert!(content == file, "{path}");
    }
    let (outcome, _) = wire.fetch(&mut server, "empty", patience);
    assert_eq!(hex(&outcome.unwrap().sha256[..4]), "e3b0c442");

    for (path, expected) in [
        ("nothing", 404),
        ("some file/x", 404),
        ("", 404),
        ("dir", 403),
        ("pipe", 403),
        ("leak", 403),
        ("out/secret", 403),
        ("../secret", 403),
        ("dir/../../secret", 403),
    ] {
        match wire.fetch(&mut server, path, patience).0 {
            Err(FetchError::Status { code, .. }) => assert_eq!(code, expected, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    match wire.fetch(&mut server, &"x".repeat(4090), patience).0 {
        Err(FetchError::Connect { reason, .. }) => assert_eq!(reason, "the path is too long"),
        other => panic!("{other:?}"),
    }
    let (counters, refused) = (server.counters(), 9);
    assert_eq!(
        (counters.files, counters.bytes, counters.refused),
        (4, 9_000_000, refused)
    );
}

/// A client that sends what it is given and collects what comes back.
struct Raw {
    socket: smoltcp::iface::SocketHandle,
    request: Vec<u8>,
    response: Vec<u8>,
    closed: bool,
}

impl Application<TestPort> for Raw {
    fn advance(&mut self, stack: &mut Stack<TestPort>, _: Duration) -> bool {
        let socket = stack.tcp(self.socket);
        if let Ok(sent) = socket.send_slice(&self.request)
            && sent > 0
        {
            self.request.drain(..sent);
            return true;
        }
        let _ = socket.recv(|data| {
            self.response.extend_from_slice(data);
            (data.len(), ())
        });
        self.closed = !socket.may_recv() && socket.state() != smoltcp::socket::tcp::State::SynSent;
        false
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }
}

#[test]
#[cfg_attr(miri, ignore = "uses files")]
fn bad_requests_get_an_answer_and_free_their_connection() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = Wire::new(64, 1500);
    let mut server = serve(&mut wire, root.path());
    for (request, expected) in [
        ("\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        ("GET x HTTP/1.0\r\n\r\n".to_owned(), "400"),
        ("GET /%00 HTTP/1.0\r\n\r\n".to_owned(), "400"),
        ("GET /%2e%2e/x HTTP/1.0\r\n\r\n".to_owned(), "403"),
        ("PUT /x HTTP/1.0\r\n\r\n".to_owned(), "405"),
        (format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(5000)), "431"),
        (
            format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(70)),
            "431",
        ),
        // Never finished: the server loses its patience.
        ("GET / HTTP/1.0\r\n".to_owned(), ""),
    ] {
        let socket = wire.client.add_tcp(4096, 8192);
        wire.client.connect(socket, (SERVER, 80)).unwrap();
        let mut raw = Raw {
            socket,
            request: request.clone().into_bytes(),
            response: Vec::new(),
            closed: false,
        };
        wire.run(&mut server, &mut raw, |raw, _| raw.closed);
        let status = raw.response.get(9..12).unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(status), expected, "{request}");
        wire.client.tcp(socket).abort();
        let _ = wire.client.poll(wire.now, 1);
        wire.client.remove(socket);
    }
}

#[test]
#[cfg_attr(miri, ignore = "uses files")]
fn a_fetch_says_why_it_failed() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = Wire::new(64, 1500);
    let config = FetchConfig::new(SERVER, 81, "x");
    let mut fetch = Fetch::new(&mut wire.client, config, Vec::new(), Duration::ZERO);
    let mut outcome = None;
    wire.run(&mut Nothing, &mut fetch, |fetch, _| {
        outcome = fetch.outcome();
        outcome.is_some()
    });
    assert_eq!(
        outcome.unwrap().unwrap_err().to_string(),
        "10.0.0.1:81 cannot be connected to: it refuses"
    );
    assert!(
        wire.now >= Duration::from_secs(10),
        "it keeps trying until then"
    );

    // A file that gets shorter while it is sent.
    let path = root.path().join("shrinking");
    fs::write(&path, vec![1; 8_000_000]).unwrap();
    let mut server = serve(&mut wire, root.path());
    let mut fetch = Fetch::new(
        &mut wire.client,
        FetchConfig::new(SERVER, 80, "shrinking"),
        Vec::new(),
        wire.now,
    );
    let mut outcome = None;
    wire.run(&mut server, &mut fetch, |fetch, _| {
        if fetch.progress().0 > 0 {
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(1)
                .unwrap();
        }
        outcome = fetch.outcome();
        outcome.is_some()
    });
    match outcome.unwrap() {
        Err(FetchError::Truncated {
            received,
            expected: 8_000_000,
        }) => assert!(received < 8_000_000),
        other => panic!("{other:?}"),
    }
}

#[test]
fn echoes_are_counted_and_lost_ones_given_up() {
    let mut wire = Wire::new(16, 1500);
    let config = PingConfig {
        count: 3,
        payload_bytes: 1000,
        ..PingConfig::new(SERVER)
    };
    let mut ping = Ping::new(&mut wire.client, config);
    let mut echoes: Vec<Echo> = Vec::new();
    wire.run(&mut Nothing, &mut ping, |ping, _| {
        echoes.extend(ping.next_echo());
        ping.is_done()
    });
    assert_eq!(
        echoes.iter().map(|echo| echo.sequence).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(echoes.iter().all(|echo| echo.round_trip.is_some()));
    assert!(wire.now >= Duration::from_secs(2), "one a second");

    let config = PingConfig {
        count: 1,
        ..PingConfig::new(Ipv4Addr::new(10, 0, 0, 99))
    };
    let mut ping = Ping::new(&mut wire.client, config);
    let mut echo = None;
    wire.run(&mut Nothing, &mut ping, |ping, _| {
        echo = ping.next_echo().or(echo);
        ping.is_done()
    });
    assert_eq!(
        echo,
        Some(Echo {
            sequence: 1,
            round_trip: None
        })
    );
}

#[test]
fn a_segment_that_was_damaged_on_a_wire_is_dropped() {
    let mut wire = Wire::new(16, 1500);
    let socket = wire.client.add_tcp(4096, 4096);
    wire.client.connect(socket, (SERVER, 80)).unwrap();
    let listener = wire.server.add_tcp(4096, 4096);
    wire.server.tcp(listener).listen(80).unwrap();
    for _ in 0..3 {
        let _ = wire.client.poll(wire.now, 16);
        // Every TCP segment of the client loses a bit on its way.
        for (frame, _) in wire.server.port_mut().incoming.borrow_mut().iter_mut() {
            if frame[12..14] == [8, 0] {
                frame[50] ^= 4;
            }
        }
        let _ = wire.server.poll(wire.now, 16);
        wire.now += Duration::from_secs(2);
    }
    assert!(wire.server.counters().discarded_frames >= 2);
    assert!(wire.server.tcp(listener).is_listening());
}
