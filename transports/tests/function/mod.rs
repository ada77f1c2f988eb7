//! An ivshmem function in this process: a heap for its memory, and its registers as a peer sees them.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use shmbus_shm::{Mapped, Window, heap};
use shmbus_signal::os::{Notifier, Waiter};
use shmbus_transports::pci::{AccessError, BarIndex, Function, FunctionError, Registers};

/// What both ends see.
#[derive(Clone)]
pub struct Fake {
    pub memory: Mapped,
    pub position: u32,
    pub vectors: u16,
    /// What the guest has rung, in order.
    pub rung: Arc<Mutex<Vec<u32>>>,
    /// Rung by each write to the doorbell register.
    pub to_host: Arc<Waiter>,
    /// Whether messages reach the guest.
    pub is_bus_master: Arc<AtomicBool>,
    /// What rings the guest.
    pub to_guest: Arc<Mutex<Vec<Notifier>>>,
}

impl Fake {
    pub fn new(bytes: usize) -> Self {
        Self {
            memory: heap(bytes),
            position: 1,
            vectors: 4,
            rung: Arc::default(),
            to_host: Arc::new(Waiter::new().unwrap()),
            is_bus_master: Arc::default(),
            to_guest: Arc::default(),
        }
    }

    /// Interrupts the guest, if it listens.
    pub fn interrupt(&self, vector: usize) {
        if !self.is_bus_master.load(SeqCst) {
            return;
        }
        if let Some(notifier) = self.to_guest.lock().unwrap().get(vector) {
            notifier.notify().unwrap();
        }
    }
}

impl Function for Fake {
    type Registers = Fake;

    fn config(&self) -> Result<Fake, FunctionError> {
        Err(FunctionError::System {
            doing: "read the configuration space",
            source: io::ErrorKind::Unsupported.into(),
        })
    }

    fn bar(&self, _bar: BarIndex) -> Result<Fake, FunctionError> {
        Ok(self.clone())
    }

    fn map(
        &self,
        bar: BarIndex,
        offset: u64,
        len: u64,
        is_memory: bool,
    ) -> Result<Mapped, FunctionError> {
        assert!(bar.get() == 2 && offset == 0 && is_memory);
        assert_eq!(len, self.memory.len() as u64);
        Ok(self.memory.clone())
    }

    fn vectors(&self) -> u16 {
        self.vectors
    }

    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError> {
        let notifier = |fd: &BorrowedFd<'_>| {
            let fd = fd.try_clone_to_owned().unwrap();
            Notifier::try_from(fd).unwrap()
        };
        *self.to_guest.lock().unwrap() = eventfds.iter().map(notifier).collect();
        Ok(())
    }

    fn disable_vectors(&mut self) -> Result<(), FunctionError> {
        self.to_guest.lock().unwrap().clear();
        Ok(())
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), FunctionError> {
        self.is_bus_master.store(enabled, SeqCst);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), FunctionError> {
        Ok(())
    }
}

/// The registers of BAR 0. BAR 2's are never touched, but for their length.
impl Registers for Fake {
    fn len(&self) -> u64 {
        self.memory.len() as u64
    }

    fn read_u8(&self, offset: u64) -> Result<u8, AccessError> {
        panic!("a byte is read at {offset}")
    }

    fn read_u16(&self, offset: u64) -> Result<u16, AccessError> {
        panic!("two bytes are read at {offset}")
    }

    fn read_u32(&self, offset: u64) -> Result<u32, AccessError> {
        assert_eq!(offset, 8);
        Ok(self.position)
    }

    fn write_u8(&self, offset: u64, _value: u8) -> Result<(), AccessError> {
        panic!("a byte is written at {offset}")
    }

    fn write_u16(&self, offset: u64, _value: u16) -> Result<(), AccessError> {
        panic!("two bytes are written at {offset}")
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError> {
        assert_eq!(offset, 12);
        self.rung.lock().unwrap().push(value);
        self.to_host.notifier().unwrap().notify().unwrap();
        Ok(())
    }
}
