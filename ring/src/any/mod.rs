//! A ring whose type is known at run time only: what was negotiated decides, and the code that uses the queue is the
//! same.
//!
//! Each operation asks once which type it is. Whoever knows the type when the program is built uses it, and pays nothing.

mod areas;
mod device_ring;
mod driver_ring;

pub use areas::{Areas, Layout};
pub use device_ring::DeviceRing;
pub use driver_ring::DriverRing;

/// Does the same with the ring inside, whatever its type is.
macro_rules! with_each {
    ($any:expr, $ring:ident => $work:expr) => {
        match $any {
            Self::Split($ring) => $work,
            Self::SplitInOrder($ring) => $work,
            Self::Packed($ring) => $work,
            Self::PackedInOrder($ring) => $work,
            Self::Tagged($ring) => $work,
        }
    };
}
use with_each;
