use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::test_port::TestPort;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn frame(destination: MacAddress, source: MacAddress) -> Vec<u8> {
    [&destination.0[..], &source.0[..], &[0x88, 0xb5], b"payload"].concat()
}

/// A switch port's near end is the switch's, its far end is returned.
fn attach(switch: &mut Switch<TestPort>, sources: Sources) -> (PortId, TestPort) {
    let (near, far) = TestPort::pair(4);
    (switch.attach(near, sources).unwrap(), far)
}

#[test]
fn frames_go_where_their_destination_was_seen() {
    let mut switch = Switch::new(SwitchLimits::default());
    let [a, b, c] = [1, 2, 3].map(MacAddress::local);
    let (id_a, port_a) = attach(&mut switch, Sources::Only(a));
    let (_, port_b) = attach(&mut switch, Sources::Only(b));
    let (id_c, port_c) = attach(&mut switch, Sources::Learned { at_most: 4 });

    port_a.put(&frame(b, a));
    port_a.put(&frame(c, a)); // not known yet
    port_a.put(&frame(MacAddress::BROADCAST, a));
    port_a.put(&frame(a, a)); // to itself: already there
    port_a.put(&frame(b, c)); // not its address
    port_a.put(b"runt");
    assert_eq!(
        switch.poll(id_a, 100, SECOND),
        Polled {
            frames: 6,
            more: false
        }
    );
    assert_eq!(
        (
            port_b.incoming.borrow().len(),
            port_c.incoming.borrow().len()
        ),
        (3, 2)
    );
    assert!(port_a.take().is_none());

    port_c.put(&frame(a, c));
    switch.poll(id_c, 100, SECOND);
    assert_eq!(port_a.take(), Some(frame(a, c)));
    port_a.put(&frame(c, a)); // now it is
    switch.poll(id_a, 100, SECOND);
    assert_eq!(
        (
            port_b.incoming.borrow().len(),
            port_c.incoming.borrow().len()
        ),
        (3, 3)
    );

    let counters = switch.counters(id_a).unwrap();
    assert_eq!((counters.received_frames, counters.sent_frames), (7, 1));
    assert_eq!(
        (counters.dropped_spoofed, counters.dropped_malformed),
        (1, 1)
    );
    let twice = counters + counters;
    assert_eq!((twice.received_frames, twice.sent_frames), (14, 2));
    assert_eq!(twice.dropped(), 2 * counters.dropped());
}

#[test]
fn a_port_that_is_full_or_broken_hurts_only_itself() {
    let mut switch = Switch::new(SwitchLimits::default());
    let [a, b, c] = [1, 2, 3].map(MacAddress::local);
    let (id_a, port_a) = attach(&mut switch, Sources::Only(a));
    let (id_b, port_b) = attach(&mut switch, Sources::Only(b));
    let (id_c, port_c) = attach(&mut switch, Sources::Only(c));
    *port_b.broken.borrow_mut() = true;
    for _ in 0..6 {
        port_a.put(&frame(MacAddress::BROADCAST, a));
    }
    assert_eq!(
        switch.poll(id_a, 5, SECOND),
        Polled {
            frames: 5,
            more: true
        }
    );
    let (id, error) = switch.next_fault().unwrap();
    assert_eq!(
        (id, error.to_string()),
        (id_b, "the TAP interface test failed: broken".to_owned())
    );
    assert!(switch.next_fault().is_none());
    assert_eq!(switch.counters(id_b).unwrap().dropped_full, 5);
    assert_eq!(switch.counters(id_c).unwrap().dropped_full, 1);
    assert_eq!(port_c.incoming.borrow().len(), 4);

    *port_b.broken.borrow_mut() = false;
    assert_eq!(switch.poll(id_b, 5, SECOND), Polled::default());
    switch.revive(id_b);
    switch.poll(id_a, 5, SECOND);
    assert_eq!(port_b.incoming.borrow().len(), 1);
}

#[test]
fn a_partial_checksum_is_finished_for_who_cannot() {
    let mut switch = Switch::new(SwitchLimits::default());
    let [a, b] = [1, 2].map(MacAddress::local);
    let (id_a, port_a) = attach(&mut switch, Sources::Only(a));
    let (mut near, far) = TestPort::pair(4);
    near.partial = true;
    switch.attach(near, Sources::Only(b)).unwrap();
    let (_, plain) = attach(&mut switch, Sources::Learned { at_most: 1 });

    let partial = Checksum::Partial {
        start: 14,
        offset: 5,
    };
    let bytes = frame(b, a);
    port_a
        .outgoing
        .borrow_mut()
        .push_back((bytes.clone(), partial));
    port_a
        .outgoing
        .borrow_mut()
        .push_back((frame(MacAddress::BROADCAST, a), partial));
    switch.poll(id_a, 2, SECOND);

    assert_eq!(
        far.incoming.borrow_mut().pop_front(),
        Some((bytes, partial))
    );
    let (finished, checksum) = plain.incoming.borrow_mut().pop_front().unwrap();
    assert_eq!(checksum, Checksum::Verified);
    assert_ne!(finished, frame(MacAddress::BROADCAST, a));
}

