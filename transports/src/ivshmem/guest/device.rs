//! The function: where this guest's area is, what rings the host, and what the host rings.

use core::fmt;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::fence;
use std::any::Any;
use std::io;
use std::os::fd::AsFd;

use shmbus_shm::Mapped;
use shmbus_signal::os::{Waiter, Wake};

use super::super::layout::{AreaPlace, HANDSHAKE_VECTOR, Header, VECTORS};
use super::error::AttachError;
use crate::pci::{BarIndex, Function, Registers};

/// The registers of BAR 0, in bytes; the two others are interrupt status and mask, of no use with MSI-X.
mod register {
    pub(super) const POSITION: u64 = 8;
    pub(super) const DOORBELL: u64 = 12;
}

const REGISTERS: BarIndex = BarIndex::new(0).unwrap();
const MEMORY: BarIndex = BarIndex::new(2).unwrap();

/// An ivshmem function that this guest drives.
#[derive(Debug)]
pub(super) struct Device {
    /// BAR 2.
    pub(super) memory: Mapped,
    /// The guest's part of it.
    pub(super) area: AreaPlace,
    /// What rings the host, by priority class.
    pub(super) wakers: Vec<Box<dyn Wake>>,
    /// The same as the last of them, for the handshake.
    pub(super) handshake: Box<dyn Wake>,
    /// What the host rings, by priority class; none where the function has no vectors to offer.
    pub(super) waiters: Vec<Waiter>,
    /// Keeps the function, and silences it at last.
    pub(super) function: Box<dyn Any + Send>,
}

impl Device {
    /// Takes the function in. Its memory may have `limit` bytes at most.
    pub(super) fn new<F: Function + 'static>(function: F, limit: u64) -> Result<Self, AttachError> {
        let position = function.bar(REGISTERS)?;
        let position = position
            .read_u32(register::POSITION)
            .map_err(crate::pci::FunctionError::from)?;
        // Peer 0 is the host, and 65535 what a device shows that has none.
        let position = match u16::try_from(position) {
            Ok(peer @ 1..=0xfffe) => peer,
            _ => return Err(AttachError::Position { found: position }),
        };
        let bytes = function.bar(MEMORY)?.len();
        if bytes == 0 || bytes > limit {
            return Err(AttachError::Memory { bytes, limit });
        }
        let memory = function.map(MEMORY, 0, bytes, true)?;
        let header = Header::read(&memory)?;
        let area = header
            .area_of(position)
            .ok_or(AttachError::NoArea { position })?;

        let doorbell = |vector: u16| -> Result<Box<dyn Wake>, AttachError> {
            Ok(Box::new(Doorbell {
                register: Box::new(function.bar(REGISTERS)?),
                word: u32::from(header.host) << 16 | u32::from(vector),
            }))
        };
        let wakers = (0..VECTORS).map(doorbell).collect::<Result<_, _>>()?;
        let handshake = doorbell(HANDSHAKE_VECTOR)?;
        let mut function = Quiet(function);
        let mut waiters = Vec::new();
        match function.0.vectors() {
            0 => {}
            found if found < VECTORS => return Err(AttachError::Vectors { found }),
            _ => {
                for _ in 0..VECTORS {
                    waiters.push(Waiter::new()?);
                }
                let eventfds: Vec<_> = waiters.iter().map(AsFd::as_fd).collect();
                function.0.enable_vectors(&eventfds)?;
                // An interrupt by message is a write to memory. It is the only one that this device ever makes.
                function.0.set_bus_master(true)?;
            }
        }
        Ok(Self {
            memory,
            area,
            wakers,
            handshake,
            waiters,
            function: Box::new(function),
        })
    }
}

/// A function that signals nothing any more once it is let go.
struct Quiet<F: Function>(F);

impl<F: Function> Drop for Quiet<F> {
    fn drop(&mut self) {
        // What fails here has nobody left to tell.
        let _ = self.0.disable_vectors();
    }
}

/// Rings one of the host's vectors.
struct Doorbell {
    register: Box<dyn Registers>,
    word: u32,
}

impl Wake for Doorbell {
    fn wake(&self) -> io::Result<()> {
        // What was raised is in memory before the device hears of it: the host's load of the tree follows its eventfd.
        fence(SeqCst);
        self.register
            .write_u32(register::DOORBELL, self.word)
            .map_err(io::Error::other)
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell")
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}
