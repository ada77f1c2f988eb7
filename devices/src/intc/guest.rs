//! One guest's lines, as the host sees them.

use shmbus_shm::{Notify, Window};
use shmbus_table::{TableError, TypedReadError};

use super::host::LineCounters;
use super::tables::{Read, Written, set_up};
use super::{Control, IntcWindows, Wire};
use crate::timer::LatenessHistogram;

/// Why a guest's lines are not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// A slot of the guest's tables could not be read.
    #[error("what the guest says of line {line}: {error}")]
    Unreadable {
        /// Which line.
        line: u32,
        /// What was wrong.
        error: TypedReadError,
    },
    /// The guest could not be told of a line.
    #[error("line {line} cannot be told: {error}")]
    Unwritable {
        /// Which line.
        line: u32,
        /// What was wrong.
        error: TableError,
    },
    /// The guest claims, or ends, an edge that it was never told of, or goes back.
    #[error(
        "line {line} had {raised} edges, {expected_after} of them ended; the guest claims number {claimed} and has ended {ended}"
    )]
    FalseAcknowledgement {
        /// Which line.
        line: u32,
        /// The number of the last edge that the guest was told of.
        raised: u64,
        /// The number of the last edge whose service was seen to have ended.
        expected_after: u64,
        /// The last edge that the guest says it was delivered.
        claimed: u64,
        /// The last edge whose service it says has ended.
        ended: u64,
    },
    /// The guest raises more edges between two looks than can be, or takes some back.
    #[error("line {line} was raised {expected_after} times, and {found} times at the next look")]
    FalseEdges {
        /// Which line.
        line: u32,
        /// The number of the last edge seen.
        expected_after: u64,
        /// The number found.
        found: u64,
    },
}

/// More edges are not raised between two looks: it would take minutes. So what the guests of a bus raise together does not
/// come round to the same number unnoticed.
const MOST_EDGES: u64 = 1 << 32;

/// What a guest has raised since the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) line: u32,
    pub(super) edges: u64,
    /// Whether its level of the line has changed.
    pub(super) has_turned: bool,
    /// Its level now.
    pub(super) asserted: bool,
}

/// A line at one guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostLine {
    /// Whether the host asserts it at this guest.
    pub(super) from_host: bool,
    /// What this guest was last seen to drive onto it, for the others.
    pub(super) requested: Wire,
    /// What the guest is told, or will be when it is back.
    told: Wire,
    /// The last edge whose service was seen to have ended.
    ended: u64,
    /// Since when an edge has been waiting for its end.
    waiting_since_ns: Option<u64>,
}

/// A guest and its lines. They are kept while its driver is away.
#[derive(Debug)]
pub(super) struct Guest<W: Window> {
    pub(super) lines: Vec<HostLine>,
    tables: Option<Tables<W>>,
}

#[derive(Debug)]
struct Tables<W: Window> {
    wires: Written<Wire, W>,
    controls: Read<Control, W>,
    requests: Read<Wire, W>,
}

impl<W: Window> Guest<W> {
    pub(super) fn new(lines: u32) -> Self {
        Self {
            lines: vec![HostLine::default(); lines as usize],
            tables: None,
        }
    }

    /// Serves a driver that is ready, and tells it what is on its lines.
    pub(super) fn attach(&mut self, windows: IntcWindows<W>) -> Result<(), TableError> {
        let lines = self.lines.len() as u32;
        let controls = Read::attach(windows.controls, lines)?;
        let requests = Read::attach(windows.requests, lines)?;
        let mut wires = set_up(windows.wires, lines)?;
        for (number, line) in (0..).zip(&self.lines) {
            if line.told.asserted || line.told.edges > 0 {
                // Whoever has just become ready looks without being told.
                let _ = wires.publish(number, &line.told)?;
            }
        }
        self.tables = Some(Tables {
            wires,
            controls,
            requests,
        });
        Ok(())
    }

    /// Lets go of the driver's tables. Edges whose service was not seen to end are the next driver's.
    pub(super) fn detach(&mut self) {
        self.tables = None;
        for line in &mut self.lines {
            line.told.edges = line.told.edges.wrapping_sub(line.ended);
            (line.ended, line.requested) = (0, Wire::default());
        }
    }

