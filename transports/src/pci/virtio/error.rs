//! What can go wrong with a virtio device.

use core::fmt;

use shmbus_virtio::{DeviceStatus, FeatureError};

use super::capability::StructureKind;
use crate::pci::address::Identity;
use crate::pci::bars::Place;
use crate::pci::config_error::ConfigError;
use crate::pci::error::{AccessError, FunctionError};

/// A function does not describe a virtio device that can be driven.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Its configuration space is wrong, or something lies outside its BAR.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It is something else.
    #[error("a virtio device was expected, {found} found")]
    NotVirtio {
        /// What it is.
        found: Identity,
    },
    /// It has the legacy interface alone, from before virtio 1.0.
    #[error(
        "the device has no virtio capabilities: it is a legacy device, which is not driven here"
    )]
    Legacy,
    /// It has no structure of a kind that it must have.
    #[error("the device has no {kind}")]
    Missing {
        /// Which.
        kind: StructureKind,
    },
    /// A structure is too short.
    #[error("the {kind}: {expected} bytes were expected, {found} found")]
    TooShort {
        /// Which.
        kind: StructureKind,
        /// How many bytes it needs at least.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// A structure is not aligned as virtio demands.
    #[error("the {kind}: an offset that {alignment} divides was expected, {found:#x} found")]
    Misaligned {
        /// Which.
        kind: StructureKind,
        /// What has to divide the offset.
        alignment: u64,
        /// Its offset, in bytes.
        found: u64,
    },
    /// Queues' notify addresses cannot be so far apart.
    #[error("a notify multiplier of 0 or an even power of 2 was expected, {found:#x} found")]
    Multiplier {
        /// The multiplier, in bytes.
        found: u32,
    },
    /// Two things that have nothing to do with one another share bytes.
    #[error("the {first} at {first_place} and the {second} at {second_place} share bytes")]
    Overlap {
        /// The one.
        first: &'static str,
        /// Where it lies.
        first_place: Place,
        /// The other.
        second: &'static str,
        /// Where it lies.
        second_place: Place,
    },
    /// Two regions of shared memory have one number.
    #[error("there are two shared memory regions with number {id}")]
    SharedMemoryTwice {
        /// The number.
        id: u8,
    },
}

/// What a vector can be wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The configuration has changed.
    Configuration,
    /// Buffers of a queue have been used.
    Queue(u16),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("configuration changes"),
            Self::Queue(queue) => write!(f, "queue {queue}"),
        }
    }
}

