//! Virtual machines for tests: Debian's kernels under QEMU without hardware support, with a static program of ours in
//! an initramfs that is made here.
//!
//! ```no_run
//! use shmbus_vm::{Error, Kernel, Machine, Parts, Qemu};
//!
//! fn a_device_appears() -> Result<(), Error> {
//!     let Some(parts) = Parts::or_skip() else {
//!         return Ok(());
//!     };
//!     let guest = Machine::new(&parts, Qemu::V7_2, Kernel::V6_1)
//!         .device("virtio-net-pci,disable-legacy=on,iommu_platform=on,romfile=")
//!         .vfio("1af4 1041")
//!         .boot()?;
//!     let devices = guest.succeed("ls /dev/vfio")?;
//!     assert!(devices.contains('0'), "{devices}");
//!     Ok(())
//! }
//! ```
//!
//! A guest has two serial lines: the kernel's console, which is kept for the message of a test that fails, and a line
//! to `shmbus-in-guest`, which runs commands. The parts are put together by `cargo xtask setup`; a test without them
//! prints why it is skipped, and returns. [`Error`]s say what the guest said last.

mod bus;
mod cpio;
mod error;
mod guest;
mod initramfs;
mod interop;
mod machine;
mod modules;
mod parts;
mod process;
mod programs;
mod running;
pub mod wire;

pub use bus::Bus;
pub use error::Error;
pub use guest::Guest;
pub use interop::Interop;
pub use machine::Machine;
pub use parts::{Kernel, Parts, Qemu, Skipped, matrix, newest_or_all};
pub use programs::build as build_programs;
pub use running::{Finished, Running};
