//! Rings whose peer does what the fuzzer says. A target names a format and a side; what happens is the input's.
//!
//! On the other side of the same memory there is an honest peer, which sees what is really there. So the fuzzer comes
//! to deep states at once, and spoils them by what it writes in between, and by what single loads of the side under test
//! find instead. As long as it does neither, nothing may go wrong; and a reset makes all well again.

mod device_side;
mod driver_side;
mod formats;
mod lies;
mod memory;
mod program;
mod setting;

pub use device_side::{DeviceInput, device_side};
pub use driver_side::{DriverInput, driver_side};
pub use formats::{Format, Packed, PackedInOrder, Placement, Split, SplitInOrder, Tagged};
pub use setting::Setting;
