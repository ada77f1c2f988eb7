//! What QEMU's `ivshmem-doorbell` does with a server, in this process: it connects, reads what the server says, and is a function
//! to its guest.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use shmbus_shm::{Mapped, MemoryType, Window, map_device};
use shmbus_transports::pci::{AccessError, BarIndex, Function, FunctionError, Registers};

/// How long the server may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message of the server's.
pub type Message = (i64, Option<OwnedFd>);

/// A connection to a server, and what came over it.
pub struct Qemu {
    pub socket: UnixStream,
    pub id: u16,
    pub memory: Mapped,
    pub descriptor: OwnedFd,
    /// What rings each peer, by vector.
    pub peers: Arc<Mutex<BTreeMap<u16, Vec<OwnedFd>>>>,
    /// What rings this guest, by vector.
    pub own: Vec<OwnedFd>,
}

/// Reads one message; `None` if the server has hung up.
pub fn message(socket: &UnixStream) -> Option<Message> {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
    match received.expect("a message in time").bytes {
        0 => return None,
        found => assert_eq!(found, 8, "messages are not split"),
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Some((i64::from_le_bytes(bytes), descriptor))
}

impl Qemu {
    /// Connects, and reads as far as QEMU does before it has the machine start: up to the memory.
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let next = || message(&socket).expect("the server is there");
        assert!(matches!(next(), (0, None)), "the protocol's version");
        let (id, None) = next() else {
            panic!("the id comes without a descriptor");
        };
        let (-1, Some(descriptor)) = next() else {
            panic!("the memory comes with a descriptor");
        };
        let bytes = std::fs::File::from(descriptor.try_clone().unwrap());
        let bytes = bytes.metadata().unwrap().len();
        assert!(bytes.is_power_of_two(), "no BAR has {bytes} bytes");
        let ordinary = MemoryType::Ordinary;
        let memory = map_device(descriptor.as_fd(), 0, bytes as usize, true, ordinary).unwrap();
        Self {
            socket,
            id: id.try_into().unwrap(),
            memory,
            descriptor,
            peers: Arc::default(),
            own: Vec::new(),
        }
    }

    /// Reads the next message: a peer's, or one about this side.
    pub fn read(&mut self) -> Option<(i64, bool)> {
        let (number, descriptor) = message(&self.socket)?;
        let peer = u16::try_from(number).unwrap();
        let has_descriptor = descriptor.is_some();
        let mut peers = self.peers.lock().unwrap();
        match descriptor {
            Some(descriptor) if peer == self.id => self.own.push(descriptor),
            Some(descriptor) => peers.entry(peer).or_default().push(descriptor),
            None => drop(peers.remove(&peer)),
        }
        Some((number, has_descriptor))
    }

    /// Reads until its own eventfds are there, which come last, and becomes a function.
    pub fn ready(mut self) -> Self {
        while self.own.len() < 4 {
            self.read().unwrap();
        }
        self
    }

    /// What the guest sees.
    pub fn function(&self) -> QemuFunction {
        QemuFunction {
            registers: QemuRegisters {
                id: self.id,
                bytes: self.memory.len() as u64,
                peers: Arc::clone(&self.peers),
            },
            memory: self.memory.clone(),
            own: self.own.iter().map(|fd| fd.try_clone().unwrap()).collect(),
            interrupts: None,
        }
    }

    /// Rings a peer, as a guest's write to the doorbell register does.
    pub fn ring(&self, peer: u16, vector: usize) {
        ring(&self.peers, peer, vector);
    }
}

fn ring(peers: &Mutex<BTreeMap<u16, Vec<OwnedFd>>>, peer: u16, vector: usize) {
    // Nothing happens for peers, or vectors, that there are not.
    if let Some(eventfd) = peers.lock().unwrap().get(&peer).and_then(|v| v.get(vector)) {
        rustix::io::write(eventfd, &1_u64.to_ne_bytes()).unwrap();
    }
}

/// The function that a guest drives.
pub struct QemuFunction {
    registers: QemuRegisters,
    memory: Mapped,
    own: Vec<OwnedFd>,
    interrupts: Option<Interrupts>,
}

/// Passes eventfds on as interrupts.
struct Interrupts {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Interrupts {
    fn new(from: Vec<OwnedFd>, to: Vec<OwnedFd>) -> Self {
        let (stopped, stop) = io::pipe().unwrap();
        let thread = std::thread::spawn(move || pass_on(&from, &to, &stopped));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

fn pass_on(from: &[OwnedFd], to: &[OwnedFd], stopped: &PipeReader) {
    loop {
        let sources = from.iter().map(AsFd::as_fd).chain([stopped.as_fd()]);
        let mut fds: Vec<_> = sources
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        poll(&mut fds, None).unwrap();
        if !fds[from.len()].revents().is_empty() {
            return;
        }
        for (vector, eventfd) in from.iter().enumerate() {
            if fds[vector].revents().contains(PollFlags::IN) {
                rustix::io::read(eventfd, &mut [0_u8; 8]).unwrap();
                rustix::io::write(&to[vector], &1_u64.to_ne_bytes()).unwrap();
            }
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Function for QemuFunction {
    type Registers = QemuRegisters;

    fn config(&self) -> Result<QemuRegisters, FunctionError> {
        Err(FunctionError::System {
            doing: "read the configuration space",
            source: io::ErrorKind::Unsupported.into(),
        })
    }

    fn bar(&self, _bar: BarIndex) -> Result<QemuRegisters, FunctionError> {
        Ok(self.registers.clone())
    }

    fn map(&self, bar: BarIndex, at: u64, len: u64, _: bool) -> Result<Mapped, FunctionError> {
        assert_eq!((bar.get(), at, len), (2, 0, self.memory.len() as u64));
        Ok(self.memory.clone())
    }

    fn vectors(&self) -> u16 {
        self.own.len() as u16
    }

    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        let clone = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let from = self.own.iter().map(|fd| fd.try_clone().unwrap());
        let to = eventfds.iter().map(clone).collect();
        self.interrupts = Some(Interrupts::new(from.collect(), to));
        Ok(())
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        self.interrupts = None;
        Ok(())
    }

    fn set_bus_master(&mut self, _enabled: bool) -> Result<(), FunctionError> {
        Ok(())
    }

    fn reset(&mut self) -> Result<(), FunctionError> {
        Ok(())
    }
}

/// The registers of BAR 0; of BAR 2 the length alone.
#[derive(Clone)]
pub struct QemuRegisters {
    id: u16,
    bytes: u64,
    peers: Arc<Mutex<BTreeMap<u16, Vec<OwnedFd>>>>,
}

impl Registers for QemuRegisters {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        panic!("a byte is read at {offset}")
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        panic!("two bytes are read at {offset}")
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        assert_eq!(offset, 8);
        Ok(self.id.into())
    }

    fn write_u8(&self, offset: u64, _value: u8) -> Result<(), AccessError> {
        panic!("a byte is written at {offset}")
    }

    fn write_u16(&self, offset: u64, _value: u16) -> Result<(), AccessError> {
        panic!("two bytes are written at {offset}")
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        assert_eq!(offset, 12);
        ring(&self.peers, (value >> 16) as u16, value as usize & 0xffff);
        Ok(())
    }
}
