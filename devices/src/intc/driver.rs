//! The guest's side: what is raised is sorted, delivered, and ended.

use shmbus_shm::{Notify, Window};
use shmbus_table::{TableError, TypedReadError};

use super::line::Line;
use super::ready::ReadyLines;
use super::tables::{Awaited, Written, set_up};
use super::{Control, LinePriority, Wire};

/// An interrupt that was delivered. The line is in service until [`IntcDriver::end`].
#[must_use = "a line stays in service, and holds back those that are not more urgent, until it is ended"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which line.
    pub line: u32,
    /// How urgent it is.
    pub priority: LinePriority,
    /// How many edges it stands for; 0 if it is for the level alone. Over a line's deliveries they add up to the edges
    /// that were raised.
    pub edges: u64,
    /// Whether the level was asserted when it was delivered.
    pub asserted: bool,
    /// When the line was last given cause, in nanoseconds of the host's monotonic clock.
    pub raised_ns: u64,
}

/// What a driver has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Interrupts delivered.
    pub delivered: u64,
    /// Edges that they stood for.
    pub edges: u64,
    /// Edges that were delivered together with another, so without a delivery of their own.
    pub coalesced: u64,
    /// Deliveries while another line was in service.
    pub nested: u64,
    /// Lines that were about to be delivered, but whose level had been withdrawn: with wires, these would have been
    /// spurious interrupts.
    pub withdrawn: u64,
    /// Edges that this guest raised.
    pub raised: u64,
}

/// The device broke the rules. The driver reports it until it is moved to other tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntcFault {
    /// The host's table of lines is none, or not for as many lines.
    #[error("the table of lines: {0}")]
    NoTable(TableError),
    /// A line's state could not be read.
    #[error("the state of line {line}: {error}")]
    Unreadable {
        /// Which line.
        line: u32,
        /// What was wrong.
        error: TypedReadError,
    },
    /// The number of a line's last edge went back.
    #[error("line {line} had {expected} edges, and now has {found}")]
    EdgesTakenBack {
        /// Which line.
        line: u32,
        /// The number of the last edge seen, at least.
        expected: u64,
        /// The number found.
        found: u64,
    },
}

/// A call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntcError {
    /// The device broke the rules.
    #[error(transparent)]
    Fault(#[from] IntcFault),
    /// There is no such line, or its slot takes no more values.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A line was ended that is not in service, or not the one that was delivered last.
    #[error(
        "line {line} is not the one in service that was delivered last, which is {innermost:?}"
    )]
    NotInnermost {
        /// The line that should have been ended.
        line: u32,
        /// The one that is to be ended first, if there is any.
        innermost: Option<u32>,
    },
}

/// The guest's side of an interrupt controller, for one virtual CPU: one that takes interrupts nested, not side by side.
///
/// All arbitration happens here, in private memory: the host says what is on each line, and this driver sorts. It keeps
/// no queue. A line is delivered at most once at a time, for everything that came up to that moment. What comes after
/// that moment is delivered when the service has ended. [`claim`](Self::claim) allocates nothing.
#[derive(Debug)]
pub struct IntcDriver<W: Window> {
    wires: Awaited<Wire, W>,
    controls: Written<Control, W>,
    requests: Written<Wire, W>,
    lines: Vec<Line>,
    /// What this guest drives onto each line.
    driven: Vec<Wire>,
    /// Lines that may be delivered.
    ready: ReadyLines,
    /// Lines in service with the priorities that they were delivered with, each more urgent than the one before it: at
    /// most as many as there are priorities.
    service: Vec<(LinePriority, u32)>,
    counters: DriverCounters,
    fault: Option<IntcFault>,
}

/// The memory of a guest's interrupt controller.
#[derive(Clone, Debug)]
pub struct IntcWindows<W> {
    /// Of the table that the host writes: what is on each line.
    pub wires: W,
    /// Of the table that the guest writes: how it wants each line, and how far it has come with it.
    pub controls: W,
    /// Of the table that the guest writes: what it drives onto each line.
    pub requests: W,
}

