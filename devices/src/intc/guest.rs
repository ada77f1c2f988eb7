//! One guest's lines, as the host sees them.

use core::ops::ControlFlow;

use shmbus_shm::{Notify, Window};
use shmbus_table::Epoch;

use super::host::LineCounters;
use super::{Control, IntcLanes, Wire};
use crate::lane::{Inlet, InletError, LaneError, Outlet, OutletError};
use crate::timer::LatenessHistogram;

/// Why a guest's lines are not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// What the guest says could not be read.
    #[error("what the guest says: {0}")]
    Unreadable(#[from] InletError),
    /// The guest could not be told of a line.
    #[error("what the guest is told: {0}")]
    Unwritable(#[from] OutletError),
    /// The guest has set up its lanes anew, and nobody was told.
    #[error("line {line} is of life {found} of the guest's driver, after life {expected}")]
    BegunAnew {
        /// Which line.
        line: u32,
        /// The epoch of what was read before.
        expected: Epoch,
        /// That of what was read now.
        found: Epoch,
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
    /// Boxed: a node of the map of guests has room for eleven, and most devices serve one or none.
    ends: Option<Box<Ends<W>>>,
}

/// The host's ends of its lanes.
#[derive(Debug)]
struct Ends<W: Window> {
    wires: Outlet<Wire, W>,
    controls: Inlet<Control, W>,
    requests: Inlet<Wire, W>,
    life: Life,
}

/// Which life of its driver a guest speaks in: numbers of two lives must not meet.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    controls: Option<Epoch>,
    requests: Option<Epoch>,
}

impl<W: Window> Guest<W> {
    pub(super) fn new(lines: u32) -> Self {
        Self {
            lines: vec![HostLine::default(); lines as usize],
            ends: None,
        }
    }

    /// Serves a driver that is ready, and tells it what is on its lines.
    pub(super) fn attach(&mut self, lanes: IntcLanes<W>) -> Result<(), AttachError> {
        let lines = self.lines.len() as u32;
        let controls = Inlet::at_host(lanes.controls, lines)?;
        let requests = Inlet::at_host(lanes.requests, lines)?;
        let mut wires = Outlet::at_host(lanes.wires, lines)?;
        for (number, line) in (0..).zip(&self.lines) {
            if line.told.asserted || line.told.edges > 0 {
                let _ = wires.place(number, line.told)?;
            }
        }
        // Whoever has just become ready looks without being told.
        let _ = wires.flush()?;
        self.ends = Some(Box::new(Ends {
            wires,
            controls,
            requests,
            life: Life::default(),
        }));
        Ok(())
    }

    /// Ends the use of the driver's lanes, which it may then set up anew in the same memory.
    fn close(&mut self) {
        if let Some(ends) = self.ends.take() {
            ends.wires.close();
            ends.controls.close();
            ends.requests.close();
        }
    }

    /// Lets go of the driver's lanes. Edges whose service was not seen to end are the next driver's.
    pub(super) fn detach(&mut self) {
        self.close();
        for line in &mut self.lines {
            line.told.edges = line.told.edges.wrapping_sub(line.ended);
            (line.ended, line.requested) = (0, Wire::default());
        }
    }

    /// Adds edges to a line and sets its level, and puts in what the guest is to see of it if it is there and anything
    /// changed; it is shown by the next flush.
    pub(super) fn update(
        &mut self,
        number: u32,
        edges: u64,
        asserted: bool,
        now_ns: u64,
        counters: &mut LineCounters,
    ) -> Result<(), GuestFault> {
        let Some(line) = self.lines.get_mut(number as usize) else {
            return Ok(());
        };
        if edges == 0 && asserted == line.told.asserted {
            return Ok(());
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
        let Some(ends) = &mut self.ends else {
            return Ok(());
        };
        if let Err(error) = ends.wires.place(number, line.told) {
            self.close();
            return Err(error.into());
        }
        counters.told += 1;
        Ok(())
    }

    /// Shows the guest what was put in, and lends it its buffers again. Says whether it must be told.
    pub(super) fn flush(&mut self) -> Result<Notify, GuestFault> {
        let Some(ends) = &mut self.ends else {
            return Ok(Notify::No);
        };
        let returned = ends.controls.flush().or(ends.requests.flush());
        match ends.wires.flush() {
            Ok(notify) => Ok(notify.or(returned)),
            Err(error) => {
                self.close();
                Err(error.into())
            }
        }
    }

    /// Takes in what the guest says, at most `limit` values of each lane; what it raises goes to `passed`. Returns
    /// whether there may be more.
    pub(super) fn look(
        &mut self,
        now_ns: u64,
        limit: usize,
        counters: &mut LineCounters,
        served: &mut LatenessHistogram,
        passed: &mut Vec<Passed>,
    ) -> Result<bool, GuestFault> {
        let Self { lines, ends } = self;
        let Some(ends) = ends else {
            return Ok(false);
        };
        let (mut outcome, life) = (Ok(()), &mut ends.life);
        let mut more = ends.controls.take(limit, |number, control, generation| {
            if let Some(line) = lines.get_mut(number as usize) {
                outcome = same_life(number, &mut life.controls, generation.epoch())
                    .and_then(|()| line.acknowledge(number, control, now_ns, served))
                    .map(|ended| counters.ended += ended);
            }
            go_on(&outcome)
        })?;
        outcome?;
        more |= ends.requests.take(limit, |number, wire, generation| {
            if let Some(line) = lines.get_mut(number as usize) {
                outcome = same_life(number, &mut life.requests, generation.epoch())
                    .and_then(|()| line.request(number, wire))
                    .map(|one| passed.push(one));
            }
            go_on(&outcome)
        })?;
        outcome.map(|()| more)
    }
}

/// A guest cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Its lanes are not what they must be.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// What is on its lines cannot be told.
    #[error(transparent)]
    Tell(#[from] OutletError),
}

/// Whether what is read now is of the life of which all was that was read before.
fn same_life(line: u32, life: &mut Option<Epoch>, found: Epoch) -> Result<(), GuestFault> {
    let expected = *life.get_or_insert(found);
    if found == expected {
        Ok(())
    } else {
        Err(GuestFault::BegunAnew {
            line,
            expected,
            found,
        })
    }
}

fn go_on(outcome: &Result<(), GuestFault>) -> ControlFlow<()> {
    match outcome {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
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
