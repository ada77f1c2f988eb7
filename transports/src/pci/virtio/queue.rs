//! Queues: configuring them, and resetting one alone (virtio 1.4, sections 4.1.5.1.3 and 2.6.1).

use std::thread::sleep;

use shmbus_virtio::Features;

use super::device::{Patience, Stage, VirtioPci};
use super::error::{DeviceError, Event};
use super::notifier::QueueNotifier;
use crate::pci::function::Function;

/// What the device is told of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSetup {
    /// How many entries it has.
    pub size: u16,
    /// Where the device finds the descriptor area.
    pub descriptor_area: u64,
    /// Where the device finds the driver area: a split queue's available ring.
    pub driver_area: u64,
    /// Where the device finds the device area: a split queue's used ring.
    pub device_area: u64,
    /// Which of the enabled vectors is to signal used buffers; none if nobody waits for them.
    pub vector: Option<u16>,
}

/// The largest queue there can be (virtio 1.4, sections 2.7 and 2.8).
const LARGEST: u16 = 1 << 15;

impl<F: Function> VirtioPci<F> {
    /// The largest size that queue number `queue` can have; `None` if the device does not have it.
    ///
    /// A queue that is enabled has the size that it was given.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoQueue`], [`DeviceError::QueueMaximum`], [`DeviceError::Access`].
    pub fn queue_size(&mut self, queue: u16) -> Result<Option<u16>, DeviceError> {
        self.expect(
            &[Stage::Configuring, Stage::Live],
            "ask for the size of a queue",
        )?;
        self.check_queue(queue)?;
        self.latching(|device| {
            device.common.select_queue(queue)?;
            device.selected_size(queue)
        })
    }

    /// Tells the device where a queue is, and enables it. Its memory must be zeroed; the device accesses it as soon as
    /// it is started.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]: of the caller's making, or [`DeviceError::VectorRefused`], after which the queue is not
    /// enabled, and can be tried again. Others are latched.
    pub fn enable_queue(
        &mut self,
        queue: u16,
        setup: &QueueSetup,
    ) -> Result<QueueNotifier<F::Registers>, DeviceError> {
        self.expect(&[Stage::Configuring, Stage::Live], "enable a queue")?;
        self.check_queue(queue)?;
        if self.enabled.contains(&queue) {
            return Err(DeviceError::QueueEnabled { queue });
        }
        self.check_addresses(queue, setup)?;
        self.latching(|device| device.configure_queue(queue, setup))
    }

    /// Resets one queue while the others go on. The device has forgotten it then, and its memory is the caller's.
    ///
    /// # Errors
    ///
    /// [`DeviceError::FeatureNeeded`] without `RING_RESET`, [`DeviceError::NoQueue`] if it is not enabled; latched:
    /// [`DeviceError::QueueResetUnfinished`], [`DeviceError::QueueRegister`].
    pub fn reset_queue(&mut self, queue: u16) -> Result<(), DeviceError> {
        self.expect(&[Stage::Live], "reset a queue")?;
        if !self.features().contains(Features::RING_RESET) {
            return Err(DeviceError::FeatureNeeded {
                name: "RING_RESET",
                offered: self.offered().contains(Features::RING_RESET),
            });
        }
        if !self.enabled.contains(&queue) {
            return Err(DeviceError::QueueDisabled { queue });
        }
        self.latching(|device| {
            device.common.select_queue(queue)?;
            device.common.start_queue_reset()?;
            let Patience { polls, pause } = device.patience;
            let mut pending = device.common.queue_reset()?;
            for _ in 1..polls {
                if pending == 0 {
                    break;
                }
                sleep(pause);
                pending = device.common.queue_reset()?;
            }
            if pending != 0 {
                return Err(DeviceError::QueueResetUnfinished { queue, polls });
            }
            let enable = device.common.queue_enable()?;
            device.expect_register(queue, "queue_enable", 0, enable)?;
            device.enabled.remove(&queue);
            Ok(())
        })
    }

