use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;

use rustix::io::{ioctl_fionbio, write};

use super::*;

const LOST: Option<Duration> = Some(Duration::from_secs(20));
const LOOK: Option<Duration> = Some(Duration::ZERO);

/// An end is rung while nobody waits, between looks, and after the other end has gone; it says so once each time.
#[test]
fn a_doorbells_two_ends_ring_and_hear() {
    let (notifier, waiter) = doorbell().unwrap();
    assert!(!waiter.wait(Some(Duration::from_millis(1))).unwrap());
    for _ in 0..3 {
        notifier.notify().unwrap();
        notifier.notify().unwrap();
        assert!(waiter.wait(LOST).unwrap());
        assert!(!waiter.drain().unwrap());
    }
    let sleeping = thread::spawn(move || (waiter.wait(LOST).unwrap(), waiter));
    thread::sleep(Duration::from_millis(1));
    notifier.notify().unwrap();
    let (was_rung, waiter) = sleeping.join().unwrap();
    assert!(was_rung);
    assert_eq!(
        waiter.notifier().unwrap_err().kind(),
        io::ErrorKind::Unsupported
    );

    // Handed over, it is what it was; nobody knows whether it rang on the way.
    let notifier = Notifier::from_end(notifier.into()).unwrap();
    let waiter = Waiter::from_end(waiter.into()).unwrap();
    assert!(waiter.drain().unwrap());
    assert!(!waiter.drain().unwrap());
    notifier.notify().unwrap();
    assert!(waiter.drain().unwrap());
    drop(waiter);
    notifier.notify().unwrap();
}

/// Both are rung each time, and neither silences the other.
#[test]
fn two_waiters_share_a_doorbell() {
    let eventfd = Waiter::new().unwrap();
    let pair = doorbell().unwrap();
    for (notifier, waiter) in [(eventfd.notifier().unwrap(), eventfd), pair] {
        let beside = waiter.beside().unwrap();
        beside.drain().unwrap();
        let mut set = crate::os::SignalSet::<shmbus_shm::Mapped>::new().unwrap();
        let interest = crate::os::Interest::READABLE;
        let priority = crate::Priority::LOWEST;
        set.add_fd(waiter.into_watched(), interest, priority)
            .unwrap();
        for _ in 0..3 {
            notifier.notify().unwrap();
            assert!(beside.wait(LOST).unwrap());
            assert!(!beside.drain().unwrap());
            assert!(set.wait(LOOK).unwrap());
            while set.next_event().is_some() {}
        }
    }
}

/// With each of these a peer could make us wait.
#[test]
fn an_end_from_a_peer_is_a_unix_stream_socket() {
    let eventfd = OwnedFd::from(Waiter::new().unwrap());
    let tcp = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let datagrams = OwnedFd::from(UnixDatagram::unbound().unwrap());
    for (fd, expected) in [
        (eventfd, "anon_inode:[eventfd]"),
        (tcp, "a socket of family 2"),
        (datagrams, "a UNIX socket of type 2"),
    ] {
        let notifier = Notifier::from_end(fd.try_clone().unwrap()).unwrap_err();
        let waiter = Waiter::from_end(fd).unwrap_err();
        for error in [notifier, waiter] {
            assert!(matches!(&error, DoorbellError::NotAnEnd { found } if found == expected));
        }
    }
    // A socket that can still carry something is shut down before it is used.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let _waiter = Waiter::from_end(ours.into()).unwrap();
    let sent = theirs.write(b"x").unwrap_err();
    assert_eq!(sent.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_standards_doorbell_is_an_eventfd() {
    let socket = OwnedFd::from(UnixStream::pair().unwrap().0);
    assert!(matches!(
        Notifier::try_from(socket.try_clone().unwrap()),
        Err(DoorbellError::NotAnEventfd { .. })
    ));
    assert!(Waiter::try_from(socket).is_err());
    let eventfd = Waiter::new().unwrap().as_fd().try_clone_to_owned().unwrap();
    ioctl_fionbio(&eventfd, false).unwrap();
    let waiter = Waiter::try_from(eventfd).unwrap();
    assert!(!waiter.drain().unwrap());
}

#[test]
fn a_full_counter_and_a_changed_mode_block_nobody() {
    let waiter = Waiter::new().unwrap();
    let notifier = waiter.notifier().unwrap();
    assert!(!waiter.wait(LOOK).unwrap());
    write(&notifier, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    notifier.notify().unwrap();
    assert!(waiter.wait(LOST).unwrap());
    // The mode belongs to the descriptor's both ends.
    ioctl_fionbio(&notifier, false).unwrap();
    assert!(!waiter.drain().unwrap());
    notifier.notify().unwrap();
    assert!(waiter.drain().unwrap());
}
