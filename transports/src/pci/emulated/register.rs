//! The registers of the emulated device, by name.

use super::bar_layout as layout;

/// A register, or another place where a driver reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A byte of configuration space, and what follows it.
    ConfigSpace(u64),
    /// Of the common configuration.
    Common(CommonRegister),
    /// The interrupt status.
    Isr,
    /// The configuration of the device's type, from this byte on.
    DeviceConfig(u64),
    /// Where queues are notified, from this byte on.
    Notify(u64),
    /// Nothing is there.
    Nothing {
        /// The BAR's number.
        bar: u8,
        /// Where in it, in bytes.
        offset: u64,
    },
}

impl Register {
    /// What lies at `offset` of a BAR; accesses of another width than a register's meet nothing.
    pub(super) fn in_bar(bar: u8, offset: u64, width: u64) -> Self {
        let nothing = Self::Nothing { bar, offset };
        if bar != layout::REGISTERS {
            return nothing;
        }
        if layout::COMMON.contains(&offset) {
            CommonRegister::at(offset, width).map_or(nothing, Self::Common)
        } else if layout::ISR.contains(&offset) {
            Self::Isr
        } else if layout::DEVICE.contains(&offset) {
            Self::DeviceConfig(offset - layout::DEVICE.start)
        } else if layout::NOTIFY.contains(&offset) {
            Self::Notify(offset - layout::NOTIFY.start)
        } else {
            nothing
        }
    }
}

macro_rules! common_registers {
    ($($(#[$doc:meta])* $name:ident = $offset:literal, $width:literal;)*) => {
        /// A register of the common configuration. 64-bit fields are two registers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CommonRegister {
            $($(#[$doc])* $name,)*
        }

        impl CommonRegister {
            fn at(offset: u64, width: u64) -> Option<Self> {
                match (offset, width) {
                    $(($offset, $width) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

common_registers! {
    /// Which feature bits `device_feature` shows.
    DeviceFeatureSelect = 0x00, 4;
    /// Feature bits that the device offers.
    DeviceFeature = 0x04, 4;
    /// Which feature bits `driver_feature` shows.
    DriverFeatureSelect = 0x08, 4;
    /// Feature bits that the driver accepts.
    DriverFeature = 0x0c, 4;
    /// The vector for configuration changes.
    ConfigVector = 0x10, 2;
    /// How many queues there are.
    NumQueues = 0x12, 2;
    /// The device status.
    DeviceStatus = 0x14, 1;
    /// Another one for each configuration.
    ConfigGeneration = 0x15, 1;
    /// Which queue the others are about.
    QueueSelect = 0x16, 2;
    /// Its size.
    QueueSize = 0x18, 2;
    /// Its vector.
    QueueVector = 0x1a, 2;
    /// Whether it is enabled.
    QueueEnable = 0x1c, 2;
    /// Where it is notified.
    QueueNotifyOff = 0x1e, 2;
    /// Its descriptor area.
    QueueDescLow = 0x20, 4;
    /// The upper half of that address.
    QueueDescHigh = 0x24, 4;
    /// Its driver area.
    QueueDriverLow = 0x28, 4;
    /// The upper half of that address.
    QueueDriverHigh = 0x2c, 4;
    /// Its device area.
    QueueDeviceLow = 0x30, 4;
    /// The upper half of that address.
    QueueDeviceHigh = 0x34, 4;
    /// What it is notified with.
    QueueNotifConfigData = 0x38, 2;
    /// Whether it is being reset.
    QueueReset = 0x3a, 2;
    /// The first administration queue.
    AdminQueueIndex = 0x3c, 2;
    /// How many administration queues there are.
    AdminQueueNum = 0x3e, 2;
}
