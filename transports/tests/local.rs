//! Hosts and guests over real sockets.
#![cfg(not(miri))] // Miri has no sockets

mod host;
mod raw;

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use host::{CLASSES, Host, PAGE, Seen, TIMEOUT, guest, guest_memory, is_readable, name};
use raw::Raw;
use rustix::io::Errno;
use rustix::net::SendFlags;
use shmbus_shm::MemoryId;
use shmbus_shm::{Field, Window};
use shmbus_transports::Memory;
use shmbus_transports::local::{
    Backoff, BindError, CloseReason, ConnectError, Event, GoodbyeReason, GuestLink, Inspector,
    LinkEvent, Listener, ListenerOptions, Quotas, RefusalCode, SessionId, connect, reconnect,
};
use shmbus_virtio::{Features, PrivateFeatures};

fn join(host: &Host, label: &str) -> GuestLink {
    host::join(&host.path, &guest(label))
}

fn word(memory: &Memory) -> Field<u64, impl Window + use<>> {
    Field::new(memory.window(), 0).unwrap()
}

fn next_event(link: &mut GuestLink) -> LinkEvent {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(event) = link.next_event() {
            return event;
        }
        link.wait_until(deadline).unwrap();
    }
}

#[test]
fn two_guests_share_memories_and_doorbells_with_the_host_and_not_with_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(&directory.path().join("bus"), ListenerOptions::default());
    let (one, two) = (join(&host, "one"), join(&host, "two"));
    assert_eq!((one.session, two.session), (SessionId(1), SessionId(2)));

    word(&one.guest_memory).store(11, Relaxed);
    word(&two.guest_memory).store(22, Relaxed);
    let mut values = Vec::new();
    while values.len() < 2 {
        if let Seen::Memory(session, memory) = host.next() {
            assert_eq!(memory.bytes(), 3 * PAGE);
            values.push((session.0, word(&memory).load(Relaxed)));
        }
    }
    assert_eq!(values, [(1, 11), (2, 22)]);

    for link in [&one, &two] {
        let given: Vec<_> = link.memories.iter().map(|m| (m.id, m.bytes())).collect();
        let expected = [(MemoryId::HOST, PAGE), (MemoryId::COMMON, 2 * PAGE)];
        assert_eq!(given, expected);
        assert_eq!(link.doorbells.to_host.len(), CLASSES);
        assert_eq!(link.doorbells.to_guest.len(), CLASSES);
    }
    // What one writes into its COMMON memory, the other does not see.
    word(one.memory(MemoryId::COMMON).unwrap()).store(33, Relaxed);
    assert_eq!(word(two.memory(MemoryId::COMMON).unwrap()).load(Relaxed), 0);
    for link in [&one, &two] {
        // Ends of doorbells: neither side can stall the other with one, nor send anything.
        for end in link
            .doorbells
            .to_host
            .iter()
            .chain(&link.doorbells.to_guest)
        {
            let sent = rustix::net::send(end, b"x", SendFlags::NOSIGNAL);
            assert_eq!(sent, Err(Errno::PIPE));
        }
    }

    one.goodbye(GoodbyeReason::Finished);
    let (session, reason) = host.next_closed();
    assert_eq!(session, SessionId(1));
    assert!(matches!(
        reason,
        CloseReason::Goodbye(GoodbyeReason::Finished)
    ));
    drop(two);
    let (session, reason) = host.next_closed();
    assert_eq!(session, SessionId(2));
    assert!(matches!(reason, CloseReason::HungUp));
}

