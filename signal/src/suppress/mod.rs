//! Suppression in shared memory: who must be woken, decided without a system call and without a word that both sides
//! write.
//!
//! A *doorbell* carries the channels of one priority class in one direction. It has two parts, each in the section of
//! the side that writes it:
//!
//! - the sender's: a generation tree with a leaf for each channel ([`DoorbellLayout::tree_bytes`]). A channel's
//!   generation is the sender's count of raised channels when it was last raised;
//! - the receiver's: one `u64`, `armed`, at the start of a 64-byte line of its own ([`DoorbellLayout::ARMED_BYTES`]).
//!   It is the stamp at which the receiver wants to be woken; 0 for never.
//!
//! # The protocol
//!
//! ```text
//! receiver                                   sender
//! 1. scans the tree up to stamp s            a. marks the channel; the root becomes n
//! 2. armed = s + 1                           b. fence(SeqCst)
//! 3. fence(SeqCst)                           c. loads armed
//! 4. sleeps only if the root is still s      d. kicks if n >= armed, and armed was not answered before
//! ```
//!
//! The two fences are ordered one way or the other. If the receiver's comes first, (c) finds what (2) stored, and the
//! sender kicks. If the sender's comes first, (4) finds what (a) stored, and the receiver does not sleep. Without
//! either fence both can miss (store buffering); SeqCst accesses in their place would order it too, but cost a locked
//! store at each mark.
//!
//! loom shows this (`tests/loom_arming.rs`), but it never lets a store pass a load that comes before it in its thread. The
//! orderings of the accesses exclude that: the sender's next store after (c) is a leaf's, a Release, which no earlier load
//! passes; and (2) comes behind loads of the tree that are Acquire, which no later store passes. What is left, (2) before a
//! load of stamps below a root that was loaded first, changes nothing: the receiver looks at the root again in (4).
//!
//! What the sender last answered it keeps privately: one kick for each arming, however many channels are raised, and
//! nothing in the receiver's section is ever cleared by the sender.
//!
//! # Thresholds and subscribers
//!
//! A receiver need not be woken by the next channel: [`Receiver::arm_at`] names the stamp, and what is raised before it
//! costs no kick. That is not a doorbell's alone. An [`Alarm`] asks to be woken at generation G of anything that has one, say
//! of a slot in a table, and [`Subscribers`] answers the alarms of up to 64 receivers, each in a section of its own. A
//! [`Broadcast`] is a doorbell that so many hear.
//!
//! # Trust
//!
//! The receiver's word can make the sender kick it at most once for each raise, and no other receiver. The sender's tree can make the receiver
//! scan it once, or sleep: only a time limit helps against a sender that is silent. Neither can do more.

mod alarm;
mod layout;
mod receiver;
mod sender;
mod subscribers;
#[cfg(test)]
mod tests;

pub use alarm::{Alarm, Arm};
pub use layout::{DoorbellLayout, SignalError};
pub use receiver::Receiver;
pub use sender::{Sender, SenderCounts};
pub use subscribers::{Broadcast, Due, Subscriber, Subscribers};
