//! The register model of an emulated device: what its registers do (virtio 1.4, section 4.1.4).

use std::os::fd::OwnedFd;

use shmbus_shm::{Mapped, heap};
use shmbus_virtio::{DeviceStatus, Features, StatusError, StatusMachine, Transition};

use super::bar_layout as layout;
use super::blueprint::Blueprint;
use super::lies::Lie;
use super::queue_model::{NO_VECTOR, QueueModel};
use super::register::{CommonRegister, Register};

/// A queue was notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Where, in bytes from the start of the notification structure.
    pub offset: u64,
    /// With what.
    pub value: u32,
    /// In how many bytes.
    pub width: u64,
}

/// What an emulated device is at one moment.
pub(super) struct Model {
    pub(super) config_space: Vec<u8>,
    pub(super) bars: [u64; 6],
    pub(super) shared: Mapped,
    pub(super) vectors: u16,
    pub(super) eventfds: Vec<OwnedFd>,
    pub(super) bus_master: bool,
    pub(super) lie: Option<Lie>,
    pub(super) accesses: u64,
    pub(super) strayed: u64,
    pub(super) function_resets: u32,
    pub(super) breaches: Vec<String>,
    pub(super) notifications: Vec<Notification>,
    pub(super) status: StatusMachine,
    pub(super) queues: Vec<QueueModel>,
    pub(super) config: Vec<u8>,
    pub(super) config_vector: u16,
    pub(super) isr: u8,
    generation: u8,
    offered: Features,
    accepted: Features,
    slow_reset: u32,
    unfinished: u32,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
}

impl Model {
    pub(super) fn new(blueprint: &Blueprint, config_space: Vec<u8>) -> Self {
        Self {
            config_space,
            bars: blueprint.bars,
            shared: heap(layout::SHARED_BYTES as usize),
            vectors: blueprint.msix.map_or(0, |msix| msix.last_vector + 1),
            eventfds: Vec::new(),
            bus_master: false,
            lie: None,
            accesses: 0,
            strayed: 0,
            function_resets: 0,
            breaches: Vec::new(),
            notifications: Vec::new(),
            status: StatusMachine::new(blueprint.features),
            queues: blueprint
                .queues
                .iter()
                .map(|claim| QueueModel::new(*claim))
                .collect(),
            config: blueprint.config.clone(),
            config_vector: NO_VECTOR,
            isr: 0,
            generation: 0,
            offered: blueprint.features,
            accepted: Features::empty(),
            slow_reset: blueprint.slow_reset,
            unfinished: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
        }
    }

    pub(super) fn read(&mut self, register: Register, width: u64) -> u32 {
        let honest = self.read_honestly(register, width);
        match &mut self.lie {
            Some(lie) => lie(register, honest),
            None => honest,
        }
    }

    fn read_honestly(&mut self, register: Register, width: u64) -> u32 {
        match register {
            Register::ConfigSpace(offset) => bytes_at(&self.config_space, offset, width),
            Register::Common(register) => self.read_common(register),
            Register::Isr => std::mem::take(&mut self.isr).into(),
            Register::DeviceConfig(offset) => bytes_at(&self.config, offset, width),
            Register::Notify(_) | Register::Nothing { .. } => {
                self.breach(format!("{width} bytes of {register:?} were read"));
                0
            }
        }
    }

    fn read_common(&mut self, register: CommonRegister) -> u32 {
        use CommonRegister as R;
        let feature_bits = |features: Features, select: u32| {
            let shifted = features.bits().checked_shr(select.saturating_mul(32));
            shifted.unwrap_or(0) as u32
        };
        match register {
            R::DeviceFeatureSelect => return self.device_feature_select,
            R::DeviceFeature => return feature_bits(self.offered, self.device_feature_select),
            R::DriverFeatureSelect => return self.driver_feature_select,
            R::DriverFeature => return feature_bits(self.accepted, self.driver_feature_select),
            R::ConfigVector => return self.config_vector.into(),
            R::NumQueues => return self.queues.len() as u32,
            R::DeviceStatus => return self.read_status(),
            R::ConfigGeneration => return self.generation.into(),
            R::QueueSelect => return self.queue_select.into(),
            R::AdminQueueIndex | R::AdminQueueNum => return 0,
            _ => {}
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return 0;
        };
        let half = |area: usize, shift: u32| (queue.areas[area] >> shift) as u32;
        match register {
            R::QueueDescLow => half(0, 0),
            R::QueueDescHigh => half(0, 32),
            R::QueueDriverLow => half(1, 0),
            R::QueueDriverHigh => half(1, 32),
            R::QueueDeviceLow => half(2, 0),
            R::QueueDeviceHigh => half(2, 32),
            R::QueueSize => queue.size.into(),
            R::QueueVector => queue.vector.into(),
            R::QueueEnable => queue.enabled.into(),
            R::QueueNotifyOff => queue.claim.notify_off.into(),
            R::QueueNotifConfigData => queue.claim.notify_data.into(),
            R::QueueReset => queue.read_reset().into(),
            _ => 0,
        }
    }

    fn read_status(&mut self) -> u32 {
        if self.unfinished > 0 {
            self.unfinished -= 1;
            return DeviceStatus::ACKNOWLEDGE.bits().into();
        }
        self.status.status().bits().into()
    }