#[test]
fn features_are_those_of_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let options = ListenerOptions {
        features: Features::VERSION_1 | Features::EVENT_IDX | Features::bit(127),
        private: PrivateFeatures::USED_EVENT | PrivateFeatures::RING_TAGGED,
        ..ListenerOptions::default()
    };
    let host = Host::start(&directory.path().join("bus"), options);
    let mut options = guest("chooser");
    options.features = Features::VERSION_1 | Features::IN_ORDER | Features::bit(127);
    options.private = PrivateFeatures::all();
    let link = host::join(&host.path, &options);
    assert_eq!(link.features, Features::VERSION_1 | Features::bit(127));
    assert_eq!(
        link.private,
        PrivateFeatures::USED_EVENT | PrivateFeatures::RING_TAGGED
    );
    let Seen::Hello(applicant) = host.next() else {
        panic!("HELLO comes first")
    };
    assert_eq!(applicant.features, link.features);
    assert_eq!(applicant.name, name("chooser"));
}

#[test]
fn one_guest_too_many_is_told_so_and_gets_in_when_another_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let options = ListenerOptions {
        quotas: Quotas {
            sessions: 1,
            ..Quotas::default()
        },
        ..ListenerOptions::default()
    };
    let host = Host::start(&directory.path().join("bus"), options);
    let first = join(&host, "first");
    let error = connect(&host.path, &guest("second"), TIMEOUT).unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused(refusal) if refusal.code == RefusalCode::Busy),
        "{error}"
    );
    let mut waiting = Some(first);
    let second = reconnect(
        &host.path,
        &guest("second"),
        Backoff::default(),
        |error, _| {
            assert!(error.is_temporary());
            drop(waiting.take());
            ControlFlow::Continue(())
        },
    );
    assert_eq!(second.unwrap().session(), SessionId(2));
}

#[test]
fn a_guest_may_not_be_granted_more_than_the_quota() {
    let directory = tempfile::tempdir().unwrap();
    let options = ListenerOptions {
        quotas: Quotas {
            guest_memory_bytes: PAGE,
            handshake: Duration::from_millis(200),
            ..Quotas::default()
        },
        ..ListenerOptions::default()
    };
    // The host of these tests asks for three pages, is told no, and leaves the guest to its deadline.
    let host = Host::start(&directory.path().join("bus"), options);
    let error = connect(&host.path, &guest("greedy"), TIMEOUT).unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(matches!(host.next_closed().1, CloseReason::TooSlow));
}

#[test]
fn a_guests_limits_hold_for_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(&directory.path().join("bus"), ListenerOptions::default());
    let mut options = guest("careful");
    options.limits.memory_bytes = PAGE;
    let error = connect(&host.path, &options, TIMEOUT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the host's terms: expected 1 to 4096 bytes of guest memory, found 12288"
    );
    options.limits.memory_bytes = 3 * PAGE;
    options.limits.memories = 1;
    let error = connect(&host.path, &options, TIMEOUT).unwrap_err();
    assert!(matches!(error, ConnectError::Terms { .. }), "{error}");
}

/// What the other test below runs in a process of its own.
#[test]
fn guest_process() {
    let Some(path) = std::env::var_os("SHMBUS_TEST_SOCKET") else {
        return;
    };
    let invitation = connect(path, &guest("victim"), TIMEOUT).unwrap();
    let memory = guest_memory(invitation.guest_memory_bytes());
    let link = invitation.complete(memory).unwrap();
    let _ = link.wait_until(Instant::now() + TIMEOUT);
}

#[test]
fn a_killed_guest_is_an_event_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(&directory.path().join("bus"), ListenerOptions::default());
    let mut survivor = join(&host, "survivor");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guest_process"])
        .env("SHMBUS_TEST_SOCKET", &host.path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Not before its session runs.
    let session = loop {
        match host.next() {
            Seen::Memory(session, _) if session != survivor.session => break session,
            _ => {}
        }
    };
    victim.kill().unwrap();
    victim.wait().unwrap();
    let (closed, reason) = host.next_closed();
    assert_eq!(closed, session);
    assert!(matches!(reason, CloseReason::HungUp));
    assert!(survivor.next_event().is_none(), "nothing happened to it");
    assert_eq!(host.stop().sessions(), 1);
}

