//! The guest's side of a bus: what devices there are, their drivers' memory, and waiting for signals.

mod clock;
mod error;
mod link;
mod network;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use shmbus_devices::Regions;
use shmbus_devices::clock::twin::TwinClockReader;
use shmbus_devices::intc::{IntcDriver, device as intc};
use shmbus_devices::timer::TimerDriver;
use shmbus_ring::RingFeatures;
use shmbus_shm::slot::Epoch;
use shmbus_shm::{Mapped, Notify};
use shmbus_signal::os::{Event, Interest, SignalSet, Token};
use shmbus_signal::suppress::SenderCounts;
use shmbus_signal::{ChannelId, Priority};
use shmbus_table::{TypedReader, TypedWriter};
use shmbus_transports::local::{Backoff, ConnectError, GuestName, GuestOptions};
use shmbus_transports::pci::Function;
use shmbus_virtio::{DeviceId, DeviceStatus};

pub use self::clock::{
    GuestClock, clock_driver, clock_driver_over, clock_reader, estimate_counter, exchange_counter,
};
pub use self::error::GuestError;
pub use self::link::HostGone;
use self::link::{Invitation, Link};
pub use self::network::{
    BusPort, Card, CardCounters, CardError, CardOptions, CardPort, Ended, Environment, Interrupts,
    Network, NetworkCounters, NetworkError, OnBus,
};
use crate::bells::{self, Bells, Side};
use crate::control::{DeviceOffer, DriverState, role};
use crate::region_set::{RegionSet, Subject, attach_table};

/// How long the host may take to answer a driver.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the guest has to act on.
#[derive(Debug)]
pub enum GuestEvent {
    /// The host signalled a region of a device.
    Signalled {
        /// Which device.
        device: u32,
        /// The region's role.
        role: u16,
    },
    /// A device's status or configuration changed: see [`Guest::offer`].
    DeviceChanged,
    /// A descriptor that was added is ready.
    Ready(Token),
    /// The host is gone, and everything with it: drop the guest, and connect again.
    HostGone(HostGone),
}

/// What a token in the signal set stands for.
#[derive(Clone, Copy, Debug)]
enum Source {
    Link,
    Doorbell { class: usize },
    Foreign,
}

/// A guest on a bus.
pub struct Guest {
    link: Link,
    regions: RegionSet,
    offers: TypedReader<DeviceOffer, Mapped, Vec<u64>>,
    drivers: TypedWriter<DriverState, Mapped, Vec<u64>>,
    devices: usize,
    bells: Bells,
    heard: BTreeMap<ChannelId, Subject>,
    signals: SignalSet,
    sources: HashMap<Token, Source>,
    /// What came while an answer was awaited.
    deferred: VecDeque<GuestEvent>,
}

impl Guest {
    /// Connects to the host at `path`. Blocks for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`GuestError`].
    pub fn connect(
        path: impl AsRef<Path>,
        name: &str,
        timeout: Duration,
    ) -> Result<Self, GuestError> {
        let options = GuestOptions::new(GuestName::new(name)?);
        let invitation = shmbus_transports::local::connect(path, &options, timeout)?;
        Self::accept(Invitation::local(invitation)?)
    }

    /// Connects to a host that may not be there yet, or is just restarting. Blocks until it succeeds, or `failed`,
    /// which is told of each failure and the wait that would follow, breaks off.
    ///
    /// # Errors
    ///
    /// [`GuestError`]: the last failure, or one that waiting does not cure.
    pub fn reconnect(
        path: impl AsRef<Path>,
        name: &str,
        failed: impl FnMut(&ConnectError, Duration) -> ControlFlow<()>,
    ) -> Result<Self, GuestError> {
        let options = GuestOptions::new(GuestName::new(name)?);
        let backoff = Backoff::default();
        let invitation = shmbus_transports::local::reconnect(path, &options, backoff, failed)?;
        Self::accept(Invitation::local(invitation)?)
    }

