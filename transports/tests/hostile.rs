//! A host among peers that want it harm: it must not grow, not spin, not fall, and say in a few lines what happened.
#![cfg(not(miri))] // Miri has no sockets

mod host;
mod raw;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use host::{Host, PAGE, guest, join, name};
use raw::{Raw, hello, hello_as, memfd};
use rustix::fs::SealFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmbus_shm::{MemoryId, Section};
use shmbus_transports::local::message::{Announcement, GoodbyeReason, Message, PeerRole};
use shmbus_transports::local::{
    CloseReason, GuestLink, Inspector, ListenerOptions, Quotas, RefusalCode,
};

/// The limit on descriptors that an ordinary user has.
fn use_default_limits() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.map_or(1024, |current| current.min(1024));
    let lowered = Rlimit {
        current: Some(current),
        ..limit
    };
    setrlimit(Resource::Nofile, lowered).unwrap();
}

/// A host with a guest whose session must outlive everything that happens to the host.
struct Besieged {
    host: Host,
    survivor: GuestLink,
    started: Instant,
    _directory: tempfile::TempDir,
}

impl Besieged {
    fn start(quotas: Quotas) -> Self {
        use_default_limits();
        let directory = tempfile::tempdir().unwrap();
        let options = ListenerOptions {
            quotas,
            ..ListenerOptions::default()
        };
        let host = Host::start(&directory.path().join("bus"), options);
        let survivor = join(&host.path, &guest("survivor"));
        Self {
            host,
            survivor,
            started: Instant::now(),
            _directory: directory,
        }
    }

    fn path(&self) -> &Path {
        &self.host.path
    }

    /// The session that was there goes on, and others are served.
    fn assert_serves(&mut self) {
        assert!(self.survivor.next_event().is_none());
        let late = join(self.path(), &guest("late"));
        late.goodbye(GoodbyeReason::Finished);
        let mut inspector = Inspector::connect(self.path(), name("late"), host::TIMEOUT).unwrap();
        assert!(!inspector.list().unwrap().is_empty());
    }

    /// For each of five sorts of trouble eight lines at once and one a second, and the counts of the rest.
    fn assert_brief(&self) -> String {
        let log = self.host.log.text();
        let seconds = self.started.elapsed().as_secs() as usize;
        let lines = log.lines().count();
        assert!(lines <= 5 * (8 + seconds + 1), "{lines} lines:\n{log}");
        log
    }

