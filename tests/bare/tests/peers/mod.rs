//! Of the ring's own tests: what two sides send, and how they take turns.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "modules of other test programs too, of which each uses its part"
)]

#[path = "../../../../ring/tests/peers/answered.rs"]
pub mod answered;
#[path = "../../../../ring/tests/peers/our_device.rs"]
pub mod our_device;
#[path = "../../../../ring/tests/peers/our_driver.rs"]
pub mod our_driver;
#[path = "../../../../ring/tests/peers/our_queue.rs"]
pub mod our_queue;
#[path = "../../../../ring/tests/peers/sides.rs"]
pub mod sides;
#[path = "../../../../ring/tests/peers/traffic.rs"]
pub mod traffic;