impl<W: Window> IntcDriver<W> {
    /// `lines` lines that are all masked: sets up the guest's tables in `windows`. The host sets up its own when it is
    /// told that the driver is ready; what is there before is an earlier life's.
    ///
    /// # Errors
    ///
    /// [`TableError`]: the guest's memory does not hold so many lines.
    pub fn new(windows: IntcWindows<W>, lines: u32) -> Result<Self, TableError> {
        Ok(Self {
            wires: Awaited::new(windows.wires),
            controls: set_up(windows.controls, lines)?,
            requests: set_up(windows.requests, lines)?,
            lines: vec![Line::default(); lines as usize],
            driven: vec![Wire::default(); lines as usize],
            ready: ReadyLines::new(lines),
            service: Vec::with_capacity(LinePriority::COUNT),
            counters: DriverCounters::default(),
            fault: None,
        })
    }

    /// How many lines there are.
    pub fn lines(&self) -> u32 {
        self.lines.len() as u32
    }

    /// What has been done so far.
    pub fn counters(&self) -> DriverCounters {
        self.counters
    }

    /// How many lines are pending, not masked and not in service, as far as this side has looked.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether `line` is pending, be it masked or in service, as far as this side has looked.
    pub fn is_pending(&self, line: u32) -> bool {
        self.line(line).is_ok_and(|line| line.is_pending())
    }

    /// Whether the level of `line` is asserted, as far as this side has looked.
    pub fn is_asserted(&self, line: u32) -> bool {
        self.line(line).is_ok_and(|line| line.wire.asserted)
    }