    /// Attaches to the host behind an `ivshmem-doorbell` function, in a virtual machine. Whoever was attached through it
    /// before is not any more. Blocks for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`GuestError`].
    pub fn attach<F: Function + 'static>(
        function: F,
        name: &str,
        timeout: Duration,
    ) -> Result<Self, GuestError> {
        let options = GuestOptions::new(GuestName::new(name)?);
        let invitation = shmbus_transports::ivshmem::guest::attach(function, &options, timeout)?;
        Self::accept(Invitation::Ivshmem(invitation))
    }

    /// Formats the guest's memory as the directory plans it, and hands it over.
    fn accept(invitation: Invitation) -> Result<Self, GuestError> {
        let (memories, host) = invitation.memories()?;
        let regions = RegionSet::read(&host, &memories)?;

        let offers: TypedReader<DeviceOffer, _, _> =
            attach_table(&regions.own(role::DEVICE_TABLE)?.1)?;
        let devices = offers.table().layout().slots() as usize;
        let drivers = TypedWriter::create(
            regions.own(role::DRIVER_TABLE)?.1.clone(),
            devices as u32,
            Epoch::FIRST,
            vec![0; devices],
        )?;
        let (link, ends) = invitation.complete()?;

        let bells = Bells::new(&regions, Side::Guest, ends.wakers)?;
        let mut signals = SignalSet::new()?;
        let mut sources = HashMap::new();
        let priority = |class: usize| Priority::new(class as u8).unwrap_or(Priority::LOWEST);
        if let Some(waiters) = ends.waiters {
            let ears = bells::ears(&regions, Side::Guest, waiters)?;
            for (class, (receiver, waiter)) in ears.into_iter().enumerate() {
                let token = signals.add_doorbell(receiver, waiter, priority(class))?;
                sources.insert(token, Source::Doorbell { class });
            }
        } else {
            let receivers = bells::receivers(&regions, Side::Guest)?;
            for (class, receiver) in receivers.into_iter().enumerate() {
                let token = signals.add_polled(receiver, priority(class))?;
                sources.insert(token, Source::Doorbell { class });
            }
        }
        let news = link.as_fd().try_clone_to_owned()?;
        let token = signals.add_fd(news, Interest::READABLE, Priority::LOWEST)?;
        sources.insert(token, Source::Link);
        Ok(Self {
            heard: bells::heard(&regions, Side::Guest),
            link,
            regions,
            offers,
            drivers,
            devices,
            bells,
            signals,
            sources,
            deferred: VecDeque::new(),
        })
    }

    /// How many devices there are.
    pub fn devices(&self) -> u32 {
        self.devices as u32
    }

    /// What the host offers as device number `device`, and how it is.
    ///
    /// # Errors
    ///
    /// [`GuestError::Offer`], [`GuestError::NoSuchDevice`].
    pub fn offer(&mut self, device: u32) -> Result<DeviceOffer, GuestError> {
        if device as usize >= self.devices {
            return Err(GuestError::NoSuchDevice {
                device,
                devices: self.devices,
            });
        }
        self.offers
            .read(device)
            .map(|(offer, _)| offer)
            .map_err(|source| GuestError::Offer { device, source })
    }

    /// The first device of a type.
    pub fn find(&mut self, id: DeviceId) -> Option<u32> {
        (0..self.devices()).find(|device| self.offer(*device).is_ok_and(|offer| offer.id == id))
    }

    /// A device's regions.
    pub fn regions(&self, device: u32) -> Regions {
        self.regions.of_device(device)
    }

    /// Tells the host that the driver is ready, having chosen `features`, and waits for its answer. What the host
    /// reads of the driver must be set up before. Blocks for at most five seconds.
    ///
    /// # Errors
    ///
    /// [`GuestError::Features`] for a choice that was not offered; [`GuestError::Refused`], [`GuestError::Silent`],
    /// [`GuestError::HostGone`].
    pub fn activate(
        &mut self,
        device: u32,
        features: impl Into<RingFeatures>,
    ) -> Result<(), GuestError> {
        let features = features.into();
        let offered = self.offer(device)?;
        offered
            .features
            .accept(features.virtio)
            .and_then(|_| offered.private.accept(features.private))
            .map_err(|source| GuestError::Features { device, source })?;
        let status = DeviceStatus::ACKNOWLEDGE
            | DeviceStatus::DRIVER
            | DeviceStatus::FEATURES_OK
            | DeviceStatus::DRIVER_OK;
        self.write_status(device, status, features)?;
        let needs_reset = DeviceStatus::DEVICE_NEEDS_RESET;
        let answer = self.await_status(device, |found| {
            found.contains(status) || found.contains(needs_reset)
        })?;
        if answer.contains(needs_reset) {
            return Err(GuestError::Refused {
                device,
                status: answer,
            });
        }
        Ok(())
    }

    /// Resets a device, and waits until it has let go of its driver's memory: also one that needs a reset because its
    /// driver broke the rules. Blocks for at most five seconds.
    ///
    /// # Errors
    ///
    /// [`GuestError::Silent`], [`GuestError::HostGone`].
    pub fn reset(&mut self, device: u32) -> Result<(), GuestError> {
        self.write_status(device, DeviceStatus::empty(), RingFeatures::default())?;
        self.await_status(device, DeviceStatus::is_empty)?;
        Ok(())
    }

    fn write_status(
        &mut self,
        device: u32,
        status: DeviceStatus,
        features: RingFeatures,
    ) -> Result<(), GuestError> {
        let state = DriverState {
            status: status.bits(),
            features: features.virtio,
            private: features.private,
        };
        let (_, notify) = self.drivers.publish(device, &state)?;
        self.raise_own(role::DRIVER_TABLE, notify);
        Ok(())
    }

    fn await_status(
        &mut self,
        device: u32,
        reached: impl Fn(&DeviceStatus) -> bool,
    ) -> Result<DeviceStatus, GuestError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.offer(device)?.status;
            if reached(&status) {
                return Ok(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GuestError::Silent {
                    device,
                    limit: PATIENCE,
                });
            }
            if self.signals.wait(Some(left))? {
                while let Some(event) = self.next_signal() {
                    match event {
                        GuestEvent::HostGone(reason) => return Err(GuestError::HostGone(reason)),
                        GuestEvent::DeviceChanged => {}
                        // For whoever drives the other devices.
                        other => self.deferred.push_back(other),
                    }
                }
            }
        }
    }

    /// Signals the host of one of this guest's regions, if the decision says so.
    pub fn signal(&mut self, device: u32, role: u16, notify: Notify) {
        self.raise(Some(device), role, notify);
    }

    fn raise_own(&mut self, role: u16, notify: Notify) {
        self.raise(None, role, notify);
    }

    fn raise(&mut self, device: Option<u32>, role: u16, notify: Notify) {
        if notify.is_needed()
            && let Some(channel) = self.regions.channel(device, role)
            && let Err(error) = self.bells.raise(channel)
        {
            tracing::warn!(%error, "a doorbell cannot be rung");
        }
    }

    /// Has a descriptor waited for beside the signals.
    ///
    /// # Errors
    ///
    /// [`GuestError::Set`].
    pub fn add_fd(&mut self, fd: impl AsFd, priority: Priority) -> Result<Token, GuestError> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        let token = self.signals.add_fd(fd, Interest::READABLE, priority)?;
        self.sources.insert(token, Source::Foreign);
        Ok(token)
    }

    /// Waits until there is something to act on, or time is up (`None`: never). Returns whether there is.
    ///
    /// # Errors
    ///
    /// [`GuestError::System`]; not expected.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, GuestError> {
        if !self.deferred.is_empty() {
            return Ok(true);
        }
        Ok(self.signals.wait(timeout)?)
    }

    /// The next thing to act on, the more urgent first. `None`: nothing is left, wait.
    pub fn next_event(&mut self) -> Option<GuestEvent> {
        self.deferred.pop_front().or_else(|| self.next_signal())
    }

    fn next_signal(&mut self) -> Option<GuestEvent> {
        loop {
            let event = self.signals.next_event()?;
            let token = event.token();
            match (self.sources.get(&token), event) {
                (Some(Source::Doorbell { class }), Event::Raised { channel, .. }) => {
                    let subject = Priority::new(*class as u8)
                        .and_then(|class| ChannelId::new(class, channel))
                        .and_then(|channel| self.heard.get(&channel));
                    match subject {
                        Some(Subject {
                            device: Some(device),
                            role,
                        }) => {
                            return Some(GuestEvent::Signalled {
                                device: *device,
                                role: *role,
                            });
                        }
                        Some(Subject { device: None, .. }) => {
                            return Some(GuestEvent::DeviceChanged);
                        }
                        // The host's invention.
                        None => {}
                    }
                }
                (Some(Source::Link), _) => {
                    if let Some(reason) = self.link.next_event() {
                        return Some(GuestEvent::HostGone(reason));
                    }
                }
                (Some(Source::Foreign), _) => return Some(GuestEvent::Ready(token)),
                _ => {}
            }
        }
    }

    /// How many signals were sent to the host, and how many suppressed.
    pub fn counts(&self) -> SenderCounts {
        self.bells.counts()
    }

    /// Leaves the bus.
    pub fn leave(self) {
        self.link.leave();
    }
}