    /// Adds edges to a line and sets its level, and tells the guest if it is there and anything changed.
    pub(super) fn update(
        &mut self,
        number: u32,
        edges: u64,
        asserted: bool,
        now_ns: u64,
        counters: &mut LineCounters,
    ) -> Result<Notify, GuestFault> {
        let Some(line) = self.lines.get_mut(number as usize) else {
            return Ok(Notify::No);
        };
        if edges == 0 && asserted == line.told.asserted {
            return Ok(Notify::No);
        }
        let gives_cause = edges > 0 || asserted;
        line.told = Wire {
            asserted,
            edges: line.told.edges.wrapping_add(edges),
            raised_ns: if gives_cause {
                now_ns
            } else {
                line.told.raised_ns
            },
        };
        if edges > 0 {
            line.waiting_since_ns.get_or_insert(now_ns);
        }
        let Some(tables) = &mut self.tables else {
            return Ok(Notify::No);
        };
        match tables.wires.publish(number, &line.told) {
            Ok((_, notify)) => {
                counters.told += 1;
                Ok(notify)
            }
            Err(error) => {
                self.tables = None;
                Err(GuestFault::Unwritable {
                    line: number,
                    error,
                })
            }
        }
    }

    /// Takes in what the guest says, of at most `limit` lines in each table; what it raises goes to `passed`. Returns
    /// whether there may be more.
    pub(super) fn look(
        &mut self,
        now_ns: u64,
        limit: usize,
        counters: &mut LineCounters,
        served: &mut LatenessHistogram,
        passed: &mut Vec<Passed>,
    ) -> Result<bool, GuestFault> {
        let Self { lines, tables } = self;
        let Some(tables) = tables else {
            return Ok(false);
        };
        let mut outcome = Ok(());
        let unreadable = |(line, error)| GuestFault::Unreadable { line, error };
        let controls = tables.controls.take(limit, |number, control| {
            if let Some(line) = lines.get_mut(number as usize) {
                let acknowledged = line.acknowledge(number, control, now_ns, served);
                let ended = acknowledged.map(|ended| counters.ended += ended);
                outcome = outcome.and(ended);
            }
        });
        let requests = tables.requests.take(limit, |number, wire| {
            if let Some(line) = lines.get_mut(number as usize) {
                let requested = line.request(number, wire);
                outcome = outcome.and(requested.map(|one| passed.push(one)));
            }
        });
        let more = controls.map_err(unreadable)? | requests.map_err(unreadable)?;
        outcome.map(|()| more)
    }
}

impl HostLine {
    /// Whether the line is asserted at this guest, of `asserters` guests that assert it.
    pub(super) fn level(&self, asserters: u32) -> bool {
        self.from_host || asserters > u32::from(self.requested.asserted)
    }

    /// Takes in how far the guest has come. Returns for how many edges the service has ended since.
    fn acknowledge(
        &mut self,
        number: u32,
        control: Control,
        now_ns: u64,
        served: &mut LatenessHistogram,
    ) -> Result<u64, GuestFault> {
        // Modulo 2^64: distances from the last edge that has ended.
        let raised = self.told.edges.wrapping_sub(self.ended);
        let claimed = control.claimed.wrapping_sub(self.ended);
        let ended = control.ended.wrapping_sub(self.ended);
        if claimed > raised || ended > claimed {
            return Err(GuestFault::FalseAcknowledgement {
                line: number,
                raised: self.told.edges,
                expected_after: self.ended,
                claimed: control.claimed,
                ended: control.ended,
            });
        }
        self.ended = control.ended;
        if ended > 0
            && let Some(since_ns) = self.waiting_since_ns.take()
        {
            served.record(now_ns.saturating_sub(since_ns));
            // Of those that still wait only the last one's time is known.
            self.waiting_since_ns = (raised > ended).then_some(self.told.raised_ns);
        }
        Ok(ended)
    }

    /// Takes in what the guest drives onto the line.
    fn request(&mut self, number: u32, wire: Wire) -> Result<Passed, GuestFault> {
        let edges = wire.edges.wrapping_sub(self.requested.edges);
        if edges > MOST_EDGES {
            return Err(GuestFault::FalseEdges {
                line: number,
                expected_after: self.requested.edges,
                found: wire.edges,
            });
        }
        let has_turned = wire.asserted != self.requested.asserted;
        self.requested = wire;
        Ok(Passed {
            line: number,
            edges,
            has_turned,
            asserted: wire.asserted,
        })
    }
}
