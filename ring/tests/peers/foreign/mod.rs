//! Memory as sides want it that are not ours. All of these tests' unsafe code is here.

pub mod bounce;
#[cfg(not(miri))]
pub mod direct;
pub mod guest;