/// A virtio device cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It does not describe itself well.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What reaches the function failed.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// A register cannot be accessed.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It failed before, and has not been reset since.
    #[error("the device has failed ({fault}); a reset recovers it")]
    Latched {
        /// What went wrong then.
        fault: String,
    },
    /// The caller wants something before its time, or after it.
    #[error("cannot {doing} while the device is {found}")]
    Stage {
        /// What the caller wants.
        doing: &'static str,
        /// How far the device is.
        found: &'static str,
    },
    /// It reads as all ones: the function is gone.
    #[error("the device is gone: its status reads as 0xff")]
    Gone,
    /// It has met an error of its own.
    #[error("the device asks for a reset: its status is {status:?}")]
    NeedsReset {
        /// The status.
        status: DeviceStatus,
    },
    /// Somebody else has reset it, or it forgot how far it was.
    #[error("a device status of {expected:?} was expected, {found:?} found")]
    StatusLost {
        /// What was written.
        expected: DeviceStatus,
        /// What is read.
        found: DeviceStatus,
    },
    /// It is still not reset.
    #[error("after a reset a device status of 0 was expected, {found:#04x} found {polls} times")]
    ResetUnfinished {
        /// The status.
        found: u8,
        /// How many times it was looked at.
        polls: u32,
    },
    /// The features that the caller accepts cannot be used.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A feature is not accepted without which devices are not driven here.
    #[error("{name} is needed, and is {}", if *.offered { "not accepted" } else { "not offered by the device" })]
    FeatureNeeded {
        /// Its name.
        name: &'static str,
        /// Whether the device offers it.
        offered: bool,
    },
    /// It does not agree to the features that it offered.
    #[error("the device refuses features {accepted:#x} of the {offered:#x} that it offers")]
    FeaturesRefused {
        /// The bits that were accepted.
        accepted: u128,
        /// The bits that it offered.
        offered: u128,
    },
    /// Its configuration changes each time that it is looked at.
    #[error("the device's configuration changed during each of {tries} reads")]
    Unsettled {
        /// How many.
        tries: u32,
    },
    /// The caller wants a queue that is not there.
    #[error("there is no queue {queue}: the device has {queues}")]
    NoQueue {
        /// The queue's number.
        queue: u16,
        /// How many there are.
        queues: u16,
    },
    /// The device has no queue with a number below the number of its queues.
    #[error("queue {queue} is unavailable: its size reads as 0")]
    QueueUnavailable {
        /// The queue's number.
        queue: u16,
    },
    /// The caller wants to enable a queue that is enabled.
    #[error("queue {queue} is enabled already")]
    QueueEnabled {
        /// The queue's number.
        queue: u16,
    },
    /// The caller wants to reset a queue that is not enabled.
    #[error("queue {queue} is not enabled")]
    QueueDisabled {
        /// The queue's number.
        queue: u16,
    },
    /// No queue can have the size that the device says.
    #[error(
        "queue {queue}: a size of at most 32768{} was expected, {found} found",
        if *.packed { "" } else { ", a power of 2," }
    )]
    QueueMaximum {
        /// The queue's number.
        queue: u16,
        /// Whether queues are packed.
        packed: bool,
        /// What the device says.
        found: u16,
    },
    /// The queue cannot have the size that the caller wants.
    #[error(
        "queue {queue}: a size of 1 to {maximum}{} was expected, {wanted} wanted",
        if *.packed { "" } else { ", a power of 2," }
    )]
    QueueSize {
        /// The queue's number.
        queue: u16,
        /// What the device allows.
        maximum: u16,
        /// Whether queues are packed.
        packed: bool,
        /// What the caller wants.
        wanted: u16,
    },
    /// An area's address is not aligned as virtio demands.
    #[error("queue {queue}: the {area} area at {address:#x} is not aligned to {alignment} bytes")]
    QueueAddress {
        /// The queue's number.
        queue: u16,
        /// Which area.
        area: &'static str,
        /// Its address.
        address: u64,
        /// What has to divide it.
        alignment: u64,
    },
    /// A register of a queue does not keep what was written, or is not what it must be.
    #[error("queue {queue}: its {register} should read as {expected}, and reads as {found}")]
    QueueRegister {
        /// The queue's number.
        queue: u16,
        /// Which register.
        register: &'static str,
        /// What it should be.
        expected: u16,
        /// What it is.
        found: u16,
    },
    /// A queue would be notified outside the notification structure, or at a crooked address.
    #[error(
        "queue {queue}: {width} aligned bytes inside a notification structure of {len:#x} were expected, its notify \
         address is at {offset:#x}"
    )]
    NotifyAddress {
        /// The queue's number.
        queue: u16,
        /// Where it would be, in bytes from the start of the structure.
        offset: u64,
        /// How many bytes are written there.
        width: u64,
        /// How long the structure is, in bytes.
        len: u64,
    },
    /// The queue is still not reset.
    #[error("queue {queue}: its reset was not finished when it was looked at {polls} times")]
    QueueResetUnfinished {
        /// The queue's number.
        queue: u16,
        /// How many times it was looked at.
        polls: u32,
    },
    /// The caller wants a vector that is not enabled.
    #[error("vector {vector} is wanted for {event}, and {enabled} are enabled")]
    NoVector {
        /// What for.
        event: Event,
        /// The vector's number.
        vector: u16,
        /// How many are enabled.
        enabled: u16,
    },
    /// The device has no room for a vector; fewer may do.
    #[error("the device refuses vector {vector} for {event}")]
    VectorRefused {
        /// What for.
        event: Event,
        /// The vector's number.
        vector: u16,
    },
    /// The device keeps another vector than was written, and not the one that stands for a refusal.
    #[error("vector {expected:#x} was written for {event}, and {found:#x} is read")]
    Vector {
        /// What for.
        event: Event,
        /// What was written; 0xffff for none.
        expected: u16,
        /// What is read.
        found: u16,
    },
    /// There is no such region.
    #[error("the device has no shared memory region with number {id}")]
    NoSharedMemory {
        /// Its number.
        id: u8,
    },
}

impl DeviceError {
    /// Whether only a reset helps. The others are the caller's mistakes, and what a device may well say.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Function(FunctionError::Access(AccessError::Io { .. }))
                | Self::Access(AccessError::Io { .. })
                | Self::Gone
                | Self::NeedsReset { .. }
                | Self::StatusLost { .. }
                | Self::ResetUnfinished { .. }
                | Self::FeaturesRefused { .. }
                | Self::Unsettled { .. }
                | Self::QueueMaximum { .. }
                | Self::QueueRegister { .. }
                | Self::NotifyAddress { .. }
                | Self::QueueResetUnfinished { .. }
                | Self::Vector { .. }
        )
    }
}