#[test]
fn who_may_attach_is_checked() {
    let mut switch = Switch::new(SwitchLimits {
        ports: 2,
        ..SwitchLimits::default()
    });
    let own = MacAddress::local(1);
    let group = Sources::Only(MacAddress::BROADCAST);
    let refused = switch.attach(TestPort::default(), group);
    assert_eq!(
        refused,
        Err(AttachError::NotAStation(MacAddress::BROADCAST))
    );
    let (id, _) = attach(&mut switch, Sources::Only(own));
    let refused = switch.attach(TestPort::default(), Sources::Only(own));
    assert_eq!(
        refused,
        Err(AttachError::AddressTaken(AddressTaken { address: own }))
    );
    attach(&mut switch, Sources::Learned { at_most: 1 });
    let refused = switch.attach(TestPort::default(), Sources::Learned { at_most: 1 });
    assert_eq!(refused, Err(AttachError::NoPortLeft(2)));
    assert!(switch.detach(id).is_some());
    assert!(switch.detach(id).is_none());
    attach(&mut switch, Sources::Only(own));
}

/// What may happen to a switch.
#[derive(Clone, Debug)]
enum Step {
    Attach {
        owned: Option<u32>,
    },
    Detach {
        port: usize,
    },
    Frame {
        port: usize,
        destination: u32,
        source: u32,
    },
    Wait {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop::option::of(0_u32..6).prop_map(|owned| Step::Attach { owned }),
        1 => (0_usize..6).prop_map(|port| Step::Detach { port }),
        12 => (0_usize..6, 0_u32..8, 0_u32..8)
            .prop_map(|(port, destination, source)| Step::Frame { port, destination, source }),
        3 => (0_u64..5).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// Address number 7 is everybody's.
fn address(number: u32) -> MacAddress {
    if number == 7 {
        MacAddress::BROADCAST
    } else {
        MacAddress::local(number)
    }
}

const AGEING: u64 = 6;
const HOLD: u64 = 2;
const AT_MOST: usize = 2;

/// The rules, written down as plainly as possible.
#[derive(Default)]
struct Model {
    /// Of each port: the address it owns.
    ports: BTreeMap<usize, Option<u32>>,
    /// What was learned, oldest first: address, port, since, seen.
    learned: Vec<(u32, usize, u64, u64)>,
}

impl Model {
    fn owner(&self, address: u32) -> Option<usize> {
        self.ports
            .iter()
            .find(|(_, owned)| **owned == Some(address))
            .map(|(port, _)| *port)
    }

    fn forward(&mut self, port: usize, destination: u32, source: u32, now: u64) -> Vec<usize> {
        match self.ports[&port] {
            Some(own) if own != source => return Vec::new(),
            Some(_) => {}
            None if source == 7 || self.owner(source).is_some() => return Vec::new(),
            None => self.learn(port, source, now),
        }
        let known = self.owner(destination).or_else(|| {
            let fresh = self
                .learned
                .iter()
                .find(|(a, _, _, seen)| *a == destination && now - seen < AGEING);
            fresh.map(|(_, port, _, _)| *port)
        });
        let others = || {
            self.ports
                .keys()
                .copied()
                .filter(|to| *to != port)
                .collect()
        };
        match known {
            Some(to) if destination != 7 => [to].into_iter().filter(|to| *to != port).collect(),
            _ => others(),
        }
    }

    fn learn(&mut self, port: usize, source: u32, now: u64) {
        if let Some(known) = self.learned.iter_mut().find(|(a, ..)| *a == source) {
            if known.1 == port {
                known.3 = now;
                return;
            }
            if now - known.3 < AGEING && now - known.2 < HOLD {
                return;
            }
            self.learned.retain(|(a, ..)| *a != source);
        }
        self.learned.push((source, port, now, now));
        // Each port has its own bound; its oldest goes.
        if self.learned.iter().filter(|(_, p, ..)| *p == port).count() > AT_MOST {
            let oldest = self
                .learned
                .iter()
                .position(|(_, p, ..)| *p == port)
                .unwrap();
            self.learned.remove(oldest);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_does_what_the_rules_say(steps in prop::collection::vec(step(), 1..80)) {
        let mut switch = Switch::new(SwitchLimits {
            ports: 6,
            times: LearningTimes { ageing: Duration::from_secs(AGEING), hold: Duration::from_secs(HOLD) },
            ..SwitchLimits::default()
        });
        let mut model = Model::default();
        let mut ends: BTreeMap<usize, TestPort> = BTreeMap::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Attach { owned } => {
                    let (near, far) = TestPort::pair(100);
                    let sources = match owned {
                        Some(number) => Sources::Only(address(number)),
                        None => Sources::Learned { at_most: AT_MOST as u16 },
                    };
                    match switch.attach(near, sources) {
                        Ok(id) => {
                            model.ports.insert(id.index(), owned);
                            model.learned.retain(|(a, ..)| Some(*a) != owned);
                            ends.insert(id.index(), far);
                        }
                        Err(AttachError::AddressTaken(_)) => {
                            prop_assert!(model.owner(owned.unwrap()).is_some());
                        }
                        Err(error) => prop_assert_eq!((error, ends.len()), (AttachError::NoPortLeft(6), 6)),
                    }
                }
                Step::Detach { port } => {
                    let was = model.ports.remove(&port).is_some();
                    model.learned.retain(|(_, p, ..)| *p != port);
                    ends.remove(&port);
                    prop_assert_eq!(switch.detach(PortId(port)).is_some(), was);
                }
                Step::Frame { port, destination, source } => {
                    let Some(end) = ends.get(&port) else { continue };
                    end.put(&frame(address(destination), address(source)));
                    switch.poll(PortId(port), 1, Duration::from_secs(now));
                    let expected = model.forward(port, destination, source, now);
                    let got: Vec<usize> = ends.iter().filter(|(_, end)| end.take().is_some()).map(|(id, _)| *id).collect();
                    prop_assert_eq!(got, expected);
                }
                Step::Wait { seconds } => now += seconds,
            }
        }
    }
}
