//! What kind of device it is.

use core::fmt;

/// A device type: virtio's numbers (virtio 1.4, section 5) in the low 16 bits; the bus's own table devices above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// virtio-net.
    pub const NET: Self = Self(1);
    /// The bus's clock, on a table.
    pub const CLOCK: Self = Self(0x1_0001);
    /// The bus's timer, on tables.
    pub const TIMER: Self = Self(0x1_0002);
    /// The bus's interrupt controller, on tables.
    pub const INTC: Self = Self(0x1_0003);

    /// The type's name, if it is one that the bus knows.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::NET => Some("net"),
            Self::CLOCK => Some("clock"),
            Self::TIMER => Some("timer"),
            Self::INTC => Some("intc"),
            _ => None,
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "device type {:#x}", self.0),
        }
    }
}