    /// Waits for a line.
    fn assert_logged(&self, what: &str) {
        let deadline = Instant::now() + host::TIMEOUT;
        while !self.host.log.text().contains(what) {
            assert!(
                Instant::now() < deadline,
                "no \"{what}\" in:\n{}",
                self.host.log.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn refusal(peer: &mut Raw) -> (RefusalCode, String) {
    match &peer.read_to_end()[..] {
        [Message::Refusal(refusal)] => (refusal.code, refusal.text.to_string()),
        other => panic!("expected REFUSED and the end, found {other:?}"),
    }
}

#[test]
fn ten_thousand_connections() {
    let mut besieged = Besieged::start(Quotas::default());
    let mut held = VecDeque::new();
    for _ in 0..10_000 {
        held.push_back(UnixStream::connect(besieged.path()).unwrap());
        if held.len() > 300 {
            held.pop_front();
        }
    }
    besieged.assert_serves();
    let most = besieged.host.most_connections.load(Ordering::Relaxed);
    // The survivor, the late guest, an inspector.
    assert!(most <= Quotas::default().silent + 3, "{most} connections");
    besieged.assert_logged("more since the last such line");
    let log = besieged.assert_brief();
    assert!(
        log.contains("a silent connection was closed to make room"),
        "{log}"
    );
}

#[test]
fn random_bytes() {
    let mut besieged = Besieged::start(Quotas::default());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..500 {
        let mut bytes: Vec<u8> = (0..random() % 2000).map(|_| random() as u8).collect();
        if round % 2 == 0 {
            // Past the magic, the kind and the length, into the bodies.
            let header = [b's', b'b', b'u', b's', (random() % 11) as u8, 0];
            bytes.splice(0..0, header);
        }
        let mut peer = Raw::connect(besieged.path());
        peer.bytes(&bytes);
        let _ = peer.0.shutdown(std::net::Shutdown::Write);
        for message in peer.read_to_end() {
            assert!(matches!(message, Message::Refusal(_)), "{message:?}");
        }
    }
    besieged.assert_serves();
    besieged.assert_logged("expected a frame that starts with \"sbus\"");
    besieged.assert_brief();
}

#[test]
fn peers_that_break_the_rules_are_told_which() {
    let mut besieged = Besieged::start(Quotas::default());
    let path = besieged.path().to_owned();

    let mut peer = Raw::connect(&path);
    let (code, text) = refusal(peer.bytes(b"GET / HTTP/1.1\r\n"));
    assert_eq!(code, RefusalCode::Protocol);
    assert!(text.ends_with("the peer is no shmbus program"), "{text}");

    let mut newer = hello().encode();
    newer[8] = 7;
    let (code, text) = refusal(Raw::connect(&path).bytes(&newer));
    assert_eq!(code, RefusalCode::Version);
    assert!(text.contains("version 7"), "{text}");

    let (code, text) = refusal(Raw::connect(&path).message(&Message::Ready));
    assert_eq!(code, RefusalCode::Protocol);
    assert_eq!(
        text,
        "a READY message is out of place where HELLO is expected"
    );

    // HELLO twice: the first is answered, the second ends it.
    let twice = hello().encode().repeat(2);
    let answers = Raw::connect(&path).bytes(&twice).read_to_end();
    assert!(
        matches!(answers.last(), Some(Message::Refusal(_))),
        "{answers:?}"
    );

    let mut inspector = Raw::connect(&path);
    inspector.message(&hello_as(PeerRole::Inspector));
    assert!(matches!(inspector.read(), Some(Message::Welcome(_))));
    inspector.message(&Message::List { from: u64::MAX });
    assert!(matches!(inspector.read(), Some(Message::Page(page)) if page.entries.is_empty()));
    let (code, _) = refusal(inspector.message(&Message::Ready));
    assert_eq!(code, RefusalCode::Protocol);
    besieged.assert_serves();
}

#[test]
fn descriptors_that_nobody_asked_for() {
    let mut besieged = Besieged::start(Quotas::default());
    let descriptor = std::fs::File::open("/dev/null").unwrap();
    for _ in 0..100 {
        let mut peer = Raw::connect(besieged.path());
        for byte in hello().encode() {
            peer.with(&[byte], &vec![&descriptor; 253]);
        }
        let (code, text) = refusal(&mut peer);
        assert_eq!(code, RefusalCode::Protocol);
        assert!(
            text.starts_with("expected at most 0 file descriptors"),
            "{text}"
        );
    }
    besieged.assert_serves();
    besieged.assert_brief();
}

#[test]
fn silence_and_one_byte_at_a_time() {
    let quotas = Quotas {
        handshake: Duration::from_millis(300),
        ..Quotas::default()
    };
    let mut besieged = Besieged::start(quotas);
    let mut silent = Raw::connect(besieged.path());
    let mut slow = Raw::connect(besieged.path());
    let mut admitted = Raw::connect(besieged.path());
    admitted.message(&hello()); // and no memory after it
    let frame = hello().encode();
    for byte in &frame[..frame.len() - 1] {
        slow.bytes(&[*byte]);
        std::thread::sleep(Duration::from_millis(10));
    }
    for peer in [&mut silent, &mut slow, &mut admitted] {
        let answers = peer.read_to_end();
        let Some(Message::Refusal(refusal)) = answers.last() else {
            panic!("{answers:?}")
        };
        assert_eq!(refusal.code, RefusalCode::Busy);
    }
    assert!(matches!(
        besieged.host.next_closed().1,
        CloseReason::TooSlow
    ));
    besieged.assert_serves();
    besieged.assert_logged("not ready within the time for the handshake");
    // The deadlines are over with the handshake, and nothing is left to wake up for.
    std::thread::sleep(Duration::from_millis(400));
    assert!(besieged.survivor.next_event().is_none());
    assert_eq!(besieged.host.stop().sessions(), 1);
}

#[test]
fn memories_that_a_guest_must_not_send() {
    let mut besieged = Besieged::start(Quotas::default());
    let good = Announcement {
        id: MemoryId::GUEST,
        bytes: 3 * PAGE,
        epoch: 1,
    };
    let sealed = SealFlags::SHRINK | SealFlags::FUTURE_WRITE;
    let device: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
    let cases = [
        (good, device, "not a memfd"),
        (good, memfd(3 * PAGE, SealFlags::empty()), "F_SEAL_SHRINK"),
        (
            good,
            memfd(3 * PAGE, SealFlags::SHRINK),
            "F_SEAL_FUTURE_WRITE",
        ),
        (
            good,
            memfd(PAGE, sealed),
            "4096 bytes; 12288 were announced",
        ),
        (
            Announcement {
                bytes: 1 << 60,
                ..good
            },
            memfd(PAGE, sealed),
            "1152921504606846976 bytes",
        ),
        (
            Announcement {
                id: MemoryId::HOST,
                ..good
            },
            memfd(3 * PAGE, sealed),
            "found HOST 0",
        ),
        (
            Announcement {
                id: MemoryId::new(Section::Guest, 1),
                ..good
            },
            memfd(3 * PAGE, sealed),
            "found GUEST 1",
        ),
    ];
    for (announcement, fd, expected) in cases {
        let mut peer = Raw::connect(besieged.path());
        peer.message(&hello());
        while !matches!(peer.read(), Some(Message::Doorbells { .. })) {}
        peer.with(&Message::Memory(announcement).encode(), &[fd]);
        let (code, text) = refusal(&mut peer);
        assert_eq!(code, RefusalCode::Memory, "{text}");
        assert!(text.contains(expected), "{text}");
        let reason = besieged.host.next_closed().1.to_string();
        assert_eq!(text, reason, "the owner hears what the guest hears");
    }
    besieged.assert_serves();
}

#[test]
fn sessions_that_come_and_go_and_talk_out_of_turn() {
    let mut besieged = Besieged::start(Quotas::default());
    for round in 0..300 {
        let mut peer = Raw::connect(besieged.path());
        peer.message(&hello());
        if round % 3 == 0 {
            peer.message(&Message::Goodbye(GoodbyeReason::Finished));
        }
    }
    for _ in 0..300 {
        besieged.host.next_closed();
    }
    // A running session may say goodbye and nothing else.
    let link = join(besieged.path(), &guest("talker"));
    let mut peer = Raw::over(UnixStream::from(rustix::io::dup(&link).unwrap()));
    peer.message(&Message::List { from: 0 });
    let answers = peer.read_to_end();
    assert_eq!(
        answers,
        [Message::Goodbye(GoodbyeReason::Misbehaved)],
        "in a running session"
    );
    besieged.assert_serves();
    besieged.assert_brief();
}
