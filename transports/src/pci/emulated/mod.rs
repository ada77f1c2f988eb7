//! A virtio device behind PCI that is emulated in process memory: for tests of drivers.
//!
//! A [`Blueprint`] says what it is, and what it claims. [`Blueprint::build`] gives the two ends of it: an
//! [`EmulatedFunction`], which a driver takes for a function, and an [`EmulatedDevice`], by which a test plays the
//! device. Memory that both reach comes from [`EmulatedDma`].
//!
//! It is honest unless told otherwise. It lies in what it claims, where a blueprint's claims are changed; and in what
//! registers read as, by a [`Lie`]. It keeps account of the driver too: [`EmulatedDevice::breaches`] lists what a
//! driver must not do, and [`EmulatedDevice::accesses`] and [`EmulatedDevice::strayed`] count.

mod bar_layout;
mod blueprint;
mod config_space;
mod device;
mod dma;
mod function;
pub mod lies;
mod model;
mod queue_model;
mod register;

pub use blueprint::{Blueprint, Claim, MsixClaim, QueueClaim};
pub use device::{EmulatedDevice, QueueAddresses};
pub use dma::{DmaBytes, EmulatedDma};
pub use function::{EmulatedFunction, EmulatedRegisters};
pub use lies::Lie;
pub use model::Notification;
pub use register::{CommonRegister, Register};
