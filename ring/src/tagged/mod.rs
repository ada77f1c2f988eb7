//! The tagged ring, shmbus's own: one ring of entries that both sides write, without indices and without wrap counters,
//! and two words by which each side says when it wants to be told.
//!
//! It is the ring that Avi Kivity and Rusty Russell thought through on the mailing list in 2010: the driver places
//! descriptors, each with a tag; the device copies them out, and copies completions back in, whose tags tell the driver
//! which chains they are. A wall, an entry that says that nothing lies behind it, takes the place of an index. The
//! layout is in docs/abi.md.
//!
//! # How it works
//!
//! An entry is an address and a *label*: length, tag, flags and state in one word, loaded and stored as one. The state
//! says whose the entry is:
//!
//! - `WALL`: the driver's. Whoever reads along the ring goes no further.
//! - `AVAILABLE`: a descriptor that the driver lends.
//! - `USED`: a completion, the driver's again.
//! - `CLAIMED`: a place where the device is about to show a completion; only devices that keep a
//!   [record](crate::record) write it, and only [`recover`] looks at it.
//!
//! The entry behind the last published one says `WALL`. To publish chains the driver writes all of their entries but
//! the first, then the new wall behind the last one, then the first entry's label, with Release: that takes down the
//! old wall. The device reads on from its private position, with Acquire, until an entry is not available. It completes
//! chains in any order: each completion goes to the next place in the part of the ring that the device has read,
//! whatever lay there, as the device has a copy; that position goes on by as many entries as the completed chain has.
//! The driver looks for completions at a position that goes on in the same way, as it knows how many entries each tag
//! stands for.
//!
//! # Why nothing old is taken for new
//!
//! Four private positions, counted in entries, run in this order: the driver's next completion, the device's next
//! completion, the device's next chain, the driver's next entry. The last one is less than a lap before the first one,
//! so one entry at least is not lent: the wall has its place.
//!
//! - *The device never takes a descriptor of an earlier lap*, although entries that no completion came to still say
//!   `AVAILABLE`. Where a batch ends there is a wall, and it was stored before the batch's first label; so whoever took
//!   the batch finds, behind it, the wall or what was published later. Within a batch each entry was stored before the
//!   first label too.
//! - *The driver never takes a completion of an earlier lap.* While a chain is lent, the entry at which its next
//!   completion will be found was stored by the driver itself in this lap, and only the device's next completion goes
//!   there.
//! - *No entry is stored to by both at a time.* The device stores only where it has read and the driver has seen no
//!   completion yet; the driver stores only where it has seen one, or where one stands for the entry. That was stored
//!   with Release and seen with Acquire, so the device's last look at the entry comes before the driver's next store.
//! - *A driver that builds no wall* makes a ring without an end. The device counts what it has read and not given back,
//!   and stops with [`DeviceFault::Overrun`](crate::DeviceFault::Overrun) before that is all of the ring.
//! - *A device that answers anything* is held to the driver's private record: the tag must be that of a chain that it
//!   has, the length no more than was lent.
//!
//! A chain's entries follow one another, over the ring's end if it comes to that, and all have its tag. An entry that a
//! hostile driver changes while the device reads is read once; one that it changes later is not looked at again.
//!
//! # What it gains and what it loses
//!
//! Beside the packed ring, which it resembles most:
//!
//! - It has no wrap counters: a state is compared with a constant, positions run freely and are compared by
//!   subtraction, and zeroed memory is a ring at its start, wherever the two sides start. The first label names the
//!   chain, and a completion's length always counts.
//! - One entry is the wall and cannot be lent, and the size must be a power of two. A publication is one store more: in
//!   the line of the next entry, which every fourth time is another line.
//! - The state of an entry far ahead says nothing, as it may be of the last lap. A device that looks ahead can only
//!   guess, and an observer cannot tell from the ring alone how far anybody has come. Who recovers a ring needs
//!   `CLAIMED` for that, one store more for each publication of a device that keeps a record.
//! - Nobody else knows it: no guest, no hardware. It is negotiated in the bus's own handshake only
//!   (`PrivateFeatures::RING_TAGGED`).
//!
//! Beside the split ring it gains what the packed ring gains: an entry carries its own publication, four to a line, and
//! no line of indices goes back and forth. It loses the same: both sides must be able to write all of the ring, and
//! completions overwrite descriptors of chains that are in flight, so that a device that dies leaves too little behind
//! unless it kept a record.
//!
//! `IN_ORDER` is refused. What it would save is a label a chain where chains come back in batches, which is little
//! beside what a batch saves anyway; and a ring whose entries are tagged so that they can come back in any order is the
//! wrong one for those who need none. `NOTIFY_ON_EMPTY` belongs to legacy drivers, of which this ring has none. Indices
//! are not published in the ring, as there is no place for them; a ring-state table does that.

mod areas;
mod device_ring;
mod driver_ring;
mod label;
mod layout;
mod recover;
mod saved;

pub use areas::Areas;
pub use device_ring::DeviceRing;
pub use driver_ring::DriverRing;
pub use layout::{Layout, MAX_SIZE};
pub use recover::recover;

use shmbus_shm::{FenceScope, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;
use crate::features::RingType;

/// Chains come back in any order.
const PLAIN: RingType = RingType {
    required: Features::empty(),
    unsupported: Features::RING_PACKED
        .union(Features::IN_ORDER)
        .union(Features::NOTIFY_ON_EMPTY),
    private: PrivateFeatures::RING_TAGGED
        .union(PrivateFeatures::USED_EVENT)
        .union(PrivateFeatures::AVAIL_EVENT),
};

/// A queue's size and its memory's kind never change.
fn check_rebinding<W: Window>(
    areas: &Areas<W>,
    size: u16,
    scope: FenceScope,
) -> Result<(), SetupError> {
    if areas.size != size {
        return Err(SetupError::OtherSize {
            found: areas.size,
            expected: size,
        });
    }
    let found = areas.descriptors.fence_scope();
    if found != scope {
        return Err(SetupError::FenceScope { found });
    }
    Ok(())
}
