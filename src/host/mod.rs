//! The host's side of a bus: devices, the guests that they serve, and one loop that does it all.

mod agenda;
mod builder;
mod copies;
mod error;
mod gallery;
mod ivshmem;
mod local;
mod port;
mod session;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::timer::Alarm;
use shmbus_devices::{Device, Outbox, Progress, SessionId};
use shmbus_ring::RingFeatures;
use shmbus_shm::slot::Epoch;
use shmbus_shm::{
    DirectoryHeader, DirectoryLayout, DirectoryWriter, Mapped, MemoryId, Region, RegionManager,
    Writing,
};
use shmbus_signal::Priority;
use shmbus_signal::os::{Event, Interest, SignalSet, Token};
use shmbus_signal::suppress::SenderCounts;
use shmbus_table::TypedWriter;
use shmbus_transports::Memory;
use shmbus_transports::local::{Applicant, GoodbyeReason, RefusalCode, SessionId as PortSession};
use shmbus_virtio::{DeviceStatus, Transition};

use self::agenda::Agenda;
pub use self::builder::BusBuilder;
use self::copies::SharedCopy;
pub use self::error::HostError;
use self::gallery::Galleries;
pub use self::gallery::InspectFileError;
use self::port::{PlacedMemory, Port, PortEvent};
use self::session::Session;
use self::warnings::Warnings;
use crate::control::{DeviceOffer, role};
use crate::counters::{Counters, Totals};
use crate::plan::SessionPlan;
use crate::region_set::RegionSetError;

/// How long counters may be out of date.
const COUNTERS_PERIOD_NS: u64 = 20_000_000;

/// How many events are handled before regular work gets its turn.
const EVENTS_PER_TURN: usize = 256;

/// What a token in the signal set stands for.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// A way onto the bus.
    Port(usize),
    /// The next tick of a device is due.
    Alarm,
    /// Somebody wants the loop to end.
    Stop,
    /// A descriptor of a device's.
    Device { device: u32, index: usize },
    /// A session's doorbell of a class.
    Doorbell { session: SessionId, class: usize },
}

/// A bus with its devices, serving guests that come and go.
///
/// Everything happens in [`Bus::run`], on the caller's thread. Nothing that a guest does ends it: a guest that breaks
/// the rules loses its device, or its session, and the others do not notice.
pub struct Bus {
    devices: Vec<Box<dyn Device>>,
    plan: SessionPlan,
    shared: Memory,
    /// What lies in it.
    shared_regions: Vec<Region>,
    /// Whether something in it may have changed since guests' copies were updated.
    copies_are_due: bool,
    counters: TypedWriter<Counters, Mapped, Vec<u64>>,
    /// When they were last published.
    counters_ns: u64,
    ports: Vec<Box<dyn Port>>,
    sessions: BTreeMap<SessionId, Session>,
    sessions_ever: u64,
    /// What sessions that are over sent.
    counts_before: SenderCounts,
    signals: SignalSet,
    sources: HashMap<Token, Source>,
    agenda: Agenda,
    galleries: Galleries,
    /// One timer for all devices: it is set to the earliest tick.
    alarm: Alarm,
    outbox: Outbox,
    warnings: Warnings,
}

impl Bus {
    /// Starts composing a bus.
    pub fn builder() -> BusBuilder {
        BusBuilder::default()
    }

    /// Serves until `stop` is readable. Blocks.
    ///
    /// # Errors
    ///
    /// [`HostError::System`] or [`HostError::Set`] if the process cannot wait any more; nothing that a guest does.
    pub fn run(&mut self, stop: impl AsFd) -> Result<(), HostError> {
        let stop = stop.as_fd().try_clone_to_owned()?;
        let token = self
            .signals
            .add_fd(stop, Interest::READABLE, Priority::HIGHEST)?;
        self.sources.insert(token, Source::Stop);
        let outcome = self.serve();
        self.sources.remove(&token);
        self.signals.remove(token)?;
        outcome
    }

