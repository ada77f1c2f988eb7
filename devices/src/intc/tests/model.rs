//! Guests and a host against a controller written in the plainest way: none lost, none spurious, each in its order. Over
//! tables, and over the rings of the twins: there with all let through that waits for room before anything is compared.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::lane::tests::twins;

const LINES: u32 = 5;
const GUESTS: usize = 3;

/// A line at a guest.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    enabled: bool,
    priority: LinePriority,
    in_service: bool,
    from_host: bool,
    /// Edges raised, delivered and ended since the host began to count; and those of a host before that.
    raised: u64,
    delivered: u64,
    ended: u64,
    carried: u64,
    /// What the guest drives onto the line, and what of that the host has not seen.
    drives: bool,
    seen_to_drive: bool,
    edges_unseen: u64,
}

impl Line {
    fn edges(&self) -> u64 {
        self.raised - self.delivered + self.carried
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    HostRaises(usize, u32, u64),
    HostRaisesAtAll(u32, u64),
    HostLevel(usize, u32, bool),
    GuestRaises(usize, u32),
    GuestLevel(usize, u32, bool),
    Unmask(usize, u32, bool),
    Priority(usize, u32, u8),
    Poll(usize),
    Claim(usize),
    End(usize),
    EndAnother(usize, u32),
    /// The guest's signal reaches the host, which looks at so many lines at a time.
    Look(usize, usize),
    /// The guest resets its driver and starts anew, or its host has not heard of it and finds a new one.
    Reset {
        guest: usize,
        is_heard: bool,
    },
    /// The host is another one, with new memory.
    HostRestarts,
}

fn step() -> impl Strategy<Value = Step> {
    let line = || (0..GUESTS, 0..LINES);
    prop_oneof![
        4 => (line(), 1u64..4).prop_map(|((g, l), n)| Step::HostRaises(g, l, n)),
        1 => (0..LINES, 1u64..3).prop_map(|(l, n)| Step::HostRaisesAtAll(l, n)),
        4 => (line(), any::<bool>()).prop_map(|((g, l), up)| Step::HostLevel(g, l, up)),
        3 => line().prop_map(|(g, l)| Step::GuestRaises(g, l)),
        3 => (line(), any::<bool>()).prop_map(|((g, l), up)| Step::GuestLevel(g, l, up)),
        6 => (line(), prop::bool::weighted(0.8)).prop_map(|((g, l), on)| Step::Unmask(g, l, on)),
        3 => (line(), 0u8..4).prop_map(|((g, l), p)| Step::Priority(g, l, p)),
        1 => (0..GUESTS).prop_map(Step::Poll),
        10 => (0..GUESTS).prop_map(Step::Claim),
        6 => (0..GUESTS).prop_map(Step::End),
        1 => line().prop_map(|(g, l)| Step::EndAnother(g, l)),
        5 => (0..GUESTS, 1usize..4).prop_map(|(g, n)| Step::Look(g, n)),
        1 => (0..GUESTS, any::<bool>()).prop_map(|(guest, is_heard)| Step::Reset { guest, is_heard }),
        1 => Just(Step::HostRestarts),
    ]
}

struct Bus {
    carrier: Carrier,
    now_ns: u64,
    host: Lines<Mapped>,
    drivers: Vec<IntcDriver<Mapped>>,
    memories: Vec<IntcLanes<Mapped>>,
    lines: Vec<[Line; LINES as usize]>,
    services: Vec<Vec<(LinePriority, u32)>>,
}

impl Bus {
    fn new(carrier: Carrier) -> Self {
        let mut host = Lines::new(LINES);
        let guests = (0..GUESTS as u64).map(|id| guest_over(carrier, &mut host, id));
        let (drivers, memories) = guests.unzip();
        Self {
            carrier,
            now_ns: 1,
            host,
            drivers,
            memories,
            lines: vec![Default::default(); GUESTS],
            services: vec![Vec::new(); GUESTS],
        }
    }

    fn is_table(&self) -> bool {
        self.carrier == Carrier::Table
    }