    pub(super) fn write(&mut self, register: Register, width: u64, value: u32) {
        match register {
            Register::Common(register) => self.write_common(register, value),
            Register::Notify(offset) => {
                let expected = match self.accepted.contains(Features::NOTIFICATION_DATA) {
                    true => 4,
                    false => 2,
                };
                if width != expected || !self.status.is_live() {
                    self.breach(format!(
                        "a notification of {width} bytes, {:?}",
                        self.status
                    ));
                }
                self.notifications.push(Notification {
                    offset,
                    value,
                    width,
                });
            }
            Register::DeviceConfig(offset) => {
                for (at, byte) in (offset as usize..)
                    .zip(value.to_le_bytes())
                    .take(width as usize)
                {
                    match self.config.get_mut(at) {
                        Some(place) => *place = byte,
                        None => self.breach(format!("byte {at} of the configuration was written")),
                    }
                }
            }
            Register::ConfigSpace(_) | Register::Isr | Register::Nothing { .. } => {
                self.breach(format!("{width} bytes of {register:?} were written"));
            }
        }
    }

    fn write_common(&mut self, register: CommonRegister, value: u32) {
        use CommonRegister as R;
        match register {
            R::DeviceFeatureSelect => self.device_feature_select = value,
            R::DriverFeatureSelect => self.driver_feature_select = value,
            R::DriverFeature => {
                let select = self.driver_feature_select;
                if select < 4 {
                    let word = |bits: u32| u128::from(bits) << (32 * select);
                    let others = self.accepted.bits() & !word(u32::MAX);
                    self.accepted = Features::from_bits_retain(others | word(value));
                }
            }
            R::ConfigVector => self.config_vector = self.checked_vector(value as u16),
            R::DeviceStatus => self.write_status(value as u8),
            R::QueueSelect => self.queue_select = value as u16,
            R::DeviceFeature
            | R::NumQueues
            | R::ConfigGeneration
            | R::QueueNotifyOff
            | R::QueueNotifConfigData
            | R::AdminQueueIndex
            | R::AdminQueueNum => self.breach(format!("{register:?} was written")),
            _ => self.write_queue(register, value),
        }
    }

    fn write_queue(&mut self, register: CommonRegister, value: u32) {
        use CommonRegister as R;
        let vector = self.checked_vector(value as u16);
        let packed = self.accepted.contains(Features::RING_PACKED);
        let configured = self.status.status().contains(DeviceStatus::FEATURES_OK);
        let slow_reset = self.slow_reset;
        let select = self.queue_select;
        let Some(queue) = self.queues.get_mut(usize::from(select)) else {
            return self.breach(format!("{register:?} of queue {select} was written"));
        };
        let allowed = match register {
            R::QueueReset => value == 1 && queue.enabled && configured,
            R::QueueEnable => {
                value == 1 && !queue.enabled && configured && queue.claim.max_size > 0
            }
            R::QueueSize => {
                let size = value as u16;
                let possible = size > 0 && (packed || size.is_power_of_two());
                possible && size <= queue.claim.max_size && !queue.enabled && configured
            }
            _ => !queue.enabled && configured,
        };
        match register {
            R::QueueSize => queue.size = value as u16,
            R::QueueVector => queue.vector = vector,
            R::QueueEnable => queue.enabled = true,
            R::QueueDescLow => queue.set_half(0, false, value),
            R::QueueDescHigh => queue.set_half(0, true, value),
            R::QueueDriverLow => queue.set_half(1, false, value),
            R::QueueDriverHigh => queue.set_half(1, true, value),
            R::QueueDeviceLow => queue.set_half(2, false, value),
            R::QueueDeviceHigh => queue.set_half(2, true, value),
            R::QueueReset => queue.unfinished = Some(slow_reset),
            _ => {}
        }
        if !allowed {
            self.breach(format!(
                "{register:?} of queue {select} was set to {value:#x}"
            ));
        }
    }

    /// What an event is mapped to when a vector is written.
    fn checked_vector(&self, vector: u16) -> u16 {
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }

    fn write_status(&mut self, status: u8) {
        match self.status.write(status, self.accepted) {
            Ok(Transition::Reset) => {
                self.unfinished = self.slow_reset;
                self.forget();
            }
            // The driver finds FEATURES_OK missing.
            Ok(_) | Err(StatusError::Features(_)) => {}
            Err(error) => self.breach(error.to_string()),
        }
    }

    /// What a reset does beside the status.
    fn forget(&mut self) {
        self.accepted = Features::empty();
        self.config_vector = NO_VECTOR;
        self.isr = 0;
        for queue in &mut self.queues {
            queue.reset();
        }
    }

    pub(super) fn reset_function(&mut self) {
        self.function_resets += 1;
        self.status = StatusMachine::new(self.offered);
        self.unfinished = 0;
        self.bus_master = false;
        self.eventfds.clear();
        self.forget();
    }

    /// The configuration is another one from now on.
    pub(super) fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn breach(&mut self, what: String) {
        // A driver under a lying device may go on for long.
        if self.breaches.len() < 64 {
            self.breaches.push(what);
        }
    }
}

/// `width` bytes of `bytes`, as a little-endian number; zeroes behind the end.
fn bytes_at(bytes: &[u8], offset: u64, width: u64) -> u32 {
    (0..width).fold(0, |word, index| {
        let at = usize::try_from(offset.saturating_add(index)).unwrap_or(usize::MAX);
        let byte = bytes.get(at).copied().unwrap_or(0);
        word | u32::from(byte) << (8 * index)
    })
}
