//! Composing a bus.

use std::path::{Path, PathBuf};
use std::time::Instant;

use shmbus_devices::timer::Alarm;
use shmbus_devices::{Device, Regions, SessionId};
use shmbus_shm::slot::Epoch;
use shmbus_shm::{MemoryId, Section, Writing};
use shmbus_signal::Priority;
use shmbus_signal::os::{Interest, SignalSet};
use shmbus_table::TypedWriter;
use shmbus_transports::Memory;
use shmbus_transports::ivshmem::{Server, ServerOptions};
use shmbus_transports::local::{Listener, ListenerOptions, Numbering};
use std::collections::{BTreeMap, HashMap};

use super::agenda::Agenda;
use super::gallery::{Backing, Galleries, Gallery, InspectFile, Placed};
use super::ivshmem::IvshmemPort;
use super::local::LocalPort;
use super::port::Port;
use super::warnings::Warnings;
use super::{Bus, HostError, Source, duplicate};
use crate::control::role;
use crate::counters::{Counters, Totals};
use crate::gallery::GalleryPlan;
use crate::plan::SessionPlan;

/// Composes a bus out of devices.
#[derive(Default)]
pub struct BusBuilder {
    devices: Vec<Box<dyn Device>>,
    options: ListenerOptions,
    ivshmem: Vec<(PathBuf, ServerOptions)>,
    /// Where inspectors find the bus in a file, and that file's permissions.
    inspect_file: Option<(PathBuf, u32)>,
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

    /// Shows the bus in a file besides, for inspectors who want a path, such as a virtual machine with an ivshmem function. It
    /// is created at `path`, with these permissions, and removed when the bus is dropped; one that a dead host left there is
    /// replaced. Nobody else is to write it. Room for [as many guests](Self::max_guests) as may come is made at once.
    #[must_use]
    pub fn inspect_file(mut self, path: impl Into<PathBuf>, mode: u32) -> Self {
        self.inspect_file = Some((path.into(), mode));
        self
    }

    /// Serves guests in QEMU as well, whose `ivshmem-doorbell` connects to the socket `path`.
    #[must_use]
    pub fn ivshmem(mut self, path: impl AsRef<Path>, options: ServerOptions) -> Self {
        self.ivshmem.push((path.as_ref().to_owned(), options));
        self
    }

    /// Plans the memories, starts the devices, and listens at `path` for guests that are processes, beside whatever else
    /// was said.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what cannot be had.
    pub fn listen(self, path: impl AsRef<Path>) -> Result<Bus, HostError> {
        self.serve_at(Some(path.as_ref()))
    }

    /// Plans the memories, starts the devices, and serves guests in QEMU alone.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what cannot be had; [`HostError::NoSocket`] without an [`ivshmem`](Self::ivshmem) socket.
    pub fn serve(self) -> Result<Bus, HostError> {
        if self.ivshmem.is_empty() {
            return Err(HostError::NoSocket);
        }
        self.serve_at(None)
    }

    fn serve_at(self, path: Option<&Path>) -> Result<Bus, HostError> {
        let Self {
            mut devices,
            mut options,
            ivshmem,
            inspect_file,
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
        let mut counters = TypedWriter::create(
            super::leased(&manager, role::COUNTERS)?,
            slots as u32,
            Epoch::FIRST,
            vec![0; slots],
        )?;
        for (slot, device) in (1..).zip(&devices) {
            // Observers poll: nobody waits for these.
            let _ = counters.publish(slot, &Counters::of(device.id()))?;
        }
        let _ = counters.publish(0, &Counters::from(Totals::default()))?;
        let mut shared_regions: BTreeMap<u32, Regions> = BTreeMap::new();
        let mut directory = Vec::new();
        let mut of_bus = Placed::new();
        for (handle, region) in manager.regions() {
            if region.placement.memory.section() != Section::Shared {
                continue;
            }
            let window = manager.lease(handle)?.window().clone();
            of_bus.push((directory.len() as u32, region, window.clone()));
            directory.push((directory.len() as u32, region));
            if let Some(device) = region.purpose.device {
                shared_regions.entry(device).or_default().insert(
                    region.purpose.role,
                    region.purpose.kind,
                    window,
                );
            }
        }
        super::write_directory(shared.window(), &directory, Writing::Enforced)?;
        for (index, device) in (0..).zip(&mut devices) {
            let shared = shared_regions.remove(&index).unwrap_or_default();
            device.start(&shared).map_err(|source| HostError::Start {
                device: index,
                name: device.id().to_string(),
                source,
            })?;
        }

        let mut galleries = Galleries::default();
        // What inspectors at the socket cannot be given otherwise.
        let shows_others = path.is_some() && !ivshmem.is_empty();
        if shows_others || inspect_file.is_some() {
            let regions = manager.regions().into_iter();
            let regions: Vec<_> = regions.map(|(_, region)| region).collect();
            let local = path.as_ref().map_or(0, |_| options.quotas.sessions);
            let others = ivshmem.iter().map(|(_, options)| options.guests);
            let sessions = u32::try_from(local + others.sum::<usize>()).unwrap_or(u32::MAX);
            let plan = GalleryPlan::new(&regions, sessions)?;
            let mut backings = Vec::new();
            if shows_others {
                backings.push(Backing::sealed(&plan)?);
            }
            if let Some((path, mode)) = inspect_file {
                let file = InspectFile::create(&path, plan.header.bytes, mode)?;
                backings.push(Backing::File(file));
            }
            for backing in backings {
                let gallery = Gallery::open(plan.clone(), backing, &of_bus, devices.len())?;
                galleries.add(gallery);
            }
        }
        let step = u32::from(path.is_some()) + ivshmem.len() as u32;
        let mut ports: Vec<Box<dyn Port>> = Vec::new();
        let numbering = |ports: &[Box<dyn Port>]| Numbering {
            first: ports.len() as u32 + 1,
            step,
        };
        if let Some(path) = path {
            options.numbering = numbering(&ports);
            let listener = Listener::bind(path, options)?;
            ports.push(Box::new(LocalPort::new(
                listener,
                &shared,
                galleries.sealed(),
            )?));
        }
        for (path, mut options) in ivshmem {
            options.numbering = numbering(&ports);
            let sections = Section::ALL.map(|section| plan.bytes(section));
            let server = Server::bind(path, sections, options)?;
            ports.push(Box::new(IvshmemPort::new(server)));
        }
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
            galleries,
            alarm,
            devices,
            plan,
            shared,
            shared_regions: directory.into_iter().map(|(_, region)| region).collect(),
            copies_are_due: false,
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