/// A reader of the clocks of a clock device's twin over rings, which is activated.
/// [`TwinClockReader::receive`] says whether to signal the region
/// [`role::SAMPLES_DRIVER`](shmbus_devices::clock::twin::role::SAMPLES_DRIVER).
///
/// # Errors
///
/// [`GuestError`].
pub fn clock_twin(guest: &mut Guest, device: u32) -> Result<TwinClockReader, GuestError> {
    let offer = guest.offer(device)?;
    let features = shmbus_devices::lane::accepted(offer.offered());
    let reader = TwinClockReader::attach(&guest.regions(device), &offer.config, features)
        .map_err(|source| GuestError::Driver { device, source })?;
    guest.activate(device, features)?;
    Ok(reader)
}

/// The driver of a timer device, which is activated: that of virtual CPU 0. The others' timers stay off.
///
/// # Errors
///
/// [`GuestError`].
pub fn timer_driver(guest: &mut Guest, device: u32) -> Result<TimerDriver<Mapped>, GuestError> {
    let mut drivers = timer_drivers(guest, device)?;
    // There is one at least.
    Ok(drivers.swap_remove(0))
}

/// The drivers of a timer device, which is activated, one for each virtual CPU: each may go to the thread that runs it.
///
/// # Errors
///
/// [`GuestError`].
pub fn timer_drivers(
    guest: &mut Guest,
    device: u32,
) -> Result<Vec<TimerDriver<Mapped>>, GuestError> {
    let offer = guest.offer(device)?;
    let features = shmbus_devices::lane::accepted(offer.offered());
    let drivers =
        shmbus_devices::timer::device::attach(&guest.regions(device), &offer.config, features)
            .map_err(|source| GuestError::Driver { device, source })?;
    guest.activate(device, features)?;
    Ok(drivers)
}

