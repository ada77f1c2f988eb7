//! What can be wrong: with what the other side wrote, and with what the caller asked for.

use shmbus_shm::{AddressError, FenceScope, WindowError};
use shmbus_virtio::FeatureError;

use crate::device::ChainHead;

/// What the device did wrong. The driver side latches it: the queue stops until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverFault {
    /// The used index says that more chains were used than are available, or it went backwards.
    #[error(
        "the used index is {found}, but only {published} chains are available from {expected} on"
    )]
    UsedIndex {
        /// What the device wrote.
        found: u16,
        /// The used entry that this side takes next.
        expected: u16,
        /// How many chains the device had.
        published: u16,
    },
    /// A used element's id is not that of a chain that the device has: it never was, is not yet, or was completed
    /// before.
    #[error("used entry {position} returns chain {id}, which is not lent")]
    NotLent {
        /// Where the used element lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The id that the device wrote.
        id: u32,
    },
    /// With `VIRTIO_F_IN_ORDER`: a used element ends a batch of more chains than the used index, or the device, has.
    #[error(
        "used entry {position} ends a batch with chain {id}, {found} chains on; {expected} at most were used"
    )]
    BatchEnd {
        /// Where the used element lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The id that the device wrote.
        id: u32,
        /// How many chains such a batch would have.
        found: u64,
        /// How many chains it can have at most.
        expected: u16,
    },
    /// A used element's length is more than the chain's writable bytes.
    #[error(
        "used entry {position} says that {written} bytes of chain {id} were written; {writable} are writable"
    )]
    TooLong {
        /// Where the used element lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The chain's id.
        id: u16,
        /// The length that the device wrote, in bytes.
        written: u32,
        /// How many bytes it was lent for writing.
        writable: u32,
    },
}

/// What the driver did wrong. The device side latches it: the queue stops until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFault {
    /// The available index is further ahead than the queue has entries, or it went backwards.
    #[error(
        "the available index is {found}: more than {size} entries from {expected} on, {outstanding} before it being out"
    )]
    AvailableIndex {
        /// What the driver wrote.
        found: u16,
        /// The available entry that this side takes next.
        expected: u16,
        /// How many chains were taken and not yet published as used.
        outstanding: u16,
        /// The queue's size, in entries.
        size: u16,
    },
    /// An available entry names a descriptor that is not there; or a packed chain's buffer id, or a tagged one's tag,
    /// is not below the queue's size.
    #[error("available entry {position} names chain {head} of {size}")]
    Head {
        /// Where the chain lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The descriptor, buffer id or tag that it names.
        head: u16,
        /// The queue's size, in entries.
        size: u16,
    },
    /// An available entry names a chain that this side still has.
    #[error("available entry {position} names chain {head}, which is in flight")]
    HeadInFlight {
        /// Where the chain lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The chain's head.
        head: u16,
    },
    /// A packed or tagged ring's descriptors are made available although this side still has them, or has not returned
    /// them; or those of a tagged ring leave no place for its wall.
    #[error(
        "{entries} entries from {position} on are made available, and {outstanding} of {size} are out"
    )]
    Overrun {
        /// Where the chain lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// How many entries it would take up.
        entries: u16,
        /// How many entries were taken and not yet published as used.
        outstanding: u16,
        /// The queue's size, in entries.
        size: u16,
    },
    /// A chain is malformed, or its memory cannot be accessed.
    #[error("available entry {position}, chain {head}: {reason}")]
    Chain {
        /// Where the chain lies, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The chain's head.
        head: u16,
        /// What is wrong with it.
        #[source]
        reason: ChainError,
    },
}

