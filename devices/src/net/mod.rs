//! A virtio-net device: rings between a switch on the host and a network stack in each guest.
//!
//! Host side: a [`switch::Switch`] with a [`port::Port`] for each guest, and optionally a TAP interface ([`tap`]) or a
//! recording ([`pcap`]). Guest side: a driver, which is a port as well, under a [`stack::Stack`] that runs TCP/IP.
//! Ports never block and allocate nothing for a frame.
//!
//! ```
//! use std::time::Duration;
//!
//! use shmbus_devices::net::addresses::Sources;
//! use shmbus_devices::net::driver::NetDriver;
//! use shmbus_devices::net::host::GuestPort;
//! use shmbus_devices::net::mac_address::MacAddress;
//! use shmbus_devices::net::port::{Checksum, Port, Received};
//! use shmbus_devices::net::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory};
//! use shmbus_devices::net::switch::{Switch, SwitchLimits};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut switch = Switch::new(SwitchLimits::default());
//! let mut guests = Vec::new();
//! for number in 1..=2 {
//!     // On a bus each region lies in a memory that only its writer can write.
//!     let memory = QueueMemory::new(64, 1500)?;
//!     let regions = DeviceRegions::on_heap(memory);
//!     let mut driver = NetDriver::over_rings(&regions, memory, DRIVER_FEATURES)?;
//!     let port = GuestPort::over_rings(&regions, memory, DRIVER_FEATURES)?;
//!     assert!(driver.flush().any()); // the host is to be told of the receive buffers
//!     let port = switch.attach(port, Sources::Only(MacAddress::local(number)))?;
//!     guests.push((driver, port));
//! }
//!
//! let addresses = [MacAddress::local(2).0, MacAddress::local(1).0].concat();
//! let frame = [&addresses[..], &[0x88, 0xb5], b"hello"].concat();
//! guests[0].0.send(&frame, Checksum::InFrame)?;
//! assert!(guests[0].0.flush().transmitq.is_needed());
//!
//! assert_eq!(switch.poll(guests[0].1, 16, Duration::ZERO).frames, 1);
//! switch.flush(|port, _, notifications| println!("signal {port}: {notifications:?}"));
//!
//! let mut buffer = [0; 2048];
//! let received = guests[1].0.receive(&mut buffer)?;
//! assert_eq!(received, Received::Frame { bytes: frame.len(), checksum: Checksum::InFrame });
//! assert_eq!(buffer[..frame.len()], frame);
//! # Ok(())
//! # }
//! ```

pub mod addresses;
pub mod app;
pub mod checksum;
pub mod config;
pub mod control;
pub mod device;
pub mod dma;
pub mod driver;
mod flow;
pub mod header;
pub mod host;
pub mod mac_address;
pub mod pairs;
pub mod pcap;
mod phy;
pub mod port;
pub mod queues;
pub mod stack;
pub mod switch;
pub mod tap;

#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod test_device;
#[cfg(test)]
mod test_port;
