//! Rings between one of our sides and somebody else's: what both of them send, how they take turns, and what keeps
//! a foreign side apart from ours.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses its part"
)]

pub mod answered;
pub mod foreign;
pub mod our_device;
pub mod our_driver;
pub mod our_queue;
pub mod sides;
pub mod traffic;
