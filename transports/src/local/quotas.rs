//! What peers may ask of a host.

use std::time::Duration;

/// Limits on what all peers together may ask of a [`Listener`](super::Listener).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Guests, from their HELLO on. One more is refused with code BUSY.
    pub sessions: usize,
    /// Inspectors. One more is refused with code BUSY.
    pub inspectors: usize,
    /// Connections that have not sent a HELLO yet. One more pushes the oldest out.
    pub silent: usize,
    /// From connecting to READY; then the host hangs up.
    pub handshake: Duration,
    /// The most that a guest may be granted as its memory, in bytes.
    pub guest_memory_bytes: u64,
}

impl Default for Quotas {
    /// 64 guests, 4 inspectors, 32 silent connections, 5 seconds, 256 MiB a guest.
    fn default() -> Self {
        Self {
            sessions: 64,
            inspectors: 4,
            silent: 32,
            handshake: Duration::from_secs(5),
            guest_memory_bytes: 256 << 20,
        }
    }
}
