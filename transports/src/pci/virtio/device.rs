//! A device's life (virtio 1.4, section 3.1).

use core::time::Duration;
use std::collections::BTreeSet;
use std::thread::sleep;

use shmbus_virtio::{DeviceId, DeviceStatus, Features};

use super::capability::{StructureKind, VirtioCapability};
use super::common_config::{self, CommonConfig};
use super::error::{DeviceError, LayoutError};
use super::identity::device_id;
use super::layout::{Layout, SharedMemoryRegion};
use super::structure::Structure;
use crate::pci::bars::Place;
use crate::pci::capability::Capability;
use crate::pci::error::{AccessError, FunctionError};
use crate::pci::function::{BarIndex, Function, Registers};
use crate::pci::header::Header;
use crate::pci::msix::Msix;

/// How long to wait for a device that has been told to reset itself, or a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How many times to look whether it has; at least once.
    pub polls: u32,
    /// How long to sleep between two looks.
    pub pause: Duration,
}

impl Default for Patience {
    /// Ten seconds: hardware may take long.
    fn default() -> Self {
        Self {
            polls: 10_000,
            pause: Duration::from_millis(1),
        }
    }
}

/// What a register of a function reads as that is no longer there.
const ALL_ONES: u8 = 0xff;

/// How far a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was written to it.
    Untouched,
    /// It was told to reset itself, and did not.
    Unknown,
    /// It is reset, and knows that it has a driver.
    Reset,
    /// Features are negotiated.
    Configuring,
    /// It may use its queues.
    Live,
    /// It is reset, and on its own.
    Closed,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Untouched => "not reset yet",
            Self::Unknown => "not known to be reset",
            Self::Reset => "without negotiated features",
            Self::Configuring => "not started",
            Self::Live => "started",
            Self::Closed => "closed",
        }
    }
}

/// The driver of one virtio device behind PCI, whatever its type.
///
/// It is opened, [reset](Self::reset), its features [negotiated](Self::negotiate), its queues
/// [enabled](Self::enable_queue), and then [started](Self::start). Dropping it resets the device, so that it accesses
/// no memory any more: drop it before the memory that its queues lie in.
///
/// After a fault of the device everything but a reset is refused with [`DeviceError::Latched`].
#[derive(Debug)]
pub struct VirtioPci<F: Function> {
    pub(super) function: F,
    header: Header,
    id: DeviceId,
    pub(super) layout: Layout,
    /// How many vectors it has by its own account.
    msix_vectors: u16,
    pub(super) common: CommonConfig<F::Registers>,
    pub(super) isr: Structure<F::Registers>,
    pub(super) config: Option<Structure<F::Registers>>,
    pub(super) patience: Patience,
    stage: Stage,
    /// What was last written.
    status: DeviceStatus,
    /// What the device offered after the reset; it is not asked again.
    offered: Features,
    features: Features,
    /// How many queues there are, as far as is known.
    pub(super) queues: u16,
    pub(super) enabled: BTreeSet<u16>,
    /// How many vectors are enabled.
    pub(super) vectors: u16,
    fault: Option<String>,
}

impl<F: Function> VirtioPci<F> {
    /// Finds a virtio device's structures, and checks where they are. Nothing is written to the device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Layout`], [`DeviceError::Function`].
    pub fn open(function: F) -> Result<Self, DeviceError> {
        Self::open_with(function, Patience::default())
    }

