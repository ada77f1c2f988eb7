//! Composing a bus.

use std::path::Path;
use std::time::Instant;

use shmbus_devices::timer::Alarm;
use shmbus_devices::{Device, Regions, SessionId};
use shmbus_shm::slot::Epoch;
use shmbus_shm::{MemoryId, Section};
use shmbus_signal::Priority;
use shmbus_signal::os::{Interest, SignalSet};
use shmbus_table::TypedWriter;
use shmbus_transports::Memory;
use shmbus_transports::local::{Listener, ListenerOptions};
use std::collections::{BTreeMap, HashMap};

use super::agenda::Agenda;
use super::local::LocalPort;
use super::port::Port;
use super::warnings::Warnings;
use super::{Bus, HostError, Source, duplicate};
use crate::control::role;
use crate::plan::SessionPlan;

/// Composes a bus out of devices.
#[derive(Default)]
pub struct BusBuilder {
    devices: Vec<Box<dyn Device>>,
    options: ListenerOptions,
}

impl BusBuilder {
    /// Adds a device. Guests find devices by their index: the order of these calls.
    #[must_use]
    pub fn device(mut self, device: impl Device + 'static) -> Self {
        self.devices.push(Box::new(device));
        self
    }

    /// How many guests may be on the bus at a time.
    #[must_use]
    pub fn max_guests(mut self, guests: usize) -> Self {
        self.options.quotas.sessions = guests;
        self
    }

    /// What peers may ask for, and who may connect.
    #[must_use]
    pub fn options(mut self, options: ListenerOptions) -> Self {
        self.options = options;
        self
    }

    /// Plans the memories, starts the devices, and listens at `path`.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what cannot be had.
    pub fn listen(self, path: impl AsRef<Path>) -> Result<Bus, HostError> {
        let Self {
            mut devices,
            mut options,
        } = self;
        if devices.is_empty() {
            return Err(HostError::NoDevices);
        }
        let requests: Vec<_> = devices.iter().map(|device| device.regions()).collect();
        let plan = SessionPlan::new(&requests)?;
        let guest_bytes = plan.bytes(Section::Guest);
        options.quotas.guest_memory_bytes = options.quotas.guest_memory_bytes.max(guest_bytes);

        let shared = Memory::create(
            MemoryId::SHARED,
            "shmbus-shared",
            plan.bytes(Section::Shared),
            1,
        )?;
        let manager = plan.place()?;
        super::attach(&manager, shared.id, &(&shared).into())?;
        let slots = devices.len() + 1;
        let counters = TypedWriter::create(
            super::leased(&manager, role::COUNTERS)?,
            slots as u32,
            Epoch::FIRST,
            vec![0; slots],
        )?;
        let mut shared_regions: BTreeMap<u32, Regions> = BTreeMap::new();
        let mut directory = Vec::new();
        for (handle, region) in manager.regions() {
            if region.placement.memory.section() != Section::Shared {
                continue;
            }
            directory.push((directory.len() as u32, region));
            if let Some(device) = region.purpose.device {
                let window = manager.lease(handle)?.window().clone();
                shared_regions.entry(device).or_default().insert(
                    region.purpose.role,
                    region.purpose.kind,
                    window,
                );
            }
        }
        super::write_directory(shared.window(), &directory)?;
        for (index, device) in (0..).zip(&mut devices) {
            let shared = shared_regions.remove(&index).unwrap_or_default();
            device.start(&shared).map_err(|source| HostError::Start {
                device: index,
                name: device.id().to_string(),
                source,
            })?;
        }

        let listener = Listener::bind(path, options)?;
        let ports: Vec<Box<dyn Port>> = vec![Box::new(LocalPort::new(listener, &shared)?)];
        let mut signals = SignalSet::new()?;
        let mut sources = HashMap::new();
        for (index, port) in ports.iter().enumerate() {
            let fd = duplicate(port.fd())?;
            let token = signals.add_fd(fd, Interest::READABLE, Priority::LOWEST)?;
            sources.insert(token, Source::Port(index));
        }
        let alarm = Alarm::new()?;
        let token = signals.add_fd(duplicate(&alarm)?, Interest::READABLE, Priority::HIGHEST)?;
        sources.insert(token, Source::Alarm);
        for (device, served) in (0..).zip(&devices) {
            for (index, (fd, priority)) in served.descriptors().into_iter().enumerate() {
                let token = signals.add_fd(duplicate(fd)?, Interest::READABLE, priority)?;
                sources.insert(token, Source::Device { device, index });
            }
        }
        let mut agenda = Agenda::new(devices.len());
        for (index, device) in (0..).zip(&devices) {
            agenda.called(index, device.next_tick(), false);
        }
        Ok(Bus {
            agenda,
            alarm,
            devices,
            plan,
            shared,
            counters,
            counters_ns: 0,
            ports,
            sessions: BTreeMap::<SessionId, _>::new(),
            sessions_ever: 0,
            counts_before: shmbus_signal::suppress::SenderCounts::default(),
            signals,
            sources,
            outbox: shmbus_devices::Outbox::default(),
            warnings: Warnings::new(Instant::now()),
        })
    }
}