    fn serve(&mut self) -> Result<(), HostError> {
        loop {
            let now = monotonic_ns();
            self.tick(now);
            self.resume();
            self.alarm.set(self.agenda.next_tick())?;
            self.update_copies();
            if self.signals.wait(self.patience(now))? {
                for _ in 0..EVENTS_PER_TURN {
                    let Some(event) = self.signals.next_event() else {
                        break;
                    };
                    match self.sources.get(&event.token()).copied() {
                        Some(Source::Stop) => return Ok(()),
                        Some(source) => self.handle(source, &event),
                        None => {}
                    }
                    // Due timers go before the rest of the events, which is still there afterwards.
                    if self.agenda.due(monotonic_ns()).is_some() {
                        break;
                    }
                }
            }
        }
    }

    /// How long the loop may sleep if nothing happens.
    fn patience(&self, now: u64) -> Option<Duration> {
        if self.agenda.unfinished() > 0 || self.copies_are_due {
            return Some(Duration::ZERO);
        }
        let counters_due = self.counters_ns + COUNTERS_PERIOD_NS;
        (self.agenda.is_touched() || self.galleries.is_behind())
            .then(|| Duration::from_nanos(counters_due.saturating_sub(now)))
    }

    fn tick(&mut self, now: u64) {
        // Each device at most once: one that is due at once again must not keep the others from their signals.
        for _ in 0..self.devices.len() {
            let Some(device) = self.agenda.due(now) else {
                break;
            };
            self.with_device(device, |device, outbox| device.tick(now, outbox));
        }
        let has_news = self.agenda.is_touched() || self.galleries.is_behind();
        if has_news && self.counters_ns + COUNTERS_PERIOD_NS <= now {
            self.counters_ns = now;
            self.publish_counters();
        }
    }

    /// Passes on to guests that have copies of SHARED what changed there.
    fn update_copies(&mut self) {
        if std::mem::take(&mut self.copies_are_due) {
            for session in self.sessions.values_mut() {
                self.copies_are_due |= session.update_copy();
            }
        }
    }

    fn resume(&mut self) {
        for _ in 0..self.agenda.unfinished() {
            if let Some(device) = self.agenda.take_unfinished() {
                self.with_device(device, |device, outbox| device.resume(outbox));
            }
        }
    }

    fn handle(&mut self, source: Source, event: &Event) {
        match source {
            Source::Port(port) => {
                while let Some(event) = self.ports[port].next_event() {
                    self.handle_port(port, event);
                }
            }
            Source::Device { device, index } => {
                self.with_device(device, |device, outbox| device.ready(index, outbox));
            }
            Source::Doorbell { session, class } => {
                if let Event::Raised { channel, .. } = event {
                    self.heard(session, class, *channel);
                }
            }
            Source::Alarm => {
                // Whether it rang or was set anew meanwhile, the agenda knows what is due.
                if let Err(error) = self.alarm.acknowledge() {
                    tracing::error!(%error, "the timer cannot be read");
                }
                self.tick(monotonic_ns());
            }
            // Ends the loop before it comes here.
            Source::Stop => {}
        }
    }

    fn heard(&mut self, id: SessionId, class: usize, channel: u32) {
        let subject = self
            .sessions
            .get(&id)
            .and_then(|session| session.subject(class, channel));
        // A channel that speaks of nothing is a guest's invention.
        let Some(subject) = subject else {
            return;
        };
        match subject.device {
            Some(device) => self.with_device(device, |device, outbox| {
                device.signalled(id, subject.role, outbox)
            }),
            None if subject.role == role::DRIVER_TABLE => self.look_at_drivers(id),
            None => {}
        }
    }

