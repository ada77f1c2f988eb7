//! A peer that keeps to no rules: raw frames, raw bytes, any descriptors.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use shmbus_transports::local::codec::Header;
use shmbus_transports::local::message::{HEADER_BYTES, Hello, Message, PeerRole};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::host::{TIMEOUT, name};

pub struct Raw(pub UnixStream);

impl Raw {
    pub fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self(stream)
    }

    /// Sends bytes, whether or not anybody is there to take them.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.write_all(bytes);
        self
    }

    pub fn message(&mut self, message: &Message) -> &mut Self {
        self.bytes(&message.encode())
    }

    /// Sends bytes with descriptors.
    pub fn with(&mut self, bytes: &[u8], descriptors: &[impl AsFd]) -> &mut Self {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let _ = sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        self
    }

    /// The next message; `None` at the end. Descriptors that come with it are lost.
    pub fn read(&mut self) -> Option<Message> {
        let mut header = [0; HEADER_BYTES];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("the other side neither answers nor hangs up")
            }
            Err(_) => return None,
        }
        let header = Header::decode(header).unwrap();
        let mut body = vec![0; header.body];
        self.0.read_exact(&mut body).unwrap();
        Some(Message::decode(header, &body).unwrap())
    }

    /// Everything that still comes, up to the end.
    pub fn read_to_end(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.read()).collect()
    }
}

pub fn hello() -> Message {
    hello_as(PeerRole::Guest)
}

pub fn hello_as(role: PeerRole) -> Message {
    Message::Hello(Hello {
        role,
        name: name("raw"),
        features: Features::VERSION_1,
        private: PrivateFeatures::empty(),
    })
}

/// A memfd with these seals.
pub fn memfd(bytes: u64, seals: rustix::fs::SealFlags) -> OwnedFd {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
    let fd = memfd_create("raw", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}
