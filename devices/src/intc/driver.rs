//! The guest's side: what is raised is sorted, delivered, and ended.

use core::ops::ControlFlow;

use shmbus_shm::{Notify, Window};
use shmbus_table::Epoch;

use super::error::{IntcError, IntcFault, IntcMoveError};
use super::line::Line;
use super::ready::ReadyLines;
use super::{Control, IntcLanes, LinePriority, Wire};
use crate::lane::{Inlet, LaneError, Outlet, OutletError};

/// How often a call looks whether there is more in a ring, while it finds nothing to deliver. A round takes as much as the ring
/// holds. Over a table there is one.
pub(super) const MOST_ROUNDS: u32 = 1 << 16;

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

/// The guest's side of an interrupt controller, for one virtual CPU: one that takes interrupts nested, not side by side.
///
/// All arbitration happens here, in private memory: the host says what is on each line, and this driver sorts. It keeps
/// no queue. A line is delivered at most once at a time, for everything that came up to that moment. What comes after
/// that moment is delivered when the service has ended. [`claim`](Self::claim) allocates nothing.
#[derive(Debug)]
pub struct IntcDriver<W: Window> {
    wires: Inlet<Wire, W>,
    /// Which life of the host's the wires are of: numbers of two lives must not meet.
    life: Option<Epoch>,
    controls: Outlet<Control, W>,
    requests: Outlet<Wire, W>,
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

impl<W: Window> IntcDriver<W> {
    /// `lines` lines that are all masked: sets up the guest's part of `lanes`. The host sets up its own when it is told that
    /// the driver is ready; what is in its tables before is an earlier life's. Over rings nothing may be taken in before.
    ///
    /// # Errors
    ///
    /// [`LaneError`]: the guest's memory does not hold so many lines.
    pub fn new(lanes: IntcLanes<W>, lines: u32) -> Result<Self, LaneError> {
        Ok(Self {
            wires: Inlet::at_guest(lanes.wires, lines)?,
            life: None,
            controls: Outlet::at_guest(lanes.controls, lines)?,
            requests: Outlet::at_guest(lanes.requests, lines)?,
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

    /// How many values wait for room in a ring: the host does not know of them yet.
    pub fn waiting(&self) -> usize {
        self.controls.waiting() + self.requests.waiting()
    }

    fn line(&self, line: u32) -> Result<&Line, OutletError> {
        let slots = self.lines();
        self.lines
            .get(line as usize)
            .ok_or(OutletError::NoSuchSlot { slot: line, slots })
    }

    /// Lets `line` be delivered. If it was pending while it was masked, it is now: claim.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; the line stays as it was.
    pub fn unmask(&mut self, line: u32) -> Result<(), OutletError> {
        self.change(line, |line| line.enabled = true)
    }

    /// Holds `line` back. What comes while it is masked is delivered when it no longer is. A service that has begun goes on.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; the line stays as it was.
    pub fn mask(&mut self, line: u32) -> Result<(), OutletError> {
        self.change(line, |line| line.enabled = false)
    }

    /// Gives `line` another priority. One that is in service keeps that which it was delivered with until it is ended.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; the line stays as it was.
    pub fn set_priority(&mut self, line: u32, priority: LinePriority) -> Result<(), OutletError> {
        self.change(line, |line| line.priority = priority)
    }

    /// Changes a line, and tells the host. It acts upon none of this, so nobody is signalled for it.
    fn change(&mut self, line: u32, change: impl FnOnce(&mut Line)) -> Result<(), OutletError> {
        let before = *self.line(line)?;
        let mut after = before;
        change(&mut after);
        if after.control() != before.control() {
            let _ = self.controls.place_silently(line, after.control())?;
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

    /// Takes in what changed on the lines; one load if nothing did. [`claim`](Self::claim) does it too. Says whether to tell
    /// the host: of buffers that were lent to it again, and of what it has not been shown yet. Over tables there are none;
    /// over rings this is to be called before waiting for the host.
    ///
    /// # Errors
    ///
    /// [`IntcFault`], from then on: the device is not believed any more.
    pub fn poll(&mut self) -> Result<Notify, IntcFault> {
        // Until there is no more: only then does the host tell of what comes next.
        for _ in 0..MOST_ROUNDS {
            if !self.believed(Self::take_in)? {
                return self.believed(|driver| Ok(driver.flush()?));
            }
        }
        self.believed(|_| Err(IntcFault::Flood))
    }

    /// Deals with the device, unless it broke the rules before; notes it if it does now.
    fn believed<T>(
        &mut self,
        deal: impl FnOnce(&mut Self) -> Result<T, IntcFault>,
    ) -> Result<T, IntcFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        deal(self).inspect_err(|fault| self.fault = Some(*fault))
    }

    /// Takes in what is there when the call begins. Returns whether there may be more.
    fn take_in(&mut self) -> Result<bool, IntcFault> {
        let Self {
            wires,
            life,
            lines,
            ready,
            ..
        } = self;
        let mut outcome = Ok(());
        let more = wires.take(usize::MAX, |line, wire, generation| {
            let Some(stored) = lines.get_mut(line as usize) else {
                return ControlFlow::Continue(());
            };
            outcome = same_life(line, life, generation.epoch())
                .and_then(|()| adopt(ready, line, stored, wire));
            match outcome {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        outcome.map(|()| more)
    }

    fn flush(&mut self) -> Result<Notify, OutletError> {
        let returned = self.wires.flush();
        let told = self.controls.flush()?.or(self.requests.flush()?);
        Ok(told.or(returned))
    }

    /// Delivers the most urgent line that is pending; of several, that with the lowest number. None if nothing is pending
    /// that is more urgent than what is in service.
    ///
    /// All that was raised when the call began is considered, and a level that was withdrawn by then is not delivered; over
    /// rings as far as they had room for it. The work is bounded by the number of lines, whatever the host does: each is
    /// looked at twice at most. Over a ring it is bounded by what that holds, or, as long as nothing is to be delivered, by
    /// 65,536 times as much.
    ///
    /// # Errors
    ///
    /// [`IntcError::Fault`], from then on; [`IntcError::Outlet`], and the line is pending as before.
    pub fn claim(&mut self) -> Result<Option<Delivery>, IntcError> {
        for _ in 0..MOST_ROUNDS {
            let more = self.believed(Self::take_in)?;
            let delivery = self.deliver()?;
            // Who hears that there is nothing waits. So there must be nothing, or else the host does not tell of more.
            if delivery.is_some() || !more {
                return Ok(delivery);
            }
        }
        Ok(self.believed(|_| Err(IntcFault::Flood))?)
    }

    /// Delivers the most urgent line of those that were taken in.
    fn deliver(&mut self) -> Result<Option<Delivery>, IntcError> {
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
            self.believed(|driver| driver.look_again(line))?;
            let mut claimed = *self.line(line)?;
            if !claimed.is_ready() {
                self.counters.withdrawn += 1;
                continue;
            }
            let cause = claimed.claim();
            let _ = self.controls.place_silently(line, claimed.control())?;
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

    /// Takes in what a line's state is now: its level may have been withdrawn since it was taken in. A ring has no more to
    /// say of a line than was just taken out of it.
    fn look_again(&mut self, line: u32) -> Result<(), IntcFault> {
        if !matches!(self.wires, Inlet::Table(_)) {
            return Ok(());
        }
        let mut newest = None;
        self.wires.catch_up(line, |_, wire, generation| {
            newest = Some((wire, generation.epoch()));
            ControlFlow::Continue(())
        })?;
        if let Some((_, found)) = newest {
            same_life(line, &mut self.life, found)?;
        }
        let Some(stored) = self.lines.get_mut(line as usize) else {
            return Ok(());
        };
        let wire = newest.map(|(wire, _)| wire).unwrap_or(Wire {
            // The host goes on writing it, so that what it writes last is reported as a change again. Until then the
            // edges stand, and the level is not to be relied on.
            asserted: false,
            ..stored.wire
        });
        adopt(&mut self.ready, line, stored, wire)
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
    /// [`IntcError::NotInnermost`]; [`IntcError::Outlet`], and the line stays in service if it still is among
    /// [`in_service`](Self::in_service).
    pub fn end(&mut self, line: u32) -> Result<Notify, IntcError> {
        let innermost = self.service.last().map(|(_, line)| *line);
        if innermost != Some(line) {
            return Err(IntcError::NotInnermost { line, innermost });
        }
        let mut ended = *self.line(line)?;
        ended.end();
        let is_to_be_told = ended.wire.asserted || (self.ready.len() == 0 && !ended.is_ready());
        let _ = if is_to_be_told {
            self.controls.place(line, ended.control())?
        } else {
            self.controls.place_silently(line, ended.control())?
        };
        self.put(line, ended);
        self.service.pop();
        if is_to_be_told {
            Ok(self.flush()?)
        } else {
            Ok(Notify::No)
        }
    }

    /// Raises an edge on `line`, at the other guests: a software interrupt.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; nothing was raised.
    pub fn raise(&mut self, line: u32) -> Result<Notify, OutletError> {
        let notify = self.drive(line, |wire| wire.edges = wire.edges.wrapping_add(1))?;
        self.counters.raised += 1;
        Ok(notify)
    }

    /// Asserts the level of `line` at the other guests, or no longer: it is asserted at each of them as long as any other
    /// asserts it. Costs a comparison if it is as it should be already.
    ///
    /// # Errors
    ///
    /// [`OutletError`]; the level stays as it was.
    pub fn set_level(&mut self, line: u32, asserted: bool) -> Result<Notify, OutletError> {
        if self.driven.get(line as usize).map(|wire| wire.asserted) == Some(asserted) {
            return Ok(Notify::No);
        }
        self.drive(line, |wire| wire.asserted = asserted)
    }

    fn drive(&mut self, line: u32, change: impl FnOnce(&mut Wire)) -> Result<Notify, OutletError> {
        let slots = self.lines();
        let driven = self
            .driven
            .get_mut(line as usize)
            .ok_or(OutletError::NoSuchSlot { slot: line, slots })?;
        let mut wire = *driven;
        change(&mut wire);
        let _ = self.requests.place(line, wire)?;
        *driven = wire;
        self.requests.flush()
    }

    /// Goes on over other lanes, after the host or the connection to it was restarted, and clears a fault. Masks,
    /// priorities, services and asserted levels are taken along. So are edges that the old host had raised and that were
    /// not delivered; whether it had passed on the last ones that *this* guest raised is not known.
    ///
    /// # Errors
    ///
    /// As for [`IntcDriver::new`]. The driver stays with the old lanes, or, if a line cannot be told, must be moved again.
    pub fn move_to(&mut self, lanes: IntcLanes<W>) -> Result<Notify, IntcMoveError> {
        let lines = self.lines();
        // The last look at what the old host had to say. A host that is not believed has nothing to say.
        let _ = self.poll();
        let moved = Self::new(lanes, lines)?;
        (self.wires, self.controls, self.requests) = (moved.wires, moved.controls, moved.requests);
        (self.life, self.fault) = (None, None);
        let is_over_tables = matches!(self.controls, Outlet::Table(_));
        for line in 0..lines {
            let mut moved = *self.line(line)?;
            moved.change_hosts();
            self.put(line, moved);
            let control = moved.control();
            if control != Control::default() && is_over_tables {
                let _ = self.controls.place_silently(line, control)?;
            } else if control != Control::default() {
                let _ = self.controls.keep(line, control)?;
            }
            let Some(driven) = self.driven.get_mut(line as usize) else {
                continue;
            };
            driven.edges = 0;
            if driven.asserted {
                let _ = self.requests.keep(line, *driven)?;
            }
        }
        Ok(self.flush()?)
    }
}

/// Whether what is read now is of the life of which all was that was read before.
fn same_life(line: u32, life: &mut Option<Epoch>, found: Epoch) -> Result<(), IntcFault> {
    let expected = *life.get_or_insert(found);
    if found == expected {
        Ok(())
    } else {
        Err(IntcFault::BegunAnew {
            line,
            expected,
            found,
        })
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
