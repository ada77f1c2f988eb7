//! A guest and an inspector whose host wants them harm.
#![cfg(not(miri))] // Miri has no sockets

mod host;
mod raw;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use host::{CLASSES, PAGE, TIMEOUT, guest, guest_memory, name};
use raw::{Raw, memfd};
use rustix::fs::SealFlags;
use shmbus_shm::{MemoryError, MemoryId, Section};
use shmbus_transports::Doorbells;
use shmbus_transports::local::message::{Announcement, Entry, Message, Page, Welcome};
use shmbus_transports::local::{
    CloseReason, ConnectError, Inspector, LinkEvent, SocketError, connect,
};
use shmbus_virtio::{Features, PrivateFeatures};

const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE);

/// A host that plays `script` to whoever connects first.
fn act(
    script: impl FnOnce(&mut Raw) + Send + 'static,
) -> (PathBuf, JoinHandle<()>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let host = std::thread::spawn(move || {
        let mut peer = Raw::over(listener.accept().unwrap().0);
        assert!(matches!(peer.read(), Some(Message::Hello(_))));
        script(&mut peer);
    });
    (path, host, directory)
}

fn welcome() -> Welcome {
    Welcome {
        session: 1,
        features: Features::VERSION_1,
        private: PrivateFeatures::empty(),
        guest_memory_bytes: PAGE,
        memories: 1,
        classes: CLASSES as u8,
    }
}

fn memory(id: MemoryId, bytes: u64, epoch: u64) -> Announcement {
    Announcement { id, bytes, epoch }
}

fn give(peer: &mut Raw, announced: Announcement, fd: OwnedFd) {
    peer.with(&Message::Memory(announced).encode(), &[fd]);
}

/// As a good host, up to and with the doorbells.
fn invite(peer: &mut Raw) {
    peer.message(&Message::Welcome(welcome()));
    give(peer, memory(MemoryId::HOST, PAGE, 1), memfd(PAGE, SEALED));
    let (_ours, bells) = Doorbells::create(CLASSES).unwrap();
    let bells: Vec<_> = bells.to_host.iter().chain(&bells.to_guest).collect();
    let classes = CLASSES as u8;
    peer.with(&Message::Doorbells { classes }.encode(), &bells);
}

fn refused(path: &Path) -> ConnectError {
    connect(path, &guest("careful"), TIMEOUT).unwrap_err()
}

/// Connects to a host that says this instead of WELCOME.
fn refused_by(script: impl FnOnce(&mut Raw) + Send + 'static) -> ConnectError {
    let (path, host, _directory) = act(script);
    let error = refused(&path);
    host.join().unwrap();
    assert!(!error.is_temporary(), "{error}");
    error
}

