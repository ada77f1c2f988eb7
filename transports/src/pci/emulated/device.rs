//! The device's end of an emulated device.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shmbus_shm::{Access, AddressError, AddressSpace, Mapped};
use shmbus_virtio::{DeviceStatus, Features};

use super::dma::{DmaBytes, EmulatedDma};
use super::lies::Lie;
use super::model::{Model, Notification};
use super::queue_model::NO_VECTOR;
use super::register::Register;

/// A queue that the driver has enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAddresses {
    /// How many entries it has.
    pub size: u16,
    /// The descriptor area.
    pub descriptor_area: u64,
    /// The driver area.
    pub driver_area: u64,
    /// The device area.
    pub device_area: u64,
}

/// By this a test plays the device. A clone is the same device.
///
/// As an address space it is the memory that the device reaches: what was allocated of its [`EmulatedDma`], while the
/// driver lets the function access memory.
#[derive(Clone)]
pub struct EmulatedDevice {
    model: Arc<Mutex<Model>>,
    on_notify: Arc<Mutex<Option<OnNotify>>>,
    dma: EmulatedDma,
}

type OnNotify = Arc<dyn Fn(Notification) + Send + Sync>;

impl fmt::Debug for EmulatedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmulatedDevice {{ status: {:?} }}", self.status())
    }
}

impl EmulatedDevice {
    pub(super) fn new(model: Model, dma: EmulatedDma) -> Self {
        Self {
            model: Arc::new(Mutex::new(model)),
            on_notify: Arc::default(),
            dma,
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        // A test that failed elsewhere says why; this would hide it.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, register: Register, width: u64, value: u32) {
        self.model().write(register, width, value);
        if let Register::Notify(offset) = register {
            let on_notify = self.on_notify.lock();
            let on_notify = on_notify.unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(on_notify) = on_notify {
                on_notify(Notification {
                    offset,
                    value,
                    width,
                });
            }
        }
    }

    /// From now on its registers read as `lie` says.
    pub fn lie(&self, lie: Lie) {
        self.model().lie = Some(lie);
    }

    /// From now on it is honest.
    pub fn stop_lying(&self) {
        self.model().lie = None;
    }

    /// Overwrites bytes of its configuration space.
    ///
    /// # Panics
    ///
    /// Behind its end.
    pub fn patch_config_space(&self, at: usize, bytes: &[u8]) {
        self.model().config_space[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Cuts its configuration space to `len` bytes, as the system does for users without privileges.
    pub fn truncate_config_space(&self, len: usize) {
        self.model().config_space.truncate(len);
    }

    /// The status that it would show if it were honest.
    pub fn status(&self) -> DeviceStatus {
        self.model().status.status()
    }

    /// What was negotiated; nothing before that.
    pub fn features(&self) -> Features {
        self.model().status.features()
    }

    /// A queue that the driver has enabled.
    pub fn queue(&self, queue: u16) -> Option<QueueAddresses> {
        let model = self.model();
        let queue = model.queues.get(usize::from(queue))?;
        let [descriptor_area, driver_area, device_area] = queue.areas;
        queue.enabled.then_some(QueueAddresses {
            size: queue.size,
            descriptor_area,
            driver_area,
            device_area,
        })
    }

    /// The memory behind `len` bytes at `address`, for a queue's areas; `None` where the device reaches none.
    pub fn window(&self, address: u64, len: usize) -> Option<Mapped> {
        let reaches = self.model().bus_master;
        reaches.then(|| self.dma.window(address, len))?
    }

    /// Its shared memory.
    pub fn shared_memory(&self) -> Mapped {
        self.model().shared.clone()
    }

    /// The notifications since the last call.
    pub fn take_notifications(&self) -> Vec<Notification> {
        std::mem::take(&mut self.model().notifications)
    }

    /// Calls `on_notify` for each notification, in the thread that notifies.
    pub fn on_notify(&self, on_notify: impl Fn(Notification) + Send + Sync + 'static) {
        let mut place = self
            .on_notify
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::new(on_notify));
    }

    /// Tells the driver that buffers of a queue have been used; returns whether a vector was signalled.
    ///
    /// # Errors
    ///
    /// Of a `write(2)` to an eventfd.
    pub fn signal_queue(&self, queue: u16) -> io::Result<bool> {
        let mut model = self.model();
        let queue = model.queues.get(usize::from(queue));
        let vector = queue.map_or(NO_VECTOR, |queue| queue.vector);
        signal(&mut model, vector, 1)
    }

    /// Changes its configuration, and tells the driver; returns whether a vector was signalled.
    ///
    /// # Errors
    ///
    /// Of a `write(2)` to an eventfd.
    pub fn change_config(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<bool> {
        let mut model = self.model();
        change(&mut model.config);
        model.next_generation();
        let vector = model.config_vector;
        signal(&mut model, vector, 2)
    }

    /// Has met an error that only a reset recovers.
    pub fn ask_for_reset(&self) {
        self.model().status.needs_reset();
    }

    /// How many times registers were accessed.
    pub fn accesses(&self) -> u64 {
        self.model().accesses
    }

    /// How many of these were outside a region, or not aligned to their width.
    pub fn strayed(&self) -> u64 {
        self.model().strayed
    }

    /// How many times the function was reset.
    pub fn function_resets(&self) -> u32 {
        self.model().function_resets
    }

    /// How many eventfds the driver has given it that it could still signal.
    pub fn eventfds(&self) -> usize {
        self.model().eventfds.len()
    }

    /// Whether the driver lets it access memory.
    pub fn is_bus_master(&self) -> bool {
        self.model().bus_master
    }

    /// What the driver did that no driver may do, up to 64 of it.
    pub fn breaches(&self) -> Vec<String> {
        self.model().breaches.clone()
    }
}

/// Signals a vector; without one, it is a bit of the interrupt status.
fn signal(model: &mut Model, vector: u16, isr: u8) -> io::Result<bool> {
    if model.eventfds.is_empty() {
        model.isr |= isr;
        return Ok(false);
    }
    let eventfd: Option<&OwnedFd> = model.eventfds.get(usize::from(vector));
    // A message is a write to memory, too.
    let Some(eventfd) = eventfd.filter(|_| model.bus_master) else {
        return Ok(false);
    };
    rustix::io::write(eventfd, &1_u64.to_ne_bytes())?;
    Ok(true)
}

impl AddressSpace for EmulatedDevice {
    type Slice<'a> = DmaBytes;

    fn translate(&self, address: u64, len: u32, access: Access) -> Result<DmaBytes, AddressError> {
        if !self.is_bus_master() {
            return Err(AddressError::Denied {
                address,
                len,
                access,
            });
        }
        self.dma.translate(address, len, access)
    }
}
