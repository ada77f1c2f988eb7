//! A TAP interface as a port: the machine's own network stack becomes a station on the bus.
//!
//! `/dev/net/tun` hands out Ethernet frames, one per read and write (the kernel's
//! `Documentation/networking/tuntap.rst`).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl;

use super::port::{Checksum, ETHERNET_HEADER_BYTES, Port, PortError, Received, Sent};

/// The longest name of an interface, in bytes (`IFNAMSIZ` less the terminating zero).
const MAX_NAME_BYTES: usize = 15;

/// `IFF_TAP`: Ethernet frames, not IP packets.
const IFF_TAP: u16 = 0x0002;
/// `IFF_NO_PI`: no packet information before the frame.
const IFF_NO_PI: u16 = 0x1000;
/// `TUNSETIFF`, `_IOW('T', 202, int)`.
const TUNSETIFF: ioctl::Opcode = ioctl::opcode::write::<core::ffi::c_int>(b'T', 202);

/// `struct ifreq`, as `TUNSETIFF` reads and writes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; MAX_NAME_BYTES + 1],
    flags: u16,
    /// The rest of the union that `flags` lies in.
    rest: [u8; 22],
}

/// A TAP interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can have the name.
    #[error(
        "`{0}` cannot be an interface's name: 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` or `.` were expected"
    )]
    Name(String),
    /// The machine has no TAP interfaces.
    #[error(
        "/dev/net/tun cannot be opened: {0}; this kernel or container has no TAP interfaces (`modprobe tun` may help)"
    )]
    Missing(io::Error),
    /// The user may not use the interface.
    #[error(
        "the TAP interface {name} may not be used: {source}; it needs root or CAP_NET_ADMIN, or an interface that was \
         made for this user: `sudo ip tuntap add dev {name} mode tap user $USER && sudo ip link set {name} up`"
    )]
    Permission {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the interface.
    #[error("the TAP interface {0} is in use by another process")]
    Busy(String),
    /// Something else went wrong.
    #[error("the TAP interface {name} cannot be used: {source}")]
    Interface {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// An open TAP interface. Readable (`AsFd`) when a frame waits.
///
/// An interface that did not exist goes away when this is dropped. Somebody must set it up before frames flow
/// (`ip link set NAME up`, `ip address add ADDRESS/LENGTH dev NAME`); until then frames for it are dropped.
#[derive(Debug)]
pub struct Tap {
    device: OwnedFd,
    name: String,
}

impl Tap {
    /// Opens the interface `name`, and makes it if it does not exist.
    ///
    /// # Errors
    ///
    /// [`TapError`], which says what would help.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if !(1..=MAX_NAME_BYTES).contains(&name.len())
            || !name.bytes().all(is_part)
            || matches!(name, "." | "..")
        {
            return Err(TapError::Name(name.chars().take(40).collect()));
        }
        let failed = |error: Errno| {
            let (name, source) = (name.to_owned(), io::Error::from(error));
            match error {
                Errno::PERM | Errno::ACCESS => TapError::Permission { name, source },
                Errno::BUSY => TapError::Busy(name),
                _ => TapError::Interface { name, source },
            }
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device =
            rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(
                |error| match error {
                    Errno::NOENT | Errno::NODEV | Errno::NXIO => TapError::Missing(error.into()),
                    _ => failed(error),
                },
            )?;
        let mut request = InterfaceRequest {
            name: [0; MAX_NAME_BYTES + 1],
            flags: IFF_TAP | IFF_NO_PI,
            rest: [0; 22],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: `TUNSETIFF` reads one `struct ifreq`, whose size and layout `InterfaceRequest` has, and writes it
        // back; all its bytes may have any value.
        unsafe { ioctl::ioctl(&device, ioctl::Updater::<TUNSETIFF, _>::new(&mut request)) }
            .map_err(failed)?;
        Ok(Self {
            device,
            name: name.to_owned(),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn fault(&self, error: Errno) -> PortError {
        PortError::Tap {
            name: self.name.clone(),
            source: error.into(),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Port for Tap {
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError> {
        match rustix::io::read(&self.device, &mut *frame) {
            // A frame that fills the buffer may have been cut.
            Ok(bytes) if bytes < ETHERNET_HEADER_BYTES || bytes == frame.len() => {
                Ok(Received::Discarded)
            }
            Ok(bytes) => Ok(Received::Frame {
                bytes,
                checksum: Checksum::InFrame,
            }),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Empty),
            Err(error) => Err(self.fault(error)),
        }
    }

    fn send(&mut self, frame: &[u8], _checksum: Checksum) -> Result<Sent, PortError> {
        match rustix::io::write(&self.device, frame) {
            Ok(_) => Ok(Sent::Taken),
            // EIO: the interface is not up. ENOBUFS, ENOMEM: the kernel is out of buffers for now.
            Err(Errno::AGAIN | Errno::INTR | Errno::IO | Errno::NOBUFS | Errno::NOMEM) => {
                Ok(Sent::Full)
            }
            Err(Errno::INVAL | Errno::MSGSIZE) => Ok(Sent::TooLong),
            Err(error) => Err(self.fault(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_kernels_layout() {
        assert_eq!(size_of::<InterfaceRequest>(), 40);
        assert_eq!(core::mem::offset_of!(InterfaceRequest, flags), 16);
    }

    #[test]
    fn impossible_names_are_refused_before_the_kernel_sees_them() {
        for name in ["", "sixteen-letters-", "a/b", "a b", "..", "tap%d"] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "opens a device")]
    fn frames_that_the_kernel_sends_come_in() {
        let name = format!("shmt{}", std::process::id());
        let mut tap = match Tap::open(&name) {
            Ok(tap) => tap,
            Err(error @ (TapError::Permission { .. } | TapError::Missing(_))) => {
                assert!(
                    error.to_string().contains("ip tuntap")
                        || error.to_string().contains("modprobe")
                );
                eprintln!("SKIPPED: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(tap.name(), name);
        assert!(matches!(Tap::open(&name), Err(TapError::Busy(_))));
        let mut frame = [0; 2048];
        assert_eq!(tap.receive(&mut frame).unwrap(), Received::Empty);
        let broadcast = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat();
        assert_eq!(
            tap.send(&broadcast, Checksum::InFrame).unwrap(),
            Sent::Full,
            "it is down"
        );
        match std::process::Command::new("ip")
            .args(["link", "set", &name, "up"])
            .status()
        {
            Ok(status) if status.success() => {}
            other => {
                eprintln!("SKIPPED: `ip link set {name} up` does not work here: {other:?}");
                return;
            }
        }
        assert_eq!(
            tap.send(&broadcast, Checksum::InFrame).unwrap(),
            Sent::Taken
        );
        // The kernel solicits routers and neighbours on an interface that comes up, unless it has no IPv6.
        for _ in 0..40 {
            match tap.receive(&mut frame).unwrap() {
                Received::Frame { bytes, .. } => return assert!(bytes >= ETHERNET_HEADER_BYTES),
                _ => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
        eprintln!("SKIPPED: the kernel sent nothing by itself on the new interface");
    }
}
