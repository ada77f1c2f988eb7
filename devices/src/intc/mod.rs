//! An interrupt controller: "this line is up", then "it is down", and nobody need see both.
//!
//! The host ([`Lines`]) writes into a table what is on each line of a guest: a *level*, and the number of its last *edge*.
//! The guest's driver ([`IntcDriver`]) finds what changed, sorts it by priority in private memory, and delivers it. In a
//! table of its own it says how it wants each line (masked or not, how urgent), whether it is in service, and which edge
//! it was delivered last and has ended. A guest also raises lines: in a third table it says what it drives onto each, and
//! the host passes that on to the other guests, as if the line were a wire to all of them.
//!
//! ```
//! use shmbus_devices::SessionId;
//! use shmbus_devices::intc::{IntcDriver, IntcLanes, LinePriority, Lines};
//! use shmbus_devices::lane::Carrier;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lanes = IntcLanes::on_heap(Carrier::Table, 64)?; // the guest's memory and the host's, between processes
//! let mut guest = IntcDriver::new(lanes.clone(), 64)?;
//! let mut host = Lines::new(64);
//! host.add_guest(SessionId(1), lanes, 0, |_, _| ())?;
//!
//! guest.set_priority(9, LinePriority::HIGHEST)?;
//! guest.unmask(3)?;
//! guest.unmask(9)?;
//! let _ = host.raise(SessionId(1), 3, 1, 100);
//! assert!(host.raise(SessionId(1), 9, 1, 110).is_needed());
//! let _ = host.raise(SessionId(1), 9, 1, 120); // before anybody looked: one delivery for both
//!
//! let first = guest.claim()?.ok_or("line 9 is more urgent")?;
//! assert_eq!((first.line, first.edges), (9, 2));
//! assert_eq!(guest.claim()?, None); // line 3 waits until line 9 is done
//! let _ = host.raise(SessionId(1), 9, 1, 130); // after it was delivered: it will be again
//! let _ = guest.end(9)?;
//! assert_eq!(guest.claim()?.map(|again| (again.line, again.edges)), Some((9, 1)));
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//!
//! It is that of Arm's GICv3 (IHI 0069, "Interrupt handling and prioritization"), for one CPU interface; a local APIC does
//! the same with 16 classes and the opposite order of numbers.
//!
//! - A line is *pending* while its level is asserted, or if there are edges that were not delivered. It needs no
//!   configuration as one or the other: a device that only ever raises edges, or only a level, is served as such.
//! - [`claim`](IntcDriver::claim) delivers the pending line with the lowest priority number, of several that with the
//!   lowest line number. It is *in service* until [`end`](IntcDriver::end). Only a more urgent line is delivered meanwhile;
//!   services nest, and end in reverse order.
//! - A level that is still asserted when the service ends is delivered again. One that was withdrawn before it was delivered
//!   is not delivered: `claim` looks once more at the line that it is about to deliver.
//! - An edge has a number. A delivery acknowledges all edges up to the last one seen, so one that comes between the look
//!   and the acknowledgement has a higher number, and is delivered again. Edges that were not yet delivered coalesce, and
//!   the delivery says how many it stands for: none is lost, none is counted twice.
//! - A masked line is not delivered. It is pending when it is unmasked, if there was cause meanwhile, or still is.
//!
//! # Over rings
//!
//! The device also comes as a twin over rings ([`lane`](crate::lane)), to be compared with. Arbitration, checks and counters
//! are this same code. What differs is what a ring cannot do. What waits for room in it is not seen yet, so a level that
//! was withdrawn may be delivered if the ring was full by then; the edges are right all the same, as their numbers are. And
//! both sides have buffers to lend again, so whoever has claimed all that it wants [`poll`](IntcDriver::poll)s before it
//! waits, and signals what that says.
//!
//! # Layout
//!
//! The tables have a slot for each line. That of wires is in the host's memory, those of controls and of requests in the
//! guest's. A wire's slots (and a request's) have 24 bytes, type id the bytes `WIRE`; a control's 32 bytes, `CTRL`. With its
//! sequence word each copy fills part of one 64-byte line, so that a raise moves one line between the sides, besides the
//! generation tree's. Words are 64 bits, little-endian; `docs/abi.md` lists them.
//!
//! Whoever sets a table up anew in the same memory does so under the next epoch. A driver sets up its tables before it says
//! that it is ready, the host its own after that, and edges are counted from that moment: numbers of two lives never meet.
//!
//! # Restarts
//!
//! A guest that resets its driver is told its lines anew: their levels, and edges whose service was not seen to end.
//! So an edge whose service a crash cut short is delivered once more. A driver that moves to a new host
//! ([`move_to`](IntcDriver::move_to)) takes along what the old one had raised. The levels that a guest asserts fall when it
//! leaves, resets its driver, or breaks the rules.
//!
//! # Bounds and trust
//!
//! Raising a line costs a write for each guest that gets it. Finding what changed costs what changed; sorting and
//! finding the most urgent cost a few words, whatever the number of lines. The driver allocates nothing once it runs. There
//! is no lock-free protocol here besides the tables' own: each table has one writer, and what one side says of the other's
//! table (the number of an edge) is a claim that the other checks. The host takes from a guest nothing but such numbers; one
//! that acknowledges what was never raised, takes an edge back, or writes an unknown value is cut off until it resets its
//! driver. A host that takes edges back is not believed any more until the driver moves. Lies that keep to the rules
//! (a guest that raises lines all the time) cost the others deliveries of lines that they could mask.

pub mod device;
mod driver;
mod error;
mod guest;
mod host;
mod lanes;
mod line;
mod payload;
mod priority;
mod ready;
#[cfg(test)]
mod tests;

pub use driver::{Delivery, DriverCounters, IntcDriver};
pub use error::{IntcError, IntcFault, IntcMoveError};
pub use guest::{AttachError, GuestFault};
pub use host::{LineCounters, Lines};
pub use lanes::IntcLanes;
pub use payload::{Control, Wire};
pub use priority::LinePriority;