    /// As [`open`](Self::open), with other limits on waiting.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(function: F, patience: Patience) -> Result<Self, DeviceError> {
        let config = function.config()?;
        let header = Header::read(&config).map_err(LayoutError::from)?;
        let id = device_id(header.identity)?;
        let capabilities = Capability::read_all(&config).map_err(LayoutError::from)?;
        let msix = Msix::read(&config, &capabilities).map_err(LayoutError::from)?;
        let capabilities =
            VirtioCapability::read_all(&config, &capabilities).map_err(LayoutError::from)?;
        let lengths = bar_lengths(&function)?;
        let bar_len = |bar: BarIndex| lengths.get(usize::from(bar.get())).copied().flatten();
        let layout = Layout::new(&capabilities, msix.as_ref(), bar_len)?;
        let structure = |place: Place| {
            let registers = function.bar(place.bar)?;
            Ok::<_, FunctionError>(Structure::new(registers, place))
        };
        Ok(Self {
            common: CommonConfig(structure(layout.common)?),
            isr: structure(layout.isr)?,
            config: layout.device.map(structure).transpose()?,
            function,
            header,
            id,
            layout,
            msix_vectors: msix.map_or(0, |msix| msix.vectors),
            patience,
            stage: Stage::Untouched,
            status: DeviceStatus::empty(),
            offered: Features::empty(),
            features: Features::empty(),
            queues: 0,
            enabled: BTreeSet::new(),
            vectors: 0,
            fault: None,
        })
    }

    /// What the function is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The device's type.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Where its structures are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its regions of shared memory.
    pub fn shared_memory(&self) -> &[SharedMemoryRegion] {
        &self.layout.shared_memory
    }

    /// The function that it is.
    pub fn function(&self) -> &F {
        &self.function
    }

    /// How many vectors it has.
    pub fn available_vectors(&self) -> u16 {
        self.msix_vectors.min(self.function.vectors())
    }

    /// What it offered after the last reset; nothing before the first.
    pub fn offered(&self) -> Features {
        self.offered
    }

    /// What was negotiated; nothing before that.
    pub fn features(&self) -> Features {
        self.features
    }

    /// How many queues it said that it has, without administration queues: after the last reset, and again once features were
    /// negotiated, which it may depend on.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Resets the device, tells it that there is a driver, and asks what it offers. All that was negotiated, its queues
    /// and the mapping of events to vectors are gone then, and so is a latched fault.
    ///
    /// # Errors
    ///
    /// [`DeviceError::ResetUnfinished`], [`DeviceError::Gone`], [`DeviceError::Access`], [`DeviceError::Function`].
    pub fn reset(&mut self) -> Result<(), DeviceError> {
        if self.stage == Stage::Closed {
            return Err(self.refusal("reset it"));
        }
        self.fault = None;
        self.latching(|device| {
            let reset = device.reset_and_wait();
            // Nothing is to be accessed before the device is started.
            let quiet = device.function.set_bus_master(false);
            reset?;
            quiet?;
            device.set_status(DeviceStatus::ACKNOWLEDGE)?;
            device.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER)?;
            device.offered = device.common.offered()?;
            device.queues = device.common.queues()?;
            device.stage = Stage::Reset;
            Ok(())
        })
    }

    /// Accepts features, and has the device agree to them. `VERSION_1` must be among them; and `ACCESS_PLATFORM`,
    /// because [`DmaMemory`](crate::pci::DmaMemory)'s addresses are I/O virtual ones: a device that does not offer it
    /// would take them for physical addresses, and write to somebody else's memory.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Features`], [`DeviceError::FeatureNeeded`], [`DeviceError::Layout`] if a structure does not have
    /// what a feature needs: the device is as before. [`DeviceError::FeaturesRefused`] and others: it must be reset.
    pub fn negotiate(&mut self, accepted: Features) -> Result<(), DeviceError> {
        self.expect(&[Stage::Reset], "negotiate features")?;
        let accepted = self.offered.accept(accepted)?;
        for (needed, name) in [
            (Features::VERSION_1, "VERSION_1"),
            (Features::ACCESS_PLATFORM, "ACCESS_PLATFORM"),
        ] {
            if !accepted.contains(needed) {
                let offered = self.offered.contains(needed);
                return Err(DeviceError::FeatureNeeded { name, offered });
            }
        }
        self.check_structures(accepted)?;
        self.latching(|device| {
            device.common.accept(accepted)?;
            device.set_status(device.status | DeviceStatus::FEATURES_OK)?;
            let status = device.read_status()?;
            if !status.contains(DeviceStatus::FEATURES_OK) {
                return Err(DeviceError::FeaturesRefused {
                    accepted: accepted.bits(),
                    offered: device.offered.bits(),
                });
            }
            // Some devices look at a queue's memory as soon as it is enabled.
            device.function.set_bus_master(true)?;
            device.features = accepted;
            // QEMU's network card has the queues of all pairs only with MQ.
            device.queues = device.common.queues()?;
            device.stage = Stage::Configuring;
            Ok(())
        })
    }

    /// Checks that the structures have what only some features need.
    fn check_structures(&self, accepted: Features) -> Result<(), LayoutError> {
        for (feature, expected) in [
            (
                Features::NOTIF_CONFIG_DATA,
                common_config::BYTES_WITH_NOTIFY_DATA,
            ),
            (Features::RING_RESET, common_config::BYTES_WITH_QUEUE_RESET),
        ] {
            if accepted.contains(feature) && self.common.len() < expected {
                return Err(LayoutError::TooShort {
                    kind: StructureKind::Common,
                    expected,
                    found: self.common.len(),
                });
            }
        }
        Ok(())
    }

    /// Lets the device use its queues.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NeedsReset`], [`DeviceError::Gone`], [`DeviceError::StatusLost`], [`DeviceError::Access`].
    pub fn start(&mut self) -> Result<(), DeviceError> {
        self.expect(&[Stage::Configuring], "start it")?;
        self.latching(|device| {
            device.set_status(device.status | DeviceStatus::DRIVER_OK)?;
            device.stage = Stage::Live;
            device.check_status()
        })
    }

    /// Looks whether the device is still what it was made: after a change of its configuration, or when it does not
    /// answer.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NeedsReset`], [`DeviceError::Gone`], [`DeviceError::StatusLost`], [`DeviceError::Access`].
    pub fn check(&mut self) -> Result<(), DeviceError> {
        self.expect(&[Stage::Reset, Stage::Configuring, Stage::Live], "check it")?;
        self.latching(|device| device.check_status())
    }

    /// Resets the device, and gives it up: it accesses no memory and signals nothing any more. Dropping it does the
    /// same, and logs what goes wrong.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], if it could be brought to rest neither by its own reset nor by the function's.
    pub fn finish(mut self) -> Result<(), DeviceError> {
        self.bring_to_rest()
    }

    fn bring_to_rest(&mut self) -> Result<(), DeviceError> {
        if matches!(self.stage, Stage::Untouched | Stage::Closed) {
            return Ok(());
        }
        let reset = match self.reset_and_wait() {
            // A device that does not listen is reset from outside.
            Err(error) => self.function.reset().map_err(|_| error),
            Ok(()) => Ok(()),
        };
        self.stage = Stage::Closed;
        let quiet = self.function.set_bus_master(false);
        let silent = self.disable_vectors();
        reset?;
        quiet?;
        silent
    }

    /// Returns once the device is reset.
    fn reset_and_wait(&mut self) -> Result<(), DeviceError> {
        self.stage = Stage::Unknown;
        self.offered = Features::empty();
        self.features = Features::empty();
        self.queues = 0;
        self.enabled.clear();
        self.set_status(DeviceStatus::empty())?;
        let Patience { polls, pause } = self.patience;
        let mut found = self.common.status()?;
        for _ in 1..polls {
            if found == 0 {
                break;
            }
            sleep(pause);
            found = self.common.status()?;
        }
        match found {
            0 => Ok(()),
            ALL_ONES => Err(DeviceError::Gone),
            _ => Err(DeviceError::ResetUnfinished { found, polls }),
        }
    }

    fn set_status(&mut self, status: DeviceStatus) -> Result<(), AccessError> {
        self.status = status;
        self.common.set_status(status.bits())
    }

    fn read_status(&self) -> Result<DeviceStatus, DeviceError> {
        let found = self.common.status()?;
        if found == ALL_ONES {
            return Err(DeviceError::Gone);
        }
        let status = DeviceStatus::from_bits_retain(found);
        if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            return Err(DeviceError::NeedsReset { status });
        }
        Ok(status)
    }

    fn check_status(&self) -> Result<(), DeviceError> {
        let (expected, found) = (self.status, self.read_status()?);
        if found.contains(expected) {
            Ok(())
        } else {
            Err(DeviceError::StatusLost { expected, found })
        }
    }

    /// Refuses what the caller wants unless the device is without a fault and as far as that needs.
    pub(super) fn expect(&self, stages: &[Stage], doing: &'static str) -> Result<(), DeviceError> {
        if let Some(fault) = &self.fault {
            let fault = fault.clone();
            return Err(DeviceError::Latched { fault });
        }
        if stages.contains(&self.stage) {
            Ok(())
        } else {
            Err(self.refusal(doing))
        }
    }

    fn refusal(&self, doing: &'static str) -> DeviceError {
        let found = self.stage.name();
        DeviceError::Stage { doing, found }
    }

    /// Latches what goes wrong by the device's fault, and tells the device that it has been given up.
    pub(super) fn latching<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let result = work(self);
        if let Err(error) = &result
            && error.is_fault()
        {
            self.fault = Some(error.to_string());
            // A device that is gone, or does not reset itself, is told in vain.
            let _told = self.set_status(self.status | DeviceStatus::FAILED);
        }
        result
    }
}

impl<F: Function> Drop for VirtioPci<F> {
    fn drop(&mut self) {
        if let Err(error) = self.bring_to_rest() {
            tracing::error!(%error, "a virtio device could not be brought to rest");
        }
    }
}

/// How long the BARs are that there are, in bytes.
fn bar_lengths<F: Function>(
    function: &F,
) -> Result<[Option<u64>; BarIndex::COUNT as usize], FunctionError> {
    let mut lengths = [None; BarIndex::COUNT as usize];
    for (index, len) in (0..).zip(&mut lengths) {
        let Some(bar) = BarIndex::new(index) else {
            break;
        };
        match function.bar(bar) {
            Ok(registers) => *len = Some(registers.len()).filter(|len| *len > 0),
            Err(FunctionError::NoBar(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lengths)
}
