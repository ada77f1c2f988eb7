#![cfg(not(miri))] // Miri has no sockets

use std::os::unix::net::UnixStream;

use shmbus_shm::MemoryId;

use super::*;
use crate::local::message::{Announcement, GoodbyeReason};

fn pair() -> (Socket, Socket) {
    let (one, two) = UnixStream::pair().unwrap();
    (Socket::new(one.into()), Socket::new(two.into()))
}

fn memory() -> Message {
    Message::Memory(Announcement {
        id: MemoryId::GUEST,
        bytes: 4096,
        epoch: 1,
    })
}

/// Sends raw bytes with descriptors.
fn send_raw(socket: &Socket, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).unwrap();
}

/// A pipe whose reading end is readable once nobody holds the writing end any more: a way to see descriptors closed.
fn canary() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer.into())
}

fn is_closed(reader: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn a_frame_comes_out_whole_however_it_was_cut() {
    let (sender, mut receiver) = pair();
    let goodbye = Message::Goodbye(GoodbyeReason::Restarting);
    for _ in 0..2 {
        for byte in memory().encode() {
            assert!(matches!(receiver.receive(1), Ok(Received::Nothing)));
            // Only the first byte brings the descriptor.
            if byte == b's' && receiver.frame.is_empty() {
                send_raw(&sender, &[byte], &[sender.as_fd()]);
            } else {
                send_raw_plain(&sender, &[byte]);
            }
        }
        // Two frames in one piece: the second waits for its turn.
        send_raw_plain(&sender, &goodbye.encode().repeat(2));
        let Ok(Received::Message(message, descriptors)) = receiver.receive(1) else {
            panic!("a message")
        };
        assert_eq!((message, descriptors.len()), (memory(), 1));
        for _ in 0..2 {
            let Ok(Received::Message(message, descriptors)) = receiver.receive(0) else {
                panic!("a message")
            };
            assert_eq!((message, descriptors.len()), (goodbye.clone(), 0));
        }
    }
    drop(sender);
    assert!(matches!(receiver.receive(0), Ok(Received::HungUp)));
}

fn send_raw_plain(socket: &Socket, bytes: &[u8]) {
    let sent = rustix::io::write(socket, bytes).unwrap();
    assert_eq!(sent, bytes.len());
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    for (allowed, count) in [(0, 1), (0, 60), (1, 2), (1, 30), (1, 60)] {
        let (sender, mut receiver) = pair();
        let (alive, held) = canary();
        send_raw(&sender, b"s", &vec![held.as_fd(); count]);
        drop(held);
        let error = receiver.receive(allowed).unwrap_err();
        assert!(
            matches!(error, SocketError::StrayDescriptors { expected } if expected == allowed),
            "{error}"
        );
        drop(receiver);
        assert!(is_closed(&alive), "{count} where {allowed} may come");
    }
}

#[test]
fn descriptors_with_every_byte_do_not_pile_up() {
    let (sender, mut receiver) = pair();
    let frame = memory().encode();
    send_raw(&sender, &frame[..1], &[sender.as_fd()]);
    assert!(matches!(receiver.receive(1), Ok(Received::Nothing)));
    send_raw(&sender, &frame[1..2], &[sender.as_fd()]);
    assert!(matches!(
        receiver.receive(1),
        Err(SocketError::StrayDescriptors { expected: 1 })
    ));
}

#[test]
fn announced_descriptors_that_do_not_come_are_missed() {
    let (sender, mut receiver) = pair();
    send_raw_plain(&sender, &memory().encode());
    assert!(matches!(
        receiver.receive(1),
        Err(SocketError::MissingDescriptors {
            kind: Kind::Memory,
            expected: 1,
            found: 0
        })
    ));
}

#[test]
fn a_peer_that_dies_in_the_middle_of_a_frame_is_told_apart() {
    let (sender, mut receiver) = pair();
    send_raw_plain(&sender, &memory().encode()[..11]);
    drop(sender);
    assert!(matches!(
        receiver.receive(1),
        Err(SocketError::Cut { found: 11 })
    ));
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let (sender, _receiver) = pair();
    let goodbye = Message::Goodbye(GoodbyeReason::Finished);
    let error = (0..1_000_000)
        .find_map(|_| sender.send(&goodbye, &[]).err())
        .expect("the buffer is bounded");
    assert!(matches!(error, SocketError::Full), "{error}");
}

#[test]
fn waiting_ends_at_the_deadline() {
    let (_sender, mut receiver) = pair();
    let deadline = Instant::now() + Duration::from_millis(20);
    assert!(matches!(
        receiver.receive_until(0, deadline),
        Err(SocketError::TimedOut)
    ));
    assert!(Instant::now() >= deadline);
}

#[test]
fn received_descriptors_are_not_inherited() {
    let (sender, mut receiver) = pair();
    let (alive, held) = canary();
    sender.send(&memory(), &[held.as_fd()]).unwrap();
    let Ok(Received::Message(_, descriptors)) = receiver.receive(1) else {
        panic!("a message")
    };
    let flags = rustix::io::fcntl_getfd(&descriptors[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    drop((held, descriptors));
    assert!(is_closed(&alive));
}
