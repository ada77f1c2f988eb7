//! A virtio-net device: rings between a switch on the host and a network stack in each guest.
//!
//! Host side: a [`switch::Switch`] with a [`port::Port`] for each guest, and optionally a TAP interface ([`tap`]) or a
//! recording ([`pcap`]). Guest side: a driver, which is a port as well, under a [`stack::Stack`] that runs TCP/IP.
//! Ports never block and allocate nothing for a frame.

pub mod addresses;
pub mod app;
pub mod checksum;
pub mod config;
pub mod device;
pub mod driver;
pub mod header;
pub mod host;
pub mod mac_address;
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
mod test_port;