#[test]
fn a_guest_reconnects_to_a_restarted_host() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let host = Host::start(&path, ListenerOptions::default());
    let mut link = join(&host, "faithful");
    drop(host);
    assert!(matches!(
        next_event(&mut link),
        LinkEvent::Closed(CloseReason::HungUp)
    ));
    assert!(link.next_event().is_none(), "the end comes once");
    assert!(!path.exists(), "the socket is removed");

    let mut restarted = None;
    let mut failures = 0;
    let invitation = reconnect(
        &path,
        &guest("faithful"),
        Backoff::default(),
        |error, wait| {
            assert!(matches!(error, ConnectError::NoSocket { .. }), "{error}");
            assert_eq!(wait, Duration::from_millis(10 << failures));
            failures += 1;
            if failures == 3 {
                restarted = Some(Host::start(&path, ListenerOptions::default()));
            }
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    let memory = guest_memory(invitation.guest_memory_bytes());
    assert_eq!(invitation.complete(memory).unwrap().session, SessionId(1));
    assert_eq!(failures, 3);
}

#[test]
fn a_live_hosts_socket_is_left_alone_and_a_dead_ones_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let host = Listener::bind(&path, ListenerOptions::default()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = Listener::bind(&path, ListenerOptions::default()).unwrap_err();
    assert!(matches!(refused, BindError::InUse { .. }), "{refused}");
    drop(host);
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "neither the socket nor the lock stays behind");

    // Some other program's listener, which has no lock.
    let other = UnixListener::bind(&path).unwrap();
    let refused = Listener::bind(&path, ListenerOptions::default()).unwrap_err();
    assert!(matches!(refused, BindError::InUse { .. }), "{refused}");
    drop(other); // std leaves the file, as a killed host does
    assert!(path.exists());
    let refused = connect(&path, &guest("early"), TIMEOUT).unwrap_err();
    assert!(
        matches!(refused, ConnectError::NobodyListens { .. }),
        "{refused}"
    );
    drop(Listener::bind(&path, ListenerOptions::default()).unwrap());

    std::fs::write(&path, "precious").unwrap();
    let refused = Listener::bind(&path, ListenerOptions::default()).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn an_inspector_sees_what_is_sealed_and_nothing_that_it_could_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut listener = Listener::bind(&path, ListenerOptions::default()).unwrap();
    let clocks = Memory::create(MemoryId::SHARED, "clocks", PAGE, 1).unwrap();
    listener.share(clocks.clone()).unwrap();
    let host = Host::run(listener);
    let mut inspector = Inspector::connect(&path, name("inspector"), TIMEOUT).unwrap();
    assert_eq!(inspector.list().unwrap().len(), 1, "the bus's own alone");

    // More memories than fit one page: 1 shared + 2 for each guest.
    let guests: Vec<_> = (0..20)
        .map(|index| join(&host, &format!("guest-{index}")))
        .collect();
    assert!(guests[0].memory(MemoryId::SHARED).is_some());
    let list = inspector.list().unwrap();
    assert_eq!(list.len(), 41);
    assert!(list.iter().all(|seen| seen.memory.id != MemoryId::COMMON));
    word(&guests[7].guest_memory).store(77, Relaxed);
    word(&clocks).store(88, Relaxed);
    let value = |guest: Option<&str>, id| {
        let seen = list
            .iter()
            .find(|seen| {
                seen.memory.id == id && seen.guest.as_ref().map(|name| name.as_str()) == guest
            })
            .unwrap();
        word(&seen.memory).load(Relaxed)
    };
    assert_eq!(value(Some("guest-7"), MemoryId::GUEST), 77);
    assert_eq!(value(None, MemoryId::SHARED), 88);

    drop(guests);
    for _ in 0..20 {
        host.next_closed();
    }
    assert_eq!(
        inspector.list().unwrap().len(),
        1,
        "the list is fresh each time"
    );
}