    /// Calls a device, then sends what it raised and takes note of whom it gave up.
    fn with_device(
        &mut self,
        index: u32,
        call: impl FnOnce(&mut dyn Device, &mut Outbox) -> Progress,
    ) {
        let Some(device) = self.devices.get_mut(index as usize) else {
            return;
        };
        let progress = call(device.as_mut(), &mut self.outbox);
        self.copies_are_due = true;
        self.agenda
            .called(index, device.next_tick(), progress == Progress::More);
        for (session, role) in self.outbox.drain() {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.raise(Some(index), role);
            }
        }
        while let Some((id, reason)) = self.devices[index as usize].faulted() {
            let what = format_args!("device needs a reset: {reason}");
            self.warnings.about(id, index, what);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.latch(index);
                session.publish_statuses();
                self.galleries.touch_session(id);
            }
        }
    }

    fn handle_port(&mut self, port: usize, event: PortEvent) {
        match event {
            PortEvent::Hello(applicant) => self.admit(port, &applicant),
            PortEvent::Memory { session, memory } => {
                if let Err(error) = self.connect(port, session, &memory) {
                    tracing::warn!(session = session.0, %error, "guest refused");
                    self.ports[port].refuse(session, RefusalCode::Memory, &error.to_string());
                    self.forget(device_session(session));
                }
            }
            PortEvent::Closed { session, farewell } => {
                if let Some(reason) = farewell {
                    tracing::info!(session = session.0, %reason, "guest left");
                }
                self.forget(device_session(session));
            }
        }
    }

    /// Offers a guest what there is.
    fn admit(&mut self, port: usize, applicant: &Applicant) {
        let session = applicant.session;
        let admitted = self.offer(port, applicant).and_then(|offered| {
            self.ports[port].welcome(session)?;
            Ok(offered)
        });
        match admitted {
            Ok(offered) => {
                self.sessions.insert(device_session(session), offered);
            }
            Err(error) => {
                let name = &applicant.name;
                tracing::warn!(session = session.0, %name, %error, "guest refused");
                self.ports[port].refuse(session, RefusalCode::Busy, &error.to_string());
            }
        }
    }

    fn offer(&mut self, port: usize, applicant: &Applicant) -> Result<Session, HostError> {
        let id = device_session(applicant.session);
        let mut ground = self.ports[port].prepare(applicant.session, &self.plan)?;
        let offers = self.devices.iter_mut().map(|device| {
            let RingFeatures { virtio, private } = device.features();
            DeviceOffer {
                id: device.id(),
                features: virtio,
                private,
                status: DeviceStatus::empty(),
                config: device.config(id),
            }
        });
        let offers = offers.collect();
        let name = applicant.name.to_string();
        let mut shared = PlacedMemory::from(&self.shared);
        let Some(copy) = ground.copy.take() else {
            return Session::new(id, port, name, &self.plan, offers, ground, shared);
        };
        // The guest is told of its copy. This side uses the original.
        shared.epoch = copy.epoch;
        let copy = SharedCopy::new(&self.shared_regions, &shared.window, &copy)?;
        let session = Session::new(id, port, name, &self.plan, offers, ground, shared)?;
        Ok(session.with_copy(copy))
    }

    fn connect(
        &mut self,
        port: usize,
        session: PortSession,
        memory: &PlacedMemory,
    ) -> Result<(), HostError> {
        let id = device_session(session);
        let Some(connecting) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        connecting.connect(memory, &mut self.signals)?;
        for (class, token) in connecting.tokens().iter().enumerate() {
            self.sources
                .insert(*token, Source::Doorbell { session: id, class });
        }
        self.ports[port].ready(session)?;
        self.sessions_ever += 1;
        self.agenda.guests_changed();
        tracing::info!(session = id.0, name = connecting.name(), "guest on the bus");
        if !self.galleries.is_empty() {
            let regions = connecting.placed()?;
            self.galleries.show(id, connecting.name(), &regions);
        }
        // The guest may have set its drivers up before it said hello.
        self.look_at_drivers(id);
        Ok(())
    }

    fn look_at_drivers(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let mut steps = Vec::new();
        session.look_at_drivers(&mut self.warnings, |device, private, transition| {
            steps.push((device, private, transition))
        });
        for (index, private, transition) in steps {
            let Some(device) = self.devices.get_mut(index as usize) else {
                continue;
            };
            if matches!(transition, Transition::Activate(_)) {
                self.galleries.renew(id, index);
            }
            match transition {
                Transition::None => continue,
                Transition::Reset => device.deactivate(id),
                Transition::Activate(features) => {
                    let features = RingFeatures::from(features).with_private(private);
                    let regions = session.regions(index);
                    if let Err(error) = device.activate(id, &regions, features) {
                        let what = format_args!("driver refused: {error}");
                        self.warnings.about(id, index, what);
                        session.latch(index);
                    }
                }
            }
            // What the driver did before it was activated was not signalled.
            self.agenda.called(index, device.next_tick(), true);
        }
        session.publish_statuses();
        self.galleries.touch_session(id);
    }

    /// A session is over: its devices let go of it, and its memories go with it.
    fn forget(&mut self, id: SessionId) {
        let Some(mut session) = self.sessions.remove(&id) else {
            return;
        };
        for (index, device) in (0..).zip(&mut self.devices) {
            device.leave(id, &mut self.outbox);
            let mut concerns_others = false;
            for (other, role) in self.outbox.drain() {
                concerns_others = true;
                if let Some(other) = self.sessions.get_mut(&other) {
                    other.raise(Some(index), role);
                }
            }
            if concerns_others {
                self.agenda.called(index, device.next_tick(), false);
            }
        }
        for token in session.tokens() {
            self.sources.remove(token);
        }
        let counts = session.counts();
        self.counts_before.sent += counts.sent;
        self.counts_before.suppressed += counts.suppressed;
        session.disconnect(&mut self.signals);
        self.galleries.hide(id);
        self.warnings.settle();
        // At once: who has seen a guest leave finds everything counted that it did.
        self.publish_counters();
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            guests: self.sessions.len() as u64,
            guests_ever: self.sessions_ever,
            signals_sent: self.counts_before.sent,
            signals_suppressed: self.counts_before.suppressed,
        };
        for session in self.sessions.values() {
            let counts = session.counts();
            totals.signals_sent += counts.sent;
            totals.signals_suppressed += counts.suppressed;
        }
        totals
    }

    fn publish_counters(&mut self) {
        let totals = Counters::from(self.totals());
        // Observers poll: nobody waits for these.
        let mut publish = |slot, counters: &Counters| {
            if let Err(error) = self.counters.publish(slot, counters) {
                tracing::error!(%error, "the counters cannot be published");
            }
        };
        while let Some(index) = self.agenda.take_touched() {
            let device = &self.devices[index as usize];
            let mut counters = Counters::of(device.id());
            device.counters(&mut counters.values);
            publish(index + 1, &counters);
            self.galleries.touch(index);
        }
        // Last: the devices' counters are no older than the totals that a reader has seen.
        publish(0, &totals);
        self.copies_are_due = true;
        self.galleries.turn();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for (id, session) in &self.sessions {
            let number = PortSession(id.0 as u32);
            self.ports[session.port()].close(number, GoodbyeReason::Restarting);
        }
    }
}

