//! What is said of guests that break the rules: however often they do it, a bounded number of lines.

use std::fmt::Display;
use std::time::{Duration, Instant};

use shmbus_devices::SessionId;

/// How many lines are written at once, after some quiet.
const BURST: u32 = 32;
/// How long it takes until one more may be.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes warnings, or counts them.
#[derive(Debug)]
pub(super) struct Warnings {
    /// How many lines may be written now.
    left: u32,
    /// When the last of them was given back.
    refilled: Instant,
    unsaid: u64,
}

impl Warnings {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            refilled: now,
            unsaid: 0,
        }
    }

    /// Warns of what a guest's driver did to a device.
    pub(super) fn about(&mut self, session: SessionId, device: u32, what: impl Display) {
        if !self.may_speak(Instant::now()) {
            self.unsaid += 1;
            return;
        }
        tracing::warn!(session = session.0, device, "{what}");
        self.settle();
    }

    /// Says how much was not said.
    pub(super) fn settle(&mut self) {
        match std::mem::take(&mut self.unsaid) {
            0 => {}
            unsaid => tracing::warn!("drivers broke the rules {unsaid} more times before that"),
        }
    }

    fn may_speak(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.refilled) >= PAUSE {
            self.left += 1;
            self.refilled += PAUSE;
        }
        if self.left == BURST {
            // Nothing is given back while nothing is missing.
            self.refilled = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_burst_and_a_count_and_quiet_gives_the_burst_back() {
        let start = Instant::now();
        let mut warnings = Warnings::new(start);
        let mut said = |now| (0..1000).filter(|_| warnings.may_speak(now)).count();
        assert_eq!(said(start), BURST as usize);
        assert_eq!(said(start + PAUSE / 2), 0);
        assert_eq!(said(start + 3 * PAUSE), 3);
        assert_eq!(said(start + 1000 * PAUSE), BURST as usize);
        assert_eq!(said(start + 1000 * PAUSE), 0);
    }

    #[test]
    fn what_was_not_said_is_counted_until_it_is() {
        let mut warnings = Warnings::new(Instant::now());
        for _ in 0..BURST + 10 {
            warnings.about(SessionId(1), 0, "a fault");
        }
        assert_eq!(warnings.unsaid, 10);
        warnings.settle();
        assert_eq!(warnings.unsaid, 0);
    }
}