    fn check_queue(&self, queue: u16) -> Result<(), DeviceError> {
        let queues = self.queues;
        if queue < queues {
            Ok(())
        } else {
            Err(DeviceError::NoQueue { queue, queues })
        }
    }

    fn is_packed(&self) -> bool {
        self.features().contains(Features::RING_PACKED)
    }

    fn check_addresses(&self, queue: u16, setup: &QueueSetup) -> Result<(), DeviceError> {
        let driver_alignment = if self.is_packed() { 4 } else { 2 };
        for (area, address, alignment) in [
            ("descriptor", setup.descriptor_area, 16),
            ("driver", setup.driver_area, driver_alignment),
            ("device", setup.device_area, 4),
        ] {
            if !address.is_multiple_of(alignment) {
                return Err(DeviceError::QueueAddress {
                    queue,
                    area,
                    address,
                    alignment,
                });
            }
        }
        Ok(())
    }

    /// The selected queue's size, which was `queue`.
    fn selected_size(&self, queue: u16) -> Result<Option<u16>, DeviceError> {
        let found = self.common.queue_size()?;
        let packed = self.is_packed();
        match found {
            0 => Ok(None),
            1..=LARGEST if packed || found.is_power_of_two() => Ok(Some(found)),
            _ => Err(DeviceError::QueueMaximum {
                queue,
                packed,
                found,
            }),
        }
    }

    fn configure_queue(
        &mut self,
        queue: u16,
        setup: &QueueSetup,
    ) -> Result<QueueNotifier<F::Registers>, DeviceError> {
        self.common.select_queue(queue)?;
        let maximum = self
            .selected_size(queue)?
            .ok_or(DeviceError::QueueUnavailable { queue })?;
        let packed = self.is_packed();
        let size = setup.size;
        if size == 0 || size > maximum || !(packed || size.is_power_of_two()) {
            return Err(DeviceError::QueueSize {
                queue,
                maximum,
                packed,
                wanted: size,
            });
        }
        let enable = self.common.queue_enable()?;
        self.expect_register(queue, "queue_enable", 0, enable)?;
        // A device that went on with another size would access memory behind the queue.
        self.common.set_queue_size(size)?;
        let kept = self.common.queue_size()?;
        self.expect_register(queue, "queue_size", size, kept)?;
        self.common.set_queue_addresses([
            setup.descriptor_area,
            setup.driver_area,
            setup.device_area,
        ])?;
        self.map_vector(Event::Queue(queue), setup.vector)?;
        let notifier = self.notifier(queue)?;
        self.common.enable_queue()?;
        let enable = self.common.queue_enable()?;
        self.expect_register(queue, "queue_enable", 1, enable)?;
        self.enabled.insert(queue);
        Ok(notifier)
    }

    fn expect_register(
        &self,
        queue: u16,
        register: &'static str,
        expected: u16,
        found: u16,
    ) -> Result<(), DeviceError> {
        if found == expected {
            return Ok(());
        }
        Err(DeviceError::QueueRegister {
            queue,
            register,
            expected,
            found,
        })
    }

    /// Where the selected queue, which is `queue`, is notified, and with what.
    fn notifier(&self, queue: u16) -> Result<QueueNotifier<F::Registers>, DeviceError> {
        let place = self.layout.notify;
        let carries_position = self.features().contains(Features::NOTIFICATION_DATA);
        let width = if carries_position { 4 } else { 2 };
        // 16 bits times 32 bits: no overflow.
        let offset =
            u64::from(self.common.queue_notify_off()?) * u64::from(self.layout.notify_multiplier);
        let in_bar = place.offset.saturating_add(offset);
        if offset + width > place.len || !in_bar.is_multiple_of(width) {
            return Err(DeviceError::NotifyAddress {
                queue,
                offset,
                width,
                len: place.len,
            });
        }
        let value = if self.features().contains(Features::NOTIF_CONFIG_DATA) {
            self.common.queue_notif_config_data()?
        } else {
            queue
        };
        let registers = self.function.bar(place.bar)?;
        Ok(QueueNotifier::new(
            registers,
            in_bar,
            value,
            carries_position,
        ))
    }
}