/// What devices call a port's session. Ports give numbers out in turn, so that each is used once.
fn device_session(session: PortSession) -> SessionId {
    SessionId(session.0.into())
}

/// Takes a memory into a plan.
fn attach(
    manager: &RegionManager,
    memory: MemoryId,
    placed: &PlacedMemory,
) -> Result<(), HostError> {
    manager.attach(memory, placed.epoch, placed.window.clone())?;
    Ok(())
}

/// The window of a region of the bus's own.
fn leased(manager: &RegionManager, role: u16) -> Result<Mapped, HostError> {
    let found = manager
        .regions()
        .into_iter()
        .find(|(_, region)| region.purpose.device.is_none() && region.purpose.role == role);
    let (handle, _) = found.ok_or(RegionSetError::Missing { role })?;
    Ok(manager.lease(handle)?.window().clone())
}

/// Writes the directory of `regions` to the start of `window`.
fn write_directory(
    window: &Mapped,
    regions: &[(u32, Region)],
    writing: Writing,
) -> Result<(), HostError> {
    let header = DirectoryHeader {
        layout: DirectoryLayout::new(regions.len() as u32)?,
        epoch: Epoch::FIRST,
        writing,
    };
    let mut directory = DirectoryWriter::create_with(window, header, vec![0; regions.len()])?;
    for (place, region) in regions {
        directory.publish(*place, region)?;
    }
    Ok(())
}

/// A device's descriptor, to be waited for beside the signals.
fn duplicate(fd: impl AsFd) -> io::Result<std::os::fd::OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}
