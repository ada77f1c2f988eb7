//! Memory as sides want it that are not ours. All of these tests' unsafe code is here.

pub mod bounce;
pub mod guest;
