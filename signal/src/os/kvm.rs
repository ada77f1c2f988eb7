//! Doorbells across the border of a KVM guest, which the kernel carries: nobody's `KVM_RUN` returns for them.
//!
//! A guest rings by a write to an address or port that stands for its doorbell (an *ioeventfd*, [`GuestDoorbell`]); it is
//! rung by an interrupt (an *irqfd*, [`Interrupt`]). In between stands an eventfd that the guest never holds, so it has
//! no counter to fill and no mode to change. The trees and armed words lie in guest memory as they do elsewhere: a guest that
//! has not armed is not interrupted, and one that finds its host awake does not write.
//!
//! ```no_run
//! use kvm_ioctls::{IoEventAddress, Kvm};
//! use shmbus_signal::os::kvm::{GuestDoorbell, Interrupt, Written};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let vm = Kvm::new()?.create_vm()?;
//! vm.create_irq_chip()?;
//! let (_doorbell, waiter) =
//!     GuestDoorbell::register(&vm, IoEventAddress::Mmio(0xd000_0000), Written::Anything)?;
//! let (_interrupt, notifier) = Interrupt::register(&vm, 5)?;
//! notifier.notify()?; // line 5 is pulsed
//! waiter.wait(None)?; // the guest has written to 0xd000_0000
//! # Ok(())
//! # }
//! ```

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

pub use kvm_ioctls::IoEventAddress;
use kvm_ioctls::{NoDatamatch, VmFd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{DoorbellError, Notifier, Waiter};

/// A doorbell to or from a guest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// KVM refused it: the address is taken, or the line does not exist, or there is no interrupt controller yet.
    #[error("KVM refuses {what}: {source}")]
    Kvm {
        /// What was asked for.
        what: &'static str,
        /// Of the ioctl.
        source: kvm_ioctls::Error,
    },
    /// There is no descriptor for it.
    #[error("an eventfd for KVM: {0}")]
    Io(#[from] io::Error),
    /// KVM's eventfd cannot be a doorbell.
    #[error(transparent)]
    Doorbell(#[from] DoorbellError),
}

/// Which writes to its address ring a [`GuestDoorbell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Every write, of any width. The quickest, as KVM need not decode it.
    Anything,
    /// This value, in a write of two bytes.
    U16(u16),
    /// This value, in a write of four bytes.
    U32(u32),
    /// This value, in a write of eight bytes.
    U64(u64),
}

/// A doorbell that a guest rings by a write. Dropping it leaves it with the VM, for as long as that lives.
#[derive(Debug)]
pub struct GuestDoorbell {
    event: EventFd,
    address: IoEventAddress,
    written: Written,
}

impl GuestDoorbell {
    /// Has writes to `address` ring the doorbell that is returned beside it. A write that matches does nothing else.
    ///
    /// # Errors
    ///
    /// [`KvmError`].
    pub fn register(
        vm: &VmFd,
        address: IoEventAddress,
        written: Written,
    ) -> Result<(Self, Waiter), KvmError> {
        let event = eventfd()?;
        match written {
            Written::Anything => vm.register_ioevent(&event, &address, NoDatamatch),
            Written::U16(value) => vm.register_ioevent(&event, &address, value),
            Written::U32(value) => vm.register_ioevent(&event, &address, value),
            Written::U64(value) => vm.register_ioevent(&event, &address, value),
        }
        .map_err(refused("an ioeventfd"))?;
        let waiter = Waiter::try_from(owned(&event)?)?;
        let doorbell = Self {
            event,
            address,
            written,
        };
        Ok((doorbell, waiter))
    }

    /// Writes to the address go to who runs the guest again.
    ///
    /// # Errors
    ///
    /// [`KvmError::Kvm`], for another VM.
    pub fn unregister(self, vm: &VmFd) -> Result<(), KvmError> {
        let (event, address) = (&self.event, &self.address);
        match self.written {
            Written::Anything => vm.unregister_ioevent(event, address, NoDatamatch),
            Written::U16(value) => vm.unregister_ioevent(event, address, value),
            Written::U32(value) => vm.unregister_ioevent(event, address, value),
            Written::U64(value) => vm.unregister_ioevent(event, address, value),
        }
        .map_err(refused("to remove an ioeventfd"))
    }
}

/// A doorbell that interrupts a guest. Dropping it leaves it with the VM, for as long as that lives.
#[derive(Debug)]
pub struct Interrupt {
    event: EventFd,
    line: u32,
}

impl Interrupt {
    /// Has the doorbell that is returned beside it pulse interrupt line `line` (KVM's GSI: a pin of the interrupt
    /// controllers, or a message, as the VM's routing says).
    ///
    /// # Errors
    ///
    /// [`KvmError`].
    pub fn register(vm: &VmFd, line: u32) -> Result<(Self, Notifier), KvmError> {
        let event = eventfd()?;
        vm.register_irqfd(&event, line)
            .map_err(refused("an irqfd"))?;
        let notifier = Notifier::try_from(owned(&event)?)?;
        Ok((Self { event, line }, notifier))
    }

    /// Ringing does nothing any more.
    ///
    /// # Errors
    ///
    /// [`KvmError::Kvm`], for another VM.
    pub fn unregister(self, vm: &VmFd) -> Result<(), KvmError> {
        vm.unregister_irqfd(&self.event, self.line)
            .map_err(refused("to remove an irqfd"))
    }
}

fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |source| KvmError::Kvm { what, source }
}

fn eventfd() -> Result<EventFd, KvmError> {
    Ok(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?)
}

/// A descriptor of ours for the same eventfd. The bindings' type has no safe way to an [`OwnedFd`], and the kernel does.
fn owned(event: &EventFd) -> io::Result<OwnedFd> {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    let fd = pidfd_getfd(ourselves, event.as_raw_fd(), PidfdGetfdFlags::empty())?;
    Ok(fd)
}
