//! A host that has no file descriptors left. Alone in its process: it takes them all.
#![cfg(not(miri))] // Miri has no sockets

mod host;

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use host::is_readable;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmbus_transports::local::{Listener, ListenerOptions};

#[test]
fn a_host_without_descriptors_waits_and_does_not_spin() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut listener = Listener::bind(&path, ListenerOptions::default()).unwrap();
    let mut waiting: Vec<_> = (0..20)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();

    let limit = getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: Some(128),
        ..limit
    };
    setrlimit(Resource::Nofile, lowered).unwrap();
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());

    // Whoever waits for the descriptor is woken a few times a second, not without pause.
    let mut turns = 0;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        if is_readable(&listener, Duration::from_millis(100)) {
            turns += 1;
            assert!(listener.next_event().is_none());
        }
    }
    assert_eq!(listener.connections(), 0);
    assert!((1..100).contains(&turns), "{turns} turns in a second");

    // It takes those who waited as soon as it can.
    drop(taken);
    let deadline = Instant::now() + host::TIMEOUT;
    while listener.connections() < waiting.len() {
        assert!(Instant::now() < deadline, "{}", listener.connections());
        is_readable(&listener, Duration::from_millis(100));
        assert!(listener.next_event().is_none());
    }
    waiting.clear();
}
