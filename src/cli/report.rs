//! What a guest process tells its parent, as JSON lines on standard error, and the demo's summary.

use serde::{Deserialize, Serialize};

/// One line of a guest's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum GuestEvent {
    /// The guest is on the bus and its network is up.
    Ready {
        /// Its IPv4 address.
        address: String,
    },
    /// So many bytes of the file have come, over all fetches.
    Progress {
        /// Bytes so far.
        bytes: u64,
    },
    /// The guest has done its work.
    Done(GuestReport),
}

/// A guest's own figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GuestReport {
    /// Bytes of files fetched.
    pub(crate) bytes: u64,
    /// Files fetched whole, with the right checksum.
    pub(crate) files: u64,
    /// Time that the fetches took, in seconds.
    pub(crate) seconds: f64,
    /// Whether every fetched file had the expected SHA-256.
    pub(crate) sha256_ok: bool,
    /// The bus's clock against this process's own reading of the host's clock, in ns: the largest error met; zero in a virtual
    /// machine, where there is no such reading.
    pub(crate) clock_error_max_ns: u64,
    /// The same: the median.
    pub(crate) clock_error_median_ns: u64,
    /// What the clock itself claimed at most, in ns.
    pub(crate) clock_bound_ns: u64,
    /// Signals that this guest sent.
    pub(crate) signals_sent: u64,
    /// Signals that nobody was waiting for, and that were not sent.
    pub(crate) signals_suppressed: u64,
    /// Values read from tables.
    pub(crate) table_reads: u64,
    /// Deadlines set.
    pub(crate) timer_set: u64,
    /// Expirations that came for a deadline superseded meanwhile, and were discarded.
    pub(crate) timer_discarded: u64,
}

/// The demo's summary: what `--json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Bytes that the fetching guests received.
    pub(crate) bytes: u64,
    /// Files fetched whole.
    pub(crate) files: u64,
    /// Whether every file had the SHA-256 of the original.
    pub(crate) sha256_ok: bool,
    /// Bytes over the time of the longest-working guest, in MiB/s.
    pub(crate) mib_per_s: f64,
    /// Frames that the switch forwarded.
    pub(crate) frames: u64,
    /// Frames that it dropped because a receiver was full.
    pub(crate) frames_dropped: u64,
    /// Signals sent, by the host and all guests.
    pub(crate) signals_sent: u64,
    /// Signals that nobody was waiting for, and that were not sent.
    pub(crate) signals_suppressed: u64,
    /// The bus's clock against the host's, in ns: the largest error that a guest met.
    pub(crate) clock_error_ns: u64,
    /// The median of that, over the guests.
    pub(crate) clock_error_median_ns: u64,
    /// The largest error bound that the clock claimed, in ns.
    pub(crate) clock_bound_ns: u64,
    /// Deadlines that guests set.
    pub(crate) timer_set: u64,
    /// Deadlines superseded before they fired.
    pub(crate) timer_superseded: u64,
    /// Deadlines that fired.
    pub(crate) timer_fired: u64,
    /// How late they fired, in ns: median, 99th percentile, most.
    pub(crate) timer_late_ns: [u64; 3],
    /// Values that guests read from tables.
    pub(crate) table_reads: u64,
    /// Guest processes.
    pub(crate) guests: u16,
    /// Guests that ended before their time and were replaced.
    pub(crate) guests_replaced: u16,
}