    /// The lines in service, the one that was delivered last at the end.
    pub fn in_service(&self) -> impl Iterator<Item = u32> + '_ {
        self.service.iter().map(|(_, line)| *line)
    }

    fn line(&self, line: u32) -> Result<&Line, TableError> {
        let slots = self.lines();
        self.lines
            .get(line as usize)
            .ok_or(TableError::NoSuchSlot { slot: line, slots })
    }

    /// Lets `line` be delivered. If it was pending while it was masked, it is now: claim.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the line stays as it was.
    pub fn unmask(&mut self, line: u32) -> Result<(), TableError> {
        self.change(line, |line| line.enabled = true)
    }

    /// Holds `line` back. What comes while it is masked is delivered when it no longer is. A service that has begun goes on.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the line stays as it was.
    pub fn mask(&mut self, line: u32) -> Result<(), TableError> {
        self.change(line, |line| line.enabled = false)
    }

    /// Gives `line` another priority. One that is in service keeps that which it was delivered with until it is ended.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the line stays as it was.
    pub fn set_priority(&mut self, line: u32, priority: LinePriority) -> Result<(), TableError> {
        self.change(line, |line| line.priority = priority)
    }

    /// Changes a line, and tells the host. It acts upon none of this, so nobody is signalled.
    fn change(&mut self, line: u32, change: impl FnOnce(&mut Line)) -> Result<(), TableError> {
        let before = *self.line(line)?;
        let mut after = before;
        change(&mut after);
        if after.control() != before.control() {
            let _ = self.controls.publish(line, &after.control())?;
            self.put(line, after);
        }
        Ok(())
    }

    /// Replaces a line's state.
    fn put(&mut self, line: u32, after: Line) {
        if let Some(stored) = self.lines.get_mut(line as usize) {
            resort(&mut self.ready, line, stored, &after);
            *stored = after;
        }
    }

    /// Takes in what changed on the lines; one load if nothing did. [`claim`](Self::claim) does it too.
    ///
    /// # Errors
    ///
    /// [`IntcFault`], from then on: the device is not believed any more.
    pub fn poll(&mut self) -> Result<(), IntcFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = self.take_in();
        self.fault = outcome.err();
        outcome
    }

    fn take_in(&mut self) -> Result<(), IntcFault> {
        let Self {
            wires,
            lines,
            ready,
            ..
        } = self;
        let table = wires.attached(lines.len() as u32);
        let Some(table) = table.map_err(IntcFault::NoTable)? else {
            return Ok(());
        };
        let mut outcome = Ok(());
        let taken = table.take(usize::MAX, |line, wire| {
            if let Some(stored) = lines.get_mut(line as usize) {
                outcome = outcome.and(adopt(ready, line, stored, wire));
            }
        });
        taken.map_err(|(line, error)| IntcFault::Unreadable { line, error })?;
        outcome
    }

    /// Delivers the most urgent line that is pending; of several, that with the lowest number. None if nothing is pending
    /// that is more urgent than what is in service.
    ///
    /// All that was raised when the call began is considered, and a level that was withdrawn by then is not delivered.
    /// The work is bounded by the number of lines, whatever the host does: each is looked at twice at most.
    ///
    /// # Errors
    ///
    /// [`IntcError::Fault`], from then on; [`IntcError::Table`] if the line's slot takes no more values.
    pub fn claim(&mut self) -> Result<Option<Delivery>, IntcError> {
        self.poll()?;
        while let Some((priority, line)) = self.ready.first() {
            // GICv3's preemption, with each priority a group of its own: only what is more urgent than the running
            // priority interrupts it.
            if self
                .service
                .last()
                .is_some_and(|(running, _)| priority >= *running)
            {
                return Ok(None);
            }
            if let Err(fault) = self.look_again(line) {
                self.fault = Some(fault);
                return Err(fault.into());
            }
            let mut claimed = *self.line(line)?;
            if !claimed.is_ready() {
                self.counters.withdrawn += 1;
                continue;
            }
            let cause = claimed.claim();
            let _ = self.controls.publish(line, &claimed.control())?;
            self.put(line, claimed);
            self.counters.delivered += 1;
            self.counters.edges = self.counters.edges.wrapping_add(cause.edges);
            let coalesced = cause.edges.saturating_sub(1);
            self.counters.coalesced = self.counters.coalesced.wrapping_add(coalesced);
            self.counters.nested += u64::from(!self.service.is_empty());
            self.service.push((priority, line));
            return Ok(Some(Delivery {
                line,
                priority,
                edges: cause.edges,
                asserted: cause.asserted,
                raised_ns: cause.raised_ns,
            }));
        }
        Ok(None)
    }

    /// Takes in what a line's state is now: its level may have been withdrawn since it was taken in.
    fn look_again(&mut self, line: u32) -> Result<(), IntcFault> {
        let slots = self.lines();
        let Self {
            wires,
            lines,
            ready,
            ..
        } = self;
        let table = wires.attached(slots).map_err(IntcFault::NoTable)?;
        let (Some(table), Some(stored)) = (table, lines.get_mut(line as usize)) else {
            return Ok(());
        };
        let newest = table
            .newest(line)
            .map_err(|(line, error)| IntcFault::Unreadable { line, error })?;
        let wire = newest.unwrap_or(Wire {
            // The host goes on writing it, so that what it writes last is reported as a change again. Until then the
            // edges stand, and the level is not to be relied on.
            asserted: false,
            ..stored.wire
        });
        adopt(ready, line, stored, wire)
    }

    /// Ends the service of `line`, which is the one that was delivered last: services nest. If its level is still
    /// asserted, or edges came since, it is pending again at once.
    ///
    /// Says whether to tell the host: if somebody may wait for the level to be taken note of, and when nothing is left to
    /// deliver; so a burst of edges costs one signal at most. [`Notify::No`] loses nothing: the host looks for itself
    /// before it needs to know.
    ///
    /// # Errors
    ///
    /// [`IntcError::NotInnermost`]; [`IntcError::Table`] if the line's slot takes no more values.
    pub fn end(&mut self, line: u32) -> Result<Notify, IntcError> {
        let innermost = self.service.last().map(|(_, line)| *line);
        if innermost != Some(line) {
            return Err(IntcError::NotInnermost { line, innermost });
        }
        let mut ended = *self.line(line)?;
        ended.end();
        let (_, notify) = self.controls.publish(line, &ended.control())?;
        let is_for_a_level = ended.wire.asserted;
        self.put(line, ended);
        self.service.pop();
        Ok(if is_for_a_level || self.ready.len() == 0 {
            notify
        } else {
            Notify::No
        })
    }

    /// Raises an edge on `line`, at the other guests: a software interrupt.
    ///
    /// # Errors
    ///
    /// [`TableError`]; nothing was raised.
    pub fn raise(&mut self, line: u32) -> Result<Notify, TableError> {
        let notify = self.drive(line, |wire| wire.edges = wire.edges.wrapping_add(1))?;
        self.counters.raised += 1;
        Ok(notify)
    }

    /// Asserts the level of `line` at the other guests, or no longer: it is asserted at each of them as long as any other
    /// asserts it. Costs a comparison if it is as it should be already.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the level stays as it was.
    pub fn set_level(&mut self, line: u32, asserted: bool) -> Result<Notify, TableError> {
        if self.driven.get(line as usize).map(|wire| wire.asserted) == Some(asserted) {
            return Ok(Notify::No);
        }
        self.drive(line, |wire| wire.asserted = asserted)
    }

    fn drive(&mut self, line: u32, change: impl FnOnce(&mut Wire)) -> Result<Notify, TableError> {
        let slots = self.lines();
        let driven = self
            .driven
            .get_mut(line as usize)
            .ok_or(TableError::NoSuchSlot { slot: line, slots })?;
        let mut wire = *driven;
        change(&mut wire);
        let (_, notify) = self.requests.publish(line, &wire)?;
        *driven = wire;
        Ok(notify)
    }

    /// Goes on in other memory, after the host or the connection to it was restarted, and clears a fault. Masks,
    /// priorities, services and asserted levels are taken along. So are edges that the old host had raised and that were
    /// not delivered; whether it had passed on the last ones that *this* guest raised is not known.
    ///
    /// # Errors
    ///
    /// As for [`IntcDriver::new`]. The driver stays with the old memory, or, if a slot cannot be written, must be moved
    /// again.
    pub fn move_to(&mut self, windows: IntcWindows<W>) -> Result<Notify, TableError> {
        let lines = self.lines();
        let wires = Awaited::new(windows.wires);
        let controls = set_up(windows.controls, lines)?;
        let requests = set_up(windows.requests, lines)?;
        // The last look at what the old host had to say. A host that is not believed has nothing to say.
        let _ = self.poll();
        (self.wires, self.controls, self.requests) = (wires, controls, requests);
        self.fault = None;
        let mut notify = Notify::No;
        for line in 0..lines {
            let mut moved = *self.line(line)?;
            moved.change_hosts();
            self.put(line, moved);
            if moved.control() != Control::default() {
                let _ = self.controls.publish(line, &moved.control())?;
            }
            let Some(driven) = self.driven.get_mut(line as usize) else {
                continue;
            };
            driven.edges = 0;
            if driven.asserted {
                notify = notify.or(self.requests.publish(line, driven)?.1);
            }
        }
        Ok(notify)
    }
}

/// Takes in what the host says of a line.
fn adopt(
    ready: &mut ReadyLines,
    line: u32,
    stored: &mut Line,
    wire: Wire,
) -> Result<(), IntcFault> {
    let mut after = *stored;
    if !after.adopt(wire) {
        return Err(IntcFault::EdgesTakenBack {
            line,
            expected: stored.wire.edges,
            found: wire.edges,
        });
    }
    resort(ready, line, stored, &after);
    *stored = after;
    Ok(())
}

/// Moves a line to where it belongs.
fn resort(ready: &mut ReadyLines, line: u32, before: &Line, after: &Line) {
    let was = before.is_ready().then_some(before.priority);
    let is = after.is_ready().then_some(after.priority);
    if was == is {
        return;
    }
    if let Some(priority) = was {
        ready.remove(priority, line);
    }
    if let Some(priority) = is {
        ready.insert(priority, line);
    }
}
