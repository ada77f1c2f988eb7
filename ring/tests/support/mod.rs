//! What several tests need: split rings over some memory, and both sides of them.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod modelled;