    /// Tries again when the host has looked, as long as a ring is full of which every element counts.
    fn insist<T>(
        &mut self,
        guest: usize,
        mut call: impl FnMut(&mut IntcDriver<Mapped>) -> Result<T, IntcError>,
    ) -> T {
        loop {
            match call(&mut self.drivers[guest]) {
                Err(IntcError::Outlet(OutletError::Full)) => {
                    assert!(!self.is_table());
                    self.look(guest, 1);
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    fn line(&mut self, guest: usize, line: u32) -> &mut Line {
        &mut self.lines[guest][line as usize]
    }

    fn level(&self, guest: usize, line: u32) -> bool {
        let others = (0..GUESTS).filter(|other| *other != guest);
        let mut others = others.map(|other| self.lines[other][line as usize].seen_to_drive);
        self.lines[guest][line as usize].from_host || others.any(|drives| drives)
    }

    fn levels(&self) -> Vec<bool> {
        let all = (0..GUESTS).flat_map(|guest| (0..LINES).map(move |line| (guest, line)));
        all.map(|(guest, line)| self.level(guest, line)).collect()
    }

    fn step(&mut self, step: Step) {
        self.now_ns += 1;
        let now = self.now_ns;
        let id = |guest: usize| SessionId(guest as u64);
        match step {
            Step::HostRaises(guest, line, edges) => {
                let notify = self.host.raise(id(guest), line, edges, now);
                assert!(notify.is_needed() || !self.is_table());
                self.line(guest, line).raised += edges;
            }
            Step::HostRaisesAtAll(line, edges) => {
                let mut told = 0;
                self.host.raise_at_all(line, edges, now, |_, notify| {
                    told += usize::from(notify.is_needed());
                });
                assert!(told == GUESTS || !self.is_table());
                (0..GUESTS).for_each(|guest| self.line(guest, line).raised += edges);
            }
            Step::HostLevel(guest, line, up) => {
                let before = self.level(guest, line);
                self.line(guest, line).from_host = up;
                let notify = self.host.set_level(id(guest), line, up, now);
                if self.is_table() {
                    assert_eq!(notify.is_needed(), before != self.level(guest, line));
                }
            }
            Step::GuestRaises(guest, line) => {
                let notify = self.insist(guest, |driver| Ok(driver.raise(line)?));
                assert!(notify.is_needed() || !self.is_table());
                self.line(guest, line).edges_unseen += 1;
            }
            Step::GuestLevel(guest, line, up) => {
                let notify = self.insist(guest, |driver| Ok(driver.set_level(line, up)?));
                let before = std::mem::replace(&mut self.line(guest, line).drives, up);
                if self.is_table() {
                    assert_eq!(notify.is_needed(), before != up);
                }
            }
            Step::Unmask(guest, line, on) => {
                self.insist(guest, |driver| {
                    if on {
                        Ok(driver.unmask(line)?)
                    } else {
                        Ok(driver.mask(line)?)
                    }
                });
                self.line(guest, line).enabled = on;
            }
            Step::Priority(guest, line, number) => {
                let priority = priority(number);
                self.insist(guest, |driver| Ok(driver.set_priority(line, priority)?));
                self.line(guest, line).priority = priority;
            }
            Step::Poll(guest) => self.poll(guest),
            Step::Claim(guest) => {
                self.claim(guest);
            }
            Step::End(guest) => {
                if let Some((_, line)) = self.services[guest].last().copied() {
                    self.end(guest, line);
                }
            }
            Step::EndAnother(guest, line) => {
                let innermost = self.services[guest].last().map(|(_, line)| *line);
                if innermost != Some(line) {
                    let outcome = self.drivers[guest].end(line);
                    assert_eq!(outcome, Err(IntcError::NotInnermost { line, innermost }));
                }
            }
            Step::Look(guest, limit) => self.look(guest, limit),
            Step::Reset { guest, is_heard } => self.reset(guest, is_heard),
            Step::HostRestarts => self.restart_host(),
        }
    }

    fn poll(&mut self, guest: usize) {
        self.let_through(guest);
        let _ = self.drivers[guest].poll().unwrap();
        for line in 0..LINES {
            let (edges, level) = (self.line(guest, line).edges(), self.level(guest, line));
            let driver = &self.drivers[guest];
            assert_eq!(driver.is_pending(line), edges > 0 || level);
            assert_eq!(driver.is_asserted(line), level);
        }
    }

    /// The plain controller: looks at every line, takes the best.
    fn expected(&self, guest: usize) -> Option<(LinePriority, u32)> {
        let ready = (0..LINES).filter(|number| {
            let line = &self.lines[guest][*number as usize];
            let is_pending = line.edges() > 0 || self.level(guest, *number);
            line.enabled && !line.in_service && is_pending
        });
        let best = ready.map(|number| (self.lines[guest][number as usize].priority, number));
        let running = self.services[guest].last().map(|(running, _)| *running);
        best.min()
            .filter(|(priority, _)| running.is_none_or(|running| *priority < running))
    }

    /// Returns whether there was something to deliver.
    fn claim(&mut self, guest: usize) -> bool {
        self.let_through(guest);
        let expected = self.expected(guest);
        let delivered = self.insist(guest, IntcDriver::claim);
        let Some(delivery) = delivered else {
            assert_eq!(expected, None, "an interrupt was lost");
            return false;
        };
        let asserted = self.level(guest, delivery.line);
        let now_ns = self.now_ns;
        assert_eq!(expected, Some((delivery.priority, delivery.line)));
        let line = self.line(guest, delivery.line);
        assert_eq!(
            (delivery.edges, delivery.asserted),
            (line.edges(), asserted)
        );
        assert!(delivery.raised_ns <= now_ns);
        (line.delivered, line.carried, line.in_service) = (line.raised, 0, true);
        self.services[guest].push((delivery.priority, delivery.line));
        true
    }

    fn end(&mut self, guest: usize, line: u32) {
        let notify = self.insist(guest, |driver| driver.end(line));
        self.services[guest].pop();
        let ended = self.line(guest, line);
        (ended.ended, ended.in_service) = (ended.delivered, false);
        if self.drivers[guest].ready() == 0 && self.is_table() {
            assert!(notify.is_needed(), "the last of a burst is told");
        }
    }

    /// The host hears of everything that the guest said, and those hear of it whom it concerns.
    fn look(&mut self, guest: usize, limit: usize) {
        if !self.is_table() {
            self.exchange(guest, limit);
            self.take_requests(guest);
            return;
        }
        let before = self.levels();
        let mut told = BTreeSet::new();
        while self.host.look(
            SessionId(guest as u64),
            self.now_ns,
            limit,
            |other, notify| {
                if notify.is_needed() {
                    told.insert(other.0 as usize);
                }
            },
        ) {}
        let mut expected = self.take_requests(guest);
        expected.extend(self.turned_since(&before));
        assert_eq!(told, expected);
    }

    /// Over rings: what the host and a guest have for each other and is waiting for room gets to the other side. Each
    /// signals as it says, which is all that keeps them going.
    fn exchange(&mut self, guest: usize, limit: usize) {
        let (id, now_ns) = (SessionId(guest as u64), self.now_ns);
        // The first round answers signals of before.
        for round in 0..1_000 {
            let mut signals = self.drivers[guest].poll().unwrap();
            let mut tell = |other, notify| {
                if other == id {
                    signals = signals.or(notify);
                }
            };
            while self.host.look(id, now_ns, limit, &mut tell) {}
            if round > 0 && !signals.is_needed() {
                assert_eq!(self.drivers[guest].waiting(), 0, "nobody would be told");
                return;
            }
        }
        panic!("they go on and on");
    }

    /// A ring may be full of what was there before.
    fn let_through(&mut self, guest: usize) {
        if !self.is_table() {
            self.look(guest, 3);
        }
    }

    fn take_requests(&mut self, guest: usize) -> BTreeSet<usize> {
        let mut concerned = BTreeSet::new();
        for number in 0..LINES {
            let line = self.line(guest, number);
            line.seen_to_drive = line.drives;
            let edges = std::mem::take(&mut line.edges_unseen);
            for other in (0..GUESTS).filter(|other| *other != guest && edges > 0) {
                self.line(other, number).raised += edges;
                concerned.insert(other);
            }
        }
        concerned
    }

    /// The guests at which a level is another than before.
    fn turned_since(&self, before: &[bool]) -> BTreeSet<usize> {
        let turned = before.iter().zip(self.levels()).enumerate();
        let turned = turned.filter(|(_, (before, now))| **before != *now);
        turned.map(|(index, _)| index / LINES as usize).collect()
    }

    fn reset(&mut self, guest: usize, is_heard: bool) {
        let id = SessionId(guest as u64);
        // A ring is begun anew by a reset of the device; a table's next epoch is enough.
        if is_heard || !self.is_table() {
            self.let_through(guest);
            // The last look is at the old driver's tables.
            self.host.reset_guest(id, self.now_ns, nobody);
            self.take_requests(guest);
        } else {
            // What the host has not seen by now is gone with the tables that it was in.
            self.look(guest, 3);
        }
        let lanes = self.memories[guest].clone();
        self.drivers[guest] = IntcDriver::new(lanes.clone(), LINES).unwrap();
        if self.is_table() {
            let claimed = self.drivers[guest].claim();
            assert_eq!(claimed, Ok(None), "something of an earlier life");
        }
        self.host.add_guest(id, lanes, self.now_ns, nobody).unwrap();
        self.services[guest].clear();
        for line in &mut self.lines[guest] {
            *line = Line {
                from_host: line.from_host,
                raised: line.raised - line.ended,
                ..Line::default()
            };
        }
    }

    fn restart_host(&mut self) {
        // What one says to another goes two ways.
        (0..2 * GUESTS).for_each(|guest| self.let_through(guest % GUESTS));
        let carrier = self.carrier;
        self.host = Lines::new(LINES);
        let anew = |_| IntcLanes::on_heap(carrier, LINES).unwrap();
        self.memories = (0..GUESTS).map(anew).collect();
        for (guest, memory) in self.memories.iter().enumerate() {
            let notify = self.drivers[guest].move_to(memory.clone()).unwrap();
            let drives = self.lines[guest].iter().any(|line| line.drives);
            if carrier == Carrier::Table {
                assert_eq!(notify.is_needed(), drives);
            }
            let id = SessionId(guest as u64);
            self.host
                .add_guest(id, memory.clone(), self.now_ns, nobody)
                .unwrap();
        }
        for line in self.lines.iter_mut().flatten() {
            line.carried = line.edges();
            (line.raised, line.delivered, line.ended) = (0, 0, 0);
            (line.from_host, line.seen_to_drive, line.edges_unseen) = (false, false, 0);
        }
    }

    /// Every signal arrives, levels fall, and all that is left is delivered.
    fn settle(&mut self) {
        for guest in 0..GUESTS {
            while let Some((_, line)) = self.services[guest].last().copied() {
                self.end(guest, line);
            }
            for line in 0..LINES {
                self.step(Step::HostLevel(guest, line, false));
                self.step(Step::GuestLevel(guest, line, false));
                self.step(Step::Unmask(guest, line, true));
            }
        }
        (0..GUESTS).for_each(|guest| self.look(guest, 2));
        for guest in 0..GUESTS {
            while self.claim(guest) {
                let (_, line) = self.services[guest].last().copied().unwrap();
                self.end(guest, line);
            }
            self.look(guest, 2);
            let left: u64 = self.lines[guest].iter().map(|line| line.edges()).sum();
            assert_eq!(left, 0, "edges were lost");
        }
        assert_eq!(self.host.take_fault(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 3 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_do_what_the_model_does(
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 20 } else { 250 }),
        twin in 0..twins().len(),
    ) {
        for carrier in [Carrier::Table, twins()[twin]] {
            let mut bus = Bus::new(carrier);
            steps.iter().for_each(|step| bus.step(*step));
            bus.settle();
            for driver in &bus.drivers {
                let counters = driver.counters();
                prop_assert!(counters.coalesced <= counters.edges);
            }
        }
    }
}
