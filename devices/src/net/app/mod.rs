//! Small protocols over a [`Stack`]: state machines that never block on the network.

pub mod fetch;
pub mod ping;
pub mod serve;

#[cfg(test)]
mod tests;

use core::time::Duration;

use super::port::{Notifications, Port};
use super::stack::Stack;

/// A protocol that uses a stack's sockets.
pub trait Application<P: Port> {
    /// Does what can be done now; returns whether anything was: then the stack should be polled again.
    fn advance(&mut self, stack: &mut Stack<P>, now: Duration) -> bool;

    /// When [`Application::advance`] must be called next even if no frame arrives.
    fn deadline(&self) -> Option<Duration>;
}

/// What a [`turn`] did, and when the next one is due.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who must be told.
    pub notifications: Notifications,
    /// When the next turn is due even if no queue signals.
    pub deadline: Option<Duration>,
    /// Whether the bound on the work of one turn was reached: take another one.
    pub more: bool,
}

/// How often a turn goes back and forth between stack and application.
const ROUNDS: u32 = 4;

/// Polls the stack and advances the application until both wait or the bound on work is reached. Tell who must be
/// told, and take a turn again when a queue signals or the deadline has come.
pub fn turn<P: Port>(
    stack: &mut Stack<P>,
    application: &mut impl Application<P>,
    now: Duration,
    budget: u32,
) -> Turn {
    let mut notifications = Notifications::NONE;
    let mut more = true;
    for _ in 0..ROUNDS {
        let polled = stack.poll(now, budget);
        notifications = notifications.or(polled.notifications);
        if !application.advance(stack, now) {
            more = polled.more;
            break;
        }
    }
    let deadlines = [stack.next_deadline(now), application.deadline()];
    Turn {
        notifications,
        deadline: deadlines.into_iter().flatten().min(),
        more,
    }
}
