//! Waiting for a host that is not there yet, or is coming back.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::connect::{ConnectError, connect};
use super::guest::{GuestOptions, Invitation};

/// How [`reconnect`] waits between two attempts: `first`, then twice as long each time up to `longest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// The timeout of each attempt.
    pub attempt: Duration,
}

impl Default for Backoff {
    /// 10 ms, up to 1 s, 5 s for an attempt.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(10),
            longest: Duration::from_secs(1),
            attempt: Duration::from_secs(5),
        }
    }
}

/// Connects to a host that may not be there yet, or is just restarting. Blocks until it succeeds, until an error that no
/// waiting cures, or until `failed` (told of each failure and the wait that would follow) says to stop.
///
/// # Errors
///
/// The last [`ConnectError`].
pub fn reconnect(
    path: impl AsRef<Path>,
    options: &GuestOptions,
    backoff: Backoff,
    mut failed: impl FnMut(&ConnectError, Duration) -> ControlFlow<()>,
) -> Result<Invitation, ConnectError> {
    let mut wait = backoff.first;
    loop {
        let error = match connect(&path, options, backoff.attempt) {
            Ok(invitation) => return Ok(invitation),
            Err(error) => error,
        };
        if !error.is_temporary() || failed(&error, wait).is_break() {
            return Err(error);
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(backoff.longest);
    }
}