#[test]
fn terms_that_a_guest_does_not_take() {
    type Change = fn(&mut Welcome);
    let changes: [(Change, &str); 6] = [
        (
            |terms| terms.features |= Features::EVENT_IDX,
            "never offered",
        ),
        (
            |terms| terms.private = PrivateFeatures::RING_TAGGED,
            "private",
        ),
        (|terms| terms.guest_memory_bytes = u64::MAX, "guest memory"),
        (|terms| terms.guest_memory_bytes = 0, "guest memory"),
        (|terms| terms.session = 0, "session 0"),
        (|terms| terms.memories = 255, "255 memories"),
    ];
    for (change, expected) in changes {
        let mut terms = welcome();
        change(&mut terms);
        let error = refused_by(move |peer| {
            peer.message(&Message::Welcome(terms));
        });
        assert!(matches!(error, ConnectError::Terms { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn memories_that_a_guest_does_not_take() {
    let give_one = |announced: Announcement, fd: OwnedFd| {
        refused_by(move |peer| {
            peer.message(&Message::Welcome(welcome()));
            give(peer, announced, fd);
        })
    };
    let host_memory = memory(MemoryId::HOST, PAGE, 1);
    for seals in [SealFlags::empty(), SealFlags::SHRINK] {
        let error = give_one(host_memory, memfd(PAGE, seals));
        let ConnectError::Memory { source, .. } = error else {
            panic!("{error}")
        };
        assert!(matches!(source, MemoryError::Unsealed { .. }), "{source}");
    }
    let error = give_one(memory(MemoryId::HOST, 2 * PAGE, 1), memfd(PAGE, SEALED));
    assert!(matches!(error, ConnectError::Memory { .. }), "{error}");
    let error = give_one(memory(MemoryId::HOST, 1 << 40, 1), memfd(PAGE, SEALED));
    assert!(matches!(error, ConnectError::Terms { .. }), "{error}");
    let error = give_one(memory(MemoryId::GUEST, PAGE, 1), memfd(PAGE, SEALED));
    assert!(matches!(error, ConnectError::Terms { .. }), "{error}");

    let error = refused_by(|peer| {
        peer.message(&Message::Welcome(welcome()));
        peer.message(&Message::Memory(memory(MemoryId::HOST, PAGE, 1)));
    });
    assert!(
        error
            .to_string()
            .contains("announced 1 file descriptors, 0 arrived"),
        "{error}"
    );
    let error = refused_by(|peer| {
        let shared = memory(MemoryId::SHARED, PAGE, 1);
        peer.message(&Message::Welcome(welcome()));
        give(peer, shared, memfd(PAGE, SEALED));
    });
    assert!(
        error.to_string().contains("memory HOST 0 among them"),
        "{error}"
    );
}

#[test]
fn a_host_of_another_sort_or_release() {
    let error = refused_by(|peer| {
        peer.bytes(b"220 mail.example.org ESMTP\r\n");
    });
    assert!(error.to_string().contains("no shmbus program"), "{error}");
    let error = refused_by(|peer| {
        let mut frame = Message::Welcome(welcome()).encode();
        frame[8] = 3;
        peer.bytes(&frame);
    });
    assert!(
        error.to_string().contains("use the same release of shmbus"),
        "{error}"
    );
    let error = refused_by(|peer| {
        peer.message(&Message::Ready);
    });
    assert!(matches!(error, ConnectError::OutOfPlace { .. }), "{error}");
}

#[test]
fn silence_ends_at_the_timeout() {
    for answers in 0..3 {
        let (path, host, _directory) = act(move |peer| {
            match answers {
                0 => {}
                1 => _ = peer.message(&Message::Welcome(welcome())),
                _ => invite(peer),
            }
            // Nothing more, until the guest gives up.
            peer.read_to_end();
        });
        let attempt = connect(&path, &guest("patient"), Duration::from_millis(100));
        let error = attempt
            .and_then(|invitation| invitation.complete(guest_memory(PAGE)))
            .unwrap_err();
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
        assert!(error.is_temporary());
        host.join().unwrap();
    }
}

#[test]
fn a_running_session_takes_no_more_than_the_rules_allow() {
    // An epoch that has been; a memory of the guest's own; more memories than agreed; a READY too many; stray descriptors.
    type Script = fn(&mut Raw);
    let scripts: [Script; 5] = [
        |peer| give(peer, memory(MemoryId::HOST, PAGE, 1), memfd(PAGE, SEALED)),
        |peer| {
            let own = memory(MemoryId::GUEST, PAGE, 9);
            give(peer, own, memfd(PAGE, SEALED));
        },
        |peer| {
            for ordinal in 0..100 {
                let another = memory(MemoryId::new(Section::Shared, ordinal), PAGE, 1);
                give(peer, another, memfd(PAGE, SEALED));
            }
        },
        |peer| _ = peer.message(&Message::Ready),
        |peer| {
            let fds: Vec<_> = (0..40).map(|_| memfd(PAGE, SEALED)).collect();
            peer.with(&Message::Ready.encode(), &fds);
        },
    ];
    for (number, script) in scripts.into_iter().enumerate() {
        let (path, host, _directory) = act(move |peer| {
            invite(peer);
            assert!(matches!(peer.read(), Some(Message::Memory(_))));
            peer.message(&Message::Ready);
            script(peer);
        });
        let invitation = connect(&path, &guest("careful"), TIMEOUT).unwrap();
        let mut link = invitation.complete(guest_memory(PAGE)).unwrap();
        host.join().unwrap();
        let mut memories = 0;
        let reason = loop {
            match link.next_event() {
                Some(LinkEvent::Memory(_)) => memories += 1,
                Some(LinkEvent::Closed(reason)) => break reason,
                None => panic!("everything has been sent"),
            }
        };
        assert!(memories <= 31 && link.memories.len() <= 32);
        let expected = match number {
            0..=2 => matches!(reason, CloseReason::BadOffer(_)),
            3 => matches!(reason, CloseReason::OutOfPlace { .. }),
            _ => matches!(
                reason,
                CloseReason::Socket(SocketError::StrayDescriptors { .. })
            ),
        };
        assert!(expected, "script {number}: {reason}");
    }
}

#[test]
fn an_inspector_is_not_led_in_circles() {
    let (path, host, _directory) = act(|peer| {
        let terms = Welcome {
            memories: 0,
            classes: 0,
            session: 0,
            ..welcome()
        };
        peer.message(&Message::Welcome(terms));
        while let Some(Message::List { from }) = peer.read() {
            let next = if from == 0 { 7 } else { from };
            let entries = Vec::new();
            peer.message(&Message::Page(Page { next, entries }));
        }
    });
    let mut inspector = Inspector::connect(&path, name("curious"), TIMEOUT).unwrap();
    let error = inspector.list().unwrap_err();
    assert!(matches!(error, ConnectError::Terms { .. }), "{error}");
    drop(inspector);
    host.join().unwrap();
}

#[test]
fn an_inspector_takes_nothing_that_could_be_written() {
    let (path, host, _directory) = act(|peer| {
        peer.message(&Message::Welcome(welcome()));
        assert!(matches!(peer.read(), Some(Message::List { from: 0 })));
        let entry = Entry {
            session: 1,
            guest: None,
            memory: memory(MemoryId::COMMON, PAGE, 1),
        };
        let page = Page {
            next: 0,
            entries: vec![entry],
        };
        peer.with(
            &Message::Page(page).encode(),
            &[memfd(PAGE, SealFlags::SHRINK)],
        );
    });
    let mut inspector = Inspector::connect(&path, name("curious"), TIMEOUT).unwrap();
    let error = inspector.list().unwrap_err();
    assert!(matches!(error, ConnectError::Memory { .. }), "{error}");
    host.join().unwrap();
}