/// What is wrong with a chain of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// `next` names a descriptor that is not in the table.
    #[error("descriptor {next} follows, but the table has {descriptors}")]
    Next {
        /// What `next` says.
        next: u16,
        /// How many descriptors the table has.
        descriptors: u16,
    },
    /// The chain has more descriptors than the queue's size, or than the device takes; a loop has no end either.
    #[error("more than {limit} descriptors, or a loop")]
    TooManyDescriptors {
        /// How many are allowed.
        limit: usize,
    },
    /// The chain describes more than 2^32 bytes.
    #[error("more than 2^32 bytes")]
    TooManyBytes,
    /// A device-readable descriptor follows a device-writable one.
    #[error("device-readable descriptor {descriptor} after a device-writable one")]
    ReadableAfterWritable {
        /// Its index in its table.
        descriptor: u16,
    },
    /// An indirect table without `VIRTIO_F_INDIRECT_DESC`.
    #[error("an indirect table, which was not negotiated")]
    IndirectNotNegotiated,
    /// A descriptor has both `INDIRECT` and `NEXT`.
    #[error("an indirect table's descriptor {descriptor} has a next one")]
    IndirectWithNext {
        /// Its index.
        descriptor: u16,
    },
    /// A packed or tagged chain goes on with an indirect table.
    #[error("an indirect table in a chain, at descriptor {descriptor}")]
    IndirectInChain {
        /// Its index.
        descriptor: u16,
    },
    /// A packed or tagged chain goes on with a descriptor that is not available.
    #[error("descriptor {descriptor} follows, but is not available")]
    NotAvailable {
        /// Its index.
        descriptor: u16,
    },
    /// An indirect table within an indirect table.
    #[error("an indirect table in an indirect table, at descriptor {descriptor}")]
    NestedIndirect {
        /// Its index in the outer table.
        descriptor: u16,
    },
    /// An indirect table's length is zero or no multiple of 16.
    #[error("an indirect table of {len} bytes, which is not a positive multiple of 16")]
    IndirectLength {
        /// Its length, in bytes.
        len: u32,
    },
    /// A buffer, or an indirect table, cannot be accessed.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// Why a queue cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A queue's size is from 1 to 32768; that of a split queue is a power of two, that of a tagged one too and at
    /// least 2.
    #[error(
        "queue size {size}: not from 1 (tagged: 2) to 32768, or no power of two where it must be"
    )]
    Size {
        /// The size that was asked for, in entries.
        size: u16,
    },
    /// The alignment of a legacy layout is a power of two, at least 4.
    #[error("queue alignment {align} is not a power of two from 4 on")]
    Align {
        /// The alignment that was asked for, in bytes.
        align: u32,
    },
    /// An area does not fit its window.
    #[error("the {area}: {source}")]
    Area {
        /// Which one, in the specification's words.
        area: &'static str,
        /// What is wrong.
        source: WindowError,
    },
    /// A position that the ring does not have.
    #[error("position {position:#x} in a ring of {size} entries")]
    Position {
        /// The position that was asked for, as [`Positions`](crate::Positions) counts.
        position: u16,
        /// The queue's size, in entries.
        size: u16,
    },
    /// Features that stand in each other's way, or that nobody may negotiate.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// Features that belong to another type of ring, or to none.
    #[error("feature bits {bits:#x} are not supported by this ring")]
    Unsupported {
        /// The bits.
        bits: u128,
    },
    /// Private features that belong to another type of ring.
    #[error("private feature bits {bits:#x} are not supported by this ring")]
    UnsupportedPrivate {
        /// The bits.
        bits: u64,
    },
    /// Features that this type of ring is made for were not negotiated.
    #[error("this ring needs feature bits {bits:#x}, which were not negotiated")]
    Missing {
        /// The bits.
        bits: u128,
    },
    /// Private features that this type of ring is made for were not negotiated.
    #[error("this ring needs private feature bits {bits:#x}, which were not negotiated")]
    MissingPrivate {
        /// The bits.
        bits: u64,
    },
    /// With `VIRTIO_F_ORDER_PLATFORM` the ring must lie in memory whose fences reach devices.
    #[error("ORDER_PLATFORM needs memory whose fences are of scope Dma; this is {found:?}")]
    FenceScope {
        /// The scope of the memory's fences.
        found: FenceScope,
    },
    /// Areas that a queue is to go on in are not of its size.
    #[error("areas for {found} entries; the queue has {expected}")]
    OtherSize {
        /// How many entries they have.
        found: u16,
        /// The queue's size, in entries.
        expected: u16,
    },
    /// Areas are those of a ring of another format.
    #[error("the areas are not those of a ring of this format")]
    OtherFormat,
    /// The storage that was passed in has too few slots.
    #[error("storage for {found} slots; the queue needs {needed}")]
    Storage {
        /// How many there are.
        found: usize,
        /// How many the queue needs: its size.
        needed: usize,
    },
}

/// Refuses storage with fewer slots than a queue of `size` entries needs.
pub(crate) fn check_storage(found: usize, size: u16) -> Result<(), SetupError> {
    let needed = usize::from(size);
    if found < needed {
        return Err(SetupError::Storage { found, needed });
    }
    Ok(())
}

/// Why a chain was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// There are not enough free descriptors: add it again when chains have come back. This is no fault.
    #[error("the chain needs {needed} descriptors, {free} are free")]
    Full {
        /// How many descriptors it needs.
        needed: usize,
        /// How many are free.
        free: u16,
    },
    /// A chain has at least one buffer.
    #[error("a chain without buffers")]
    Empty,
    /// A chain never has more descriptors than the queue has room for, or its indirect table.
    #[error("a chain of {needed} descriptors; {limit} is the most")]
    TooManyDescriptors {
        /// How many it needs.
        needed: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A chain never describes more than 2^32 bytes.
    #[error("a chain of more than 2^32 bytes")]
    TooManyBytes,
    /// `VIRTIO_F_INDIRECT_DESC` was not negotiated.
    #[error("an indirect table, which was not negotiated")]
    IndirectNotNegotiated,
    /// The queue has stopped.
    #[error("the queue has stopped: {0}")]
    Faulted(#[from] DriverFault),
}

/// A chain that was not added, with its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected<T> {
    /// Why.
    pub reason: AddError,
    /// What would have been handed back with the chain.
    pub cookie: T,
}

/// Why a chain was not completed: a mistake in the device, not of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteError {
    /// The chain was not taken from this queue, or before it was reset.
    #[error("chain {head} was not taken from this queue since its last reset")]
    NotTaken {
        /// The chain's head.
        head: u16,
    },
    /// More bytes than are writable.
    #[error("{written} bytes written to chain {head}, of which {writable} are writable")]
    TooLong {
        /// The chain's head.
        head: u16,
        /// How many bytes the device says it wrote.
        written: u32,
        /// How many are writable.
        writable: u64,
    },
}

/// A chain that was not completed: it is still the device's to complete.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Uncompleted {
    /// Why.
    pub reason: CompleteError,
    /// The chain.
    pub chain: ChainHead,
}