#[test]
fn memories_get_new_epochs_while_the_session_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let host = Host::start(&path, ListenerOptions::default());
    let mut link = join(&host, "guest");
    let mut listener = host.stop();

    let create = |id, epoch| Memory::create(id, "again", PAGE, epoch).unwrap();
    listener.share(create(MemoryId::SHARED, 1)).unwrap();
    listener.share(create(MemoryId::SHARED, 2)).unwrap();
    listener.share(create(MemoryId::SHARED, 2)).unwrap_err();
    listener.share(create(MemoryId::HOST, 3)).unwrap_err();
    let directory = create(MemoryId::HOST, 2);
    listener.replace(link.session, directory.clone()).unwrap();
    listener.replace(link.session, directory).unwrap_err();
    let unsealed = Memory::new(
        MemoryId::HOST,
        3,
        create(MemoryId::COMMON, 3).shared().clone(),
    );
    listener.replace(link.session, unsealed).unwrap_err();
    let shared = create(MemoryId::SHARED, 3);
    listener.replace(link.session, shared).unwrap_err();
    for expected in [
        (MemoryId::SHARED, 1),
        (MemoryId::SHARED, 2),
        (MemoryId::HOST, 2),
    ] {
        let LinkEvent::Memory(memory) = next_event(&mut link) else {
            panic!("a memory")
        };
        assert_eq!((memory.id, memory.epoch), expected);
        assert_eq!(
            link.memory(memory.id).map(|kept| kept.epoch),
            Some(expected.1)
        );
    }
    assert!(link.next_event().is_none());
    listener.close(link.session, GoodbyeReason::Restarting);
    assert!(matches!(
        next_event(&mut link),
        LinkEvent::Closed(CloseReason::Goodbye(GoodbyeReason::Restarting))
    ));
    assert!(listener.next_event().is_none(), "the owner knows already");
}

#[test]
fn a_guest_killed_before_it_is_admitted_ends_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut listener = Listener::bind(&path, ListenerOptions::default()).unwrap();
    // Nobody answers, so that the guest gives up.
    let impatient = Duration::from_millis(50);
    let error = connect(&path, &guest("impatient"), impatient).unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    assert!(is_readable(&listener, TIMEOUT));
    let mut events = Vec::new();
    while is_readable(&listener, Duration::from_millis(50)) && events.len() < 3 {
        events.extend(listener.next_event());
    }
    assert!(
        matches!(
            &events[..],
            [
                Event::Hello(_),
                Event::Closed {
                    reason: CloseReason::HungUp,
                    ..
                }
            ]
        ),
        "{events:?}"
    );
    assert_eq!((listener.sessions(), listener.connections()), (0, 0));
}

#[test]
fn a_hello_that_has_arrived_is_not_pushed_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let options = ListenerOptions {
        quotas: Quotas {
            silent: 1,
            ..Quotas::default()
        },
        ..ListenerOptions::default()
    };
    let mut listener = Listener::bind(&path, options).unwrap();
    // All of them have said HELLO before the host takes the first: each is silent when the next one comes.
    let peers: Vec<_> = (0..5)
        .map(|_| {
            let mut peer = Raw::connect(&path);
            peer.message(&raw::hello());
            peer
        })
        .collect();
    let mut hellos = 0;
    while hellos < peers.len() {
        assert!(is_readable(&listener, TIMEOUT));
        while let Some(event) = listener.next_event() {
            assert!(matches!(event, Event::Hello(_)), "{event:?}");
            hellos += 1;
        }
    }
}

#[test]
fn errors_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let error = connect(&path, &guest("early"), TIMEOUT).unwrap_err();
    let expected = format!(
        "there is no socket {0}: start the host first, with `shmbus host --socket {0} --device ...`",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    let long = directory.path().join("x".repeat(120));
    let error = Listener::bind(&long, ListenerOptions::default()).unwrap_err();
    assert!(matches!(error, BindError::TooLong { .. }), "{error}");
    let error = connect(&long, &guest("early"), TIMEOUT).unwrap_err();
    assert!(error.to_string().contains("107 bytes"), "{error}");
}