/// The driver of an interrupt controller, which is activated. All lines are masked.
///
/// # Errors
///
/// [`GuestError`].
pub fn intc_driver(guest: &mut Guest, device: u32) -> Result<IntcDriver<Mapped>, GuestError> {
    let offer = guest.offer(device)?;
    let features = shmbus_devices::lane::accepted(offer.offered());
    let driver = intc::attach(&guest.regions(device), &offer.config, features)
        .map_err(|source| GuestError::Driver { device, source })?;
    guest.activate(device, features)?;
    Ok(driver)
}

/// Has a driver of an interrupt controller go on with that of another session, after the host was restarted or the device
/// reset; see [`IntcDriver::move_to`].
///
/// # Errors
///
/// [`GuestError`].
pub fn move_intc_driver(
    guest: &mut Guest,
    device: u32,
    driver: &mut IntcDriver<Mapped>,
) -> Result<(), GuestError> {
    let offer = guest.offer(device)?;
    let features = shmbus_devices::lane::accepted(offer.offered());
    let notify = intc::move_to(driver, &guest.regions(device), &offer.config, features)
        .map_err(|source| GuestError::Driver { device, source })?;
    guest.activate(device, features)?;
    guest.signal(device, intc::role::REQUESTS, notify);
    Ok(())
}
