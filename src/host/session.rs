//! One guest on the bus, as the host sees it.

use std::collections::BTreeMap;

use shmbus_devices::{Regions, SessionId};
use shmbus_shm::slot::Epoch;
use shmbus_shm::{Mapped, MemoryId, RegionManager};
use shmbus_signal::os::{SignalSet, Token};
use shmbus_signal::suppress::SenderCounts;
use shmbus_signal::{CLASSES, ChannelId, Priority};
use shmbus_table::{TypedReader, TypedWriter};
use shmbus_virtio::{DeviceStatus, PrivateFeatures, StatusError, StatusMachine, Transition};

use super::copies::SharedCopy;
use super::error::HostError;
use super::gallery::Placed;
use super::port::{Ends, Ground, PlacedMemory};
use super::warnings::Warnings;
use crate::bells::{self, Bells, Side};
use crate::control::{DeviceOffer, DriverState, role};
use crate::plan::SessionPlan;
use crate::region_set::{RegionSet, Subject};

/// Reads the guest's answers to what it was offered.
type DriverTable = TypedReader<DriverState, Mapped, Vec<u64>>;

pub(super) struct Session {
    id: SessionId,
    /// Which port it came by.
    port: usize,
    name: String,
    manager: RegionManager,
    /// This side's ends of the doorbells, until the guest is connected.
    ends: Option<Ends>,
    offers: Vec<DeviceOffer>,
    offer_table: TypedWriter<DeviceOffer, Mapped, Vec<u64>>,
    machines: Vec<StatusMachine>,
    /// Devices whose status may differ from what the guest was told.
    stale: Vec<u32>,
    connected: Option<Connected>,
    /// The guest's copy of what is there for all guests, if it has one.
    copy: Option<SharedCopy>,
}

/// What is there once the guest's memory has come.
struct Connected {
    regions: RegionSet,
    drivers: DriverTable,
    bells: Bells,
    heard: BTreeMap<ChannelId, Subject>,
    tokens: Vec<Token>,
}

impl Session {
    /// Says in the host's memory what there is.
    pub(super) fn new(
        id: SessionId,
        port: usize,
        name: String,
        plan: &SessionPlan,
        offers: Vec<DeviceOffer>,
        ground: Ground,
        shared: PlacedMemory,
    ) -> Result<Self, HostError> {
        let manager = plan.place()?;
        for (memory, placed) in [
            (MemoryId::HOST, &ground.host),
            (MemoryId::COMMON, &ground.common),
            (MemoryId::SHARED, &shared),
        ] {
            super::attach(&manager, memory, placed)?;
        }
        let regions = manager.regions().into_iter().map(|(handle, mut region)| {
            if region.placement.memory == MemoryId::GUEST {
                // It is not there yet, and has this epoch when it is.
                region.epoch = ground.guest_epoch;
            }
            (handle.slot(), region)
        });
        let regions: Vec<_> = regions.collect();
        super::write_directory(&ground.host.window, &regions, ground.writing)?;

        let slots = offers.len();
        let window = super::leased(&manager, role::DEVICE_TABLE)?;
        let mut offer_table =
            TypedWriter::create(window, slots as u32, Epoch::FIRST, vec![0; slots])?;
        for (slot, offer) in (0..).zip(&offers) {
            // Nobody can be waiting yet.
            let _ = offer_table.publish(slot, offer)?;
        }
        let machines = offers
            .iter()
            .map(|offer| StatusMachine::new(offer.features));
        Ok(Self {
            id,
            port,
            name,
            manager,
            ends: Some(ground.doorbells),
            machines: machines.collect(),
            offers,
            offer_table,
            stale: Vec::new(),
            connected: None,
            copy: None,
        })
    }

    /// Has the guest see a copy of what is there for all guests, which is [kept up to date](Self::update_copy).
    pub(super) fn with_copy(mut self, copy: SharedCopy) -> Self {
        self.copy = Some(copy);
        self
    }

