//! The device status field and the order in which a driver may go through it (virtio 1.4, sections 2.1 and 3.1).

use bitflags::bitflags;

use crate::features::{FeatureError, Features};

bitflags! {
    /// The device status field.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct DeviceStatus: u8 {
        /// The driver has found the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The driver is ready; the device may use the queues.
        const DRIVER_OK = 4;
        /// Feature negotiation is complete.
        const FEATURES_OK = 8;
        /// The device has met an error that only a reset recovers.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// A step that the driver may not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// The status has bits that do not exist.
    #[error("device status {found:#04x} has unknown bits")]
    UnknownBits {
        /// What the driver wrote.
        found: u8,
    },
    /// The driver cleared bits without a reset.
    #[error("device status went from {from:?} to {to:?}: bits are cleared by a reset only")]
    Cleared {
        /// The status before.
        from: DeviceStatus,
        /// What the driver wrote.
        to: DeviceStatus,
    },
    /// The driver set a bit before its time.
    #[error("device status {to:?} needs {needed:?} first")]
    TooEarly {
        /// What the driver wrote.
        to: DeviceStatus,
        /// What has to be set before.
        needed: DeviceStatus,
    },
    /// The driver's features cannot be used.
    #[error(transparent)]
    Features(#[from] FeatureError),
}

/// What the device must do after the driver wrote its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing changed that matters to the queues.
    None,
    /// Forget everything: the driver wrote 0.
    Reset,
    /// The driver is ready: activate the queues, with these features.
    Activate(Features),
}

/// The device's side of the status field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusMachine {
    status: DeviceStatus,
    offered: Features,
    accepted: Features,
}

impl StatusMachine {
    /// A device after reset that offers `offered`.
    pub fn new(offered: Features) -> Self {
        Self {
            status: DeviceStatus::empty(),
            offered,
            accepted: Features::empty(),
        }
    }

    /// The status as the driver reads it.
    pub fn status(&self) -> DeviceStatus {
        self.status
    }

    /// What was negotiated; empty before `FEATURES_OK`.
    pub fn features(&self) -> Features {
        self.accepted
    }

    /// Whether the driver may use the queues.
    pub fn is_live(&self) -> bool {
        self.status.contains(DeviceStatus::DRIVER_OK)
            && !self
                .status
                .intersects(DeviceStatus::FAILED | DeviceStatus::DEVICE_NEEDS_RESET)
    }

    /// Latches that only a reset helps.
    pub fn needs_reset(&mut self) {
        self.status |= DeviceStatus::DEVICE_NEEDS_RESET;
    }

    /// The driver wrote `status`, having chosen `features`. On an error nothing changes.
    ///
    /// # Errors
    ///
    /// [`StatusError`] for a step out of order, or features that cannot be used.
    pub fn write(&mut self, status: u8, features: Features) -> Result<Transition, StatusError> {
        let to =
            DeviceStatus::from_bits(status).ok_or(StatusError::UnknownBits { found: status })?;
        if to.is_empty() {
            let was = self.status;
            *self = Self::new(self.offered);
            return Ok(if was.is_empty() {
                Transition::None
            } else {
                Transition::Reset
            });
        }
        // DEVICE_NEEDS_RESET is the device's own bit: the driver may write it either way, and changes nothing by that.
        let own = DeviceStatus::DEVICE_NEEDS_RESET;
        let (from, to) = (self.status - own, to - own);
        if !to.contains(from) {
            return Err(StatusError::Cleared { from, to });
        }
        for (bit, needed) in [
            (DeviceStatus::DRIVER, DeviceStatus::ACKNOWLEDGE),
            (DeviceStatus::FEATURES_OK, DeviceStatus::DRIVER),
            (DeviceStatus::DRIVER_OK, DeviceStatus::FEATURES_OK),
        ] {
            if to.contains(bit) && !to.contains(needed) {
                return Err(StatusError::TooEarly { to, needed });
            }
        }
        if to.contains(DeviceStatus::FEATURES_OK) && !from.contains(DeviceStatus::FEATURES_OK) {
            self.accepted = self.offered.accept(features)?;
        }
        self.status = to | (self.status & own);
        let activates =
            to.contains(DeviceStatus::DRIVER_OK) && !from.contains(DeviceStatus::DRIVER_OK);
        Ok(if activates {
            Transition::Activate(self.accepted)
        } else {
            Transition::None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: u8 = 1 | 2 | 8 | 4;

    #[test]
    fn the_specified_order_activates_once() {
        let mut device = StatusMachine::new(Features::VERSION_1 | Features::EVENT_IDX);
        let chosen = Features::VERSION_1;
        for status in [1, 1 | 2, 1 | 2 | 8] {
            assert_eq!(device.write(status, chosen), Ok(Transition::None));
        }
        assert!(!device.is_live());
        assert_eq!(
            device.write(READY, chosen),
            Ok(Transition::Activate(chosen))
        );
        assert!(device.is_live());
        assert_eq!(device.write(READY, chosen), Ok(Transition::None));
    }

    #[test]
    fn a_latest_value_may_skip_the_steps_between() {
        // Over a table the device sees only the driver's newest status.
        let mut device = StatusMachine::new(Features::VERSION_1);
        assert_eq!(
            device.write(READY, Features::VERSION_1),
            Ok(Transition::Activate(Features::VERSION_1))
        );
    }

    #[test]
    fn steps_out_of_order_change_nothing() {
        let mut device = StatusMachine::new(Features::VERSION_1);
        assert!(matches!(
            device.write(1 | 4, Features::VERSION_1),
            Err(StatusError::TooEarly { .. })
        ));
        assert!(matches!(
            device.write(16, Features::VERSION_1),
            Err(StatusError::UnknownBits { found: 16 })
        ));
        assert!(matches!(
            device.write(1 | 2 | 8, Features::EVENT_IDX),
            Err(StatusError::Features(FeatureError::NotOffered { .. }))
        ));
        assert_eq!(device.status(), DeviceStatus::empty());
        device.write(1 | 2, Features::empty()).unwrap();
        assert!(matches!(
            device.write(1, Features::empty()),
            Err(StatusError::Cleared { .. })
        ));
    }

    #[test]
    fn only_a_reset_clears_a_latched_error() {
        let mut device = StatusMachine::new(Features::VERSION_1);
        device.write(READY, Features::VERSION_1).unwrap();
        device.needs_reset();
        assert!(!device.is_live());
        device.write(READY, Features::VERSION_1).unwrap();
        assert!(!device.is_live(), "the driver cannot clear it");
        assert_eq!(device.write(0, Features::empty()), Ok(Transition::Reset));
        assert_eq!(
            device.write(READY, Features::VERSION_1),
            Ok(Transition::Activate(Features::VERSION_1))
        );
    }
}