    /// Passes on to the guest's copy what changed; returns whether there is more of that.
    pub(super) fn update_copy(&mut self) -> bool {
        self.copy.as_mut().is_some_and(SharedCopy::update)
    }

    pub(super) fn port(&self) -> usize {
        self.port
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The guest's memory has come: its tables and trees are looked at, and its doorbells listened to.
    ///
    /// # Errors
    ///
    /// [`HostError`] if they are not what the directory said they must be.
    pub(super) fn connect(
        &mut self,
        memory: &PlacedMemory,
        signals: &mut SignalSet,
    ) -> Result<(), HostError> {
        let Ends { wakers, waiters } = self.ends.take().ok_or(HostError::ConnectedTwice)?;
        super::attach(&self.manager, MemoryId::GUEST, memory)?;
        let regions = RegionSet::leased(&self.manager)?;
        let window = regions.own(role::DRIVER_TABLE)?.1.clone();
        let slots = self.offers.len();
        let drivers = TypedReader::attach(window, vec![0; slots], vec![0; slots])?;
        let ears = bells::ears(&regions, Side::Host, waiters)?;
        let bells = Bells::new(&regions, Side::Host, wakers)?;
        let mut tokens = Vec::with_capacity(CLASSES);
        for (class, (receiver, waiter)) in (0..).zip(ears) {
            let priority = Priority::new(class).unwrap_or(Priority::LOWEST);
            tokens.push(signals.add_doorbell(receiver, waiter, priority)?);
        }
        self.connected = Some(Connected {
            heard: bells::heard(&regions, Side::Host),
            regions,
            drivers,
            bells,
            tokens,
        });
        Ok(())
    }

    /// Stops listening.
    pub(super) fn disconnect(&mut self, signals: &mut SignalSet) {
        for token in self
            .connected
            .take()
            .into_iter()
            .flat_map(|connected| connected.tokens)
        {
            // A token of ours that is stale was removed before.
            let _ = signals.remove(token);
        }
    }

    /// The doorbells that the guest rings, by class.
    pub(super) fn tokens(&self) -> &[Token] {
        match &self.connected {
            Some(connected) => &connected.tokens,
            None => &[],
        }
    }

    /// What a channel speaks of that the guest raised.
    pub(super) fn subject(&self, class: usize, index: u32) -> Option<Subject> {
        let priority = Priority::new(class as u8)?;
        let channel = ChannelId::new(priority, index)?;
        self.connected.as_ref()?.heard.get(&channel).copied()
    }

    /// Signals the guest of one of the host's regions.
    pub(super) fn raise(&mut self, device: Option<u32>, role: u16) {
        let Some(connected) = &mut self.connected else {
            return;
        };
        if let Some(channel) = connected.regions.channel(device, role)
            && let Err(error) = connected.bells.raise(channel)
        {
            tracing::warn!(session = self.id.0, %error, "a doorbell cannot be rung");
        }
    }

    /// All regions, with their places in the directory.
    ///
    /// # Errors
    ///
    /// [`HostError::Region`] before the guest's memory has come.
    pub(super) fn placed(&self) -> Result<Placed, HostError> {
        let regions = self.manager.regions().into_iter();
        let placed = regions.map(|(handle, region)| {
            let window = self.manager.lease(handle)?.window().clone();
            Ok((handle.slot(), region, window))
        });
        placed.collect()
    }

    /// A device's regions.
    pub(super) fn regions(&self, device: u32) -> Regions {
        match &self.connected {
            Some(connected) => connected.regions.of_device(device),
            None => Regions::default(),
        }
    }

    /// Looks at the driver table and walks the devices' statuses on. `step` gets each that matters to a device, with the
    /// private features that its driver accepted; one that is out of order latches `DEVICE_NEEDS_RESET`.
    pub(super) fn look_at_drivers(
        &mut self,
        warnings: &mut Warnings,
        mut step: impl FnMut(u32, PrivateFeatures, Transition),
    ) {
        let Some(connected) = &mut self.connected else {
            return;
        };
        let mut changed = Vec::new();
        let _ = connected.drivers.changed(|slot, _| changed.push(slot));
        for device in changed {
            let Some(machine) = self.machines.get_mut(device as usize) else {
                continue;
            };
            self.stale.push(device);
            let outcome = match connected.drivers.read(device) {
                Ok((state, _)) => {
                    let offered = self.offers[device as usize].private;
                    walk_on(machine, offered, state).map_err(Misstep::Status)
                }
                Err(error) => Err(Misstep::Unreadable(error)),
            };
            match outcome {
                Ok((private, transition)) => step(device, private, transition),
                Err(misstep) => {
                    // Once until it is reset: a guest must not fill the log.
                    if !machine.status().contains(DeviceStatus::DEVICE_NEEDS_RESET) {
                        let what = format_args!("the driver broke the rules: {misstep}");
                        warnings.about(self.id, device, what);
                    }
                    machine.needs_reset();
                }
            }
        }
    }

    /// Says that a device needs a reset.
    pub(super) fn latch(&mut self, device: u32) {
        if let Some(machine) = self.machines.get_mut(device as usize) {
            machine.needs_reset();
            self.stale.push(device);
        }
    }

    /// Publishes the statuses that differ from what the guest was told.
    pub(super) fn publish_statuses(&mut self) {
        let mut changed = false;
        for device in self.stale.drain(..) {
            let status = self.machines[device as usize].status();
            let offer = &mut self.offers[device as usize];
            if offer.status == status {
                continue;
            }
            offer.status = status;
            match self.offer_table.publish(device, offer) {
                Ok((_, notify)) => changed |= notify.is_needed(),
                Err(error) => {
                    tracing::error!(session = self.id.0, %error, "the device table cannot be written");
                }
            }
        }
        if changed {
            self.raise(None, role::DEVICE_TABLE);
        }
    }

    /// How many signals were sent to the guest, and how many suppressed.
    pub(super) fn counts(&self) -> SenderCounts {
        match &self.connected {
            Some(connected) => connected.bells.counts(),
            None => SenderCounts::default(),
        }
    }
}

/// Takes a driver's answer for a write to the status register; the private features come with it.
fn walk_on(
    machine: &mut StatusMachine,
    offered: PrivateFeatures,
    state: DriverState,
) -> Result<(PrivateFeatures, Transition), StatusError> {
    // They count from the same moment on as virtio's.
    let negotiated = state.status & DeviceStatus::FEATURES_OK.bits() != 0;
    let private = if negotiated {
        offered.accept(state.private)?
    } else {
        PrivateFeatures::empty()
    };
    let transition = machine.write(state.status, state.features)?;
    Ok((private, transition))
}

/// What a driver did wrong.
#[derive(Debug, thiserror::Error)]
enum Misstep {
    #[error(transparent)]
    Status(StatusError),
    #[error(transparent)]
    Unreadable(shmbus_table::TypedReadError),
}

#[cfg(test)]
mod tests {
    use shmbus_virtio::{FeatureError, Features};

    use super::*;

    #[test]
    fn private_features_are_negotiated_with_virtio_s() {
        let offered = PrivateFeatures::RING_TAGGED;
        let mut machine = StatusMachine::new(Features::VERSION_1);
        let mut state = DriverState {
            status: 1 | 2 | 8 | 4,
            features: Features::VERSION_1,
            private: PrivateFeatures::AVAIL_EVENT,
        };
        let error = FeatureError::PrivateNotOffered { bits: 1 << 1 };
        let refused = walk_on(&mut machine, offered, state);
        assert_eq!(refused, Err(StatusError::Features(error)));
        assert!(machine.status().is_empty(), "nothing happened");

        state.private = offered;
        let activated = Transition::Activate(Features::VERSION_1);
        let walked = walk_on(&mut machine, offered, state);
        assert_eq!(walked, Ok((offered, activated)));
        // Whatever else a reset says.
        state.status = 0;
        state.private = PrivateFeatures::all();
        let (_, transition) = walk_on(&mut machine, offered, state).unwrap();
        assert_eq!(transition, Transition::Reset);
    }
}
