//! Either side writes what it likes, and harms itself alone.

use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use shmbus_shm::{Field, Window};
use shmbus_table::{Epoch, InvalidValue, TypedWriter, Value};

use super::*;
use crate::lane::tests::twins;
use crate::lane::{Inlet, InletError, Outlet};

/// Any words, for a peer that writes what it likes; of the type and the length of `V`.
struct Words<V>(Vec<u64>, std::marker::PhantomData<V>);

impl<V: Value> Words<V> {
    fn of(words: &[u64]) -> Self {
        Self(words.to_vec(), std::marker::PhantomData)
    }
}

impl<V: Value> Value for Words<V> {
    const TYPE_ID: u32 = V::TYPE_ID;
    const WORDS: usize = V::WORDS;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&self.0);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        Ok(Self::of(words))
    }
}

fn liar<V: Value>(window: &Mapped, epoch: u16) -> TypedWriter<Words<V>, Mapped, Vec<u64>> {
    let epoch = Epoch::new(epoch).unwrap();
    TypedWriter::create(window.clone(), 2, epoch, vec![0; 2]).unwrap()
}

fn says<V: Value>(table: &mut TypedWriter<Words<V>, Mapped, Vec<u64>>, line: u32, words: &[u64]) {
    let _ = table.publish(line, &Words::of(words)).unwrap();
}

/// A guest whose tables say these words of line 1, beside an honest one.
fn fault_of(control: Option<&[u64]>, request: Option<&[u64]>) -> Option<GuestFault> {
    let mut host = Lines::new(2);
    let (mut honest, _) = guest(&mut host, 0);
    honest.unmask(0).unwrap();
    let lanes = tables(2);
    let mut controls = liar::<Control>(memory(&lanes.controls), 1);
    let mut requests = liar::<Wire>(memory(&lanes.requests), 1);
    host.add_guest(SessionId(1), lanes, 0, nobody).unwrap();
    let _ = host.raise(SessionId(1), 1, 5, 0);
    // Before it lies, it asserts a level.
    says(&mut requests, 0, &[1, 0, 0]);
    host.look(SessionId(1), 0, 10, nobody);
    let _ = honest.poll().unwrap();
    assert!(honest.is_asserted(0));

    if let Some(words) = control {
        says(&mut controls, 1, words);
    }
    if let Some(words) = request {
        says(&mut requests, 1, words);
    }
    host.look(SessionId(1), 0, 10, nobody);
    let (guest, fault) = host.take_fault()?;
    assert_eq!(guest, SessionId(1));
    // Latched: it is neither listened to nor told, and its levels fall.
    let told = host.counters().told;
    says(&mut requests, 1, &[1, 9, 9]);
    host.look(SessionId(1), 0, 10, nobody);
    let _ = host.raise(SessionId(1), 1, 1, 0);
    assert_eq!((host.take_fault(), host.counters().told), (None, told));
    let _ = honest.poll().unwrap();
    assert!(!honest.is_asserted(0) && !honest.is_pending(1));
    let _ = host.raise(SessionId(0), 0, 1, 0);
    assert!(honest.claim().unwrap().is_some());
    Some(fault)
}

#[test]
fn a_guest_that_breaks_the_rules_is_cut_off_alone() {
    use GuestFault::{FalseAcknowledgement, FalseEdges, Unreadable};
    // Five edges were raised.
    assert_eq!(fault_of(Some(&[1, 5, 5, 1]), Some(&[1, 3, 0])), None);
    for acknowledgement in [[6, 0], [6, 6], [5, 6], [3, 4], [u64::MAX, 0], [0, u64::MAX]] {
        let [claimed, ended] = acknowledgement;
        let fault = fault_of(Some(&[1, claimed, ended, 0]), None);
        let expected = FalseAcknowledgement {
            line: 1,
            raised: 5,
            expected_after: 0,
            claimed,
            ended,
        };
        assert_eq!(fault, Some(expected));
    }
    let unreadable = |fault| matches!(fault, Some(Unreadable(InletError::Slot { slot: 1, .. })));
    assert!(unreadable(fault_of(Some(&[77 << 8, 0, 0, 0]), None)));
    assert!(unreadable(fault_of(None, Some(&[2, 0, 0]))));
    for edges in [u64::MAX, 1 << 63, (1 << 32) + 1] {
        let fault = fault_of(None, Some(&[0, edges, 0]));
        let expected = FalseEdges {
            line: 1,
            expected_after: 0,
            found: edges,
        };
        assert_eq!(fault, Some(expected));
    }
}

#[test]
fn a_guest_that_was_cut_off_may_begin_anew() {
    let mut host = Lines::new(2);
    let lanes = tables(2);
    let mut controls = liar::<Control>(memory(&lanes.controls), 1);
    drop(liar::<Wire>(memory(&lanes.requests), 1));
    host.add_guest(SessionId(1), lanes.clone(), 0, nobody)
        .unwrap();
    let _ = host.raise(SessionId(1), 0, 2, 0);
    says(&mut controls, 0, &[1, 3, 3, 0]);
    host.look(SessionId(1), 0, 10, nobody);
    assert!(host.take_fault().is_some());

    let mut driver = IntcDriver::new(lanes.clone(), 2).unwrap();
    host.add_guest(SessionId(1), lanes, 0, nobody).unwrap();
    driver.unmask(0).unwrap();
    assert_eq!(driver.claim().unwrap().map(|one| one.edges), Some(2));
}

/// Over rings the same checks are made; who was cut off begins anew in the same memory.
#[test]
fn a_guest_that_breaks_the_rules_over_a_ring_is_cut_off_alone() {
    for carrier in twins() {
        let mut host = Lines::new(2);
        let (mut honest, _) = guest_over(carrier, &mut host, 0);
        let lanes = IntcLanes::on_heap(carrier, 2).unwrap();
        let mut controls = Outlet::at_guest(lanes.controls.clone(), 2).unwrap();
        let _requests = Outlet::<Wire, _>::at_guest(lanes.requests.clone(), 2).unwrap();
        let _wires = Inlet::<Wire, _>::at_guest(lanes.wires.clone(), 2).unwrap();
        host.add_guest(SessionId(1), lanes.clone(), 0, nobody)
            .unwrap();
        let _ = host.raise(SessionId(1), 1, 5, 0);
        let lie = Control {
            claimed: 6,
            ..Control::default()
        };
        let _ = controls.place(1, lie).unwrap();
        let _ = controls.flush().unwrap();
        host.look(SessionId(1), 0, 10, nobody);
        let fault = host.take_fault();
        assert!(
            matches!(
                fault,
                Some((
                    SessionId(1),
                    GuestFault::FalseAcknowledgement { line: 1, .. }
                ))
            ),
            "{carrier:?}: {fault:?}"
        );
        let told = host.counters().told;
        let _ = host.raise(SessionId(1), 1, 1, 0);
        assert_eq!(host.counters().told, told);
        let _ = host.raise(SessionId(0), 0, 1, 0);
        let _ = honest.poll().unwrap();
        assert!(honest.is_pending(0), "{carrier:?}");

        let mut driver = IntcDriver::new(lanes.clone(), 2).unwrap();
        host.add_guest(SessionId(1), lanes, 0, nobody).unwrap();
        driver.unmask(1).unwrap();
        let _ = driver.poll().unwrap();
        host.look(SessionId(1), 0, 10, nobody);
        let claimed = driver.claim().unwrap();
        assert_eq!(claimed.map(|one| one.edges), Some(6), "{carrier:?}");
    }
}

#[test]
fn a_host_that_breaks_the_rules_is_not_believed_until_the_driver_moves() {
    let taken_back = [0, 3, 0];
    let unreadable = [u64::MAX, 9, 0];
    for lie in [taken_back, unreadable] {
        let lanes = tables(2);
        let mut driver = IntcDriver::new(lanes.clone(), 2).unwrap();
        let mut wires = liar::<Wire>(memory(&lanes.wires), 1);
        driver.unmask(0).unwrap();
        driver.unmask(1).unwrap();
        says(&mut wires, 1, &[0, 4, 0]);
        let _ = driver.poll().unwrap();
        says(&mut wires, 1, &lie);
        let Err(IntcError::Fault(fault)) = driver.claim() else {
            panic!("believed");
        };
        let expected = IntcFault::EdgesTakenBack {
            line: 1,
            expected: 4,
            found: 3,
        };
        if lie == taken_back {
            assert_eq!(fault, expected);
        } else {
            assert!(
                matches!(fault, IntcFault::Wires(InletError::Slot { slot: 1, .. })),
                "{fault}"
            );
        }
        says(&mut wires, 1, &[0, 5, 0]);
        assert_eq!(driver.claim(), Err(fault.into()), "latched");
        assert_eq!(driver.poll(), Err(fault));

        let mut host = Lines::new(2);
        let lanes = tables(2);
        let _ = driver.move_to(lanes.clone()).unwrap();
        host.add_guest(SessionId(0), lanes, 0, nobody).unwrap();
        let _ = host.raise(SessionId(0), 0, 1, 0);
        let next = driver.claim().unwrap();
        assert_eq!(next.map(|one| (one.line, one.edges)), Some((0, 1)));
        let _ = driver.end(0).unwrap();
        let kept = driver.claim().unwrap();
        assert_eq!(
            kept.map(|one| (one.line, one.edges)),
            Some((1, 4)),
            "raised before it lied"
        );
    }
}

#[test]
fn tables_of_another_kind_are_refused() {
    let mut host = Lines::new(2);
    let lanes = tables(2);
    assert!(
        host.add_guest(SessionId(0), lanes.clone(), 0, nobody)
            .is_err(),
        "none is set up"
    );
    let _ = IntcDriver::new(lanes.clone(), 1).unwrap();
    assert!(
        host.add_guest(SessionId(0), lanes.clone(), 0, nobody)
            .is_err(),
        "one line"
    );
    assert!(
        IntcDriver::new(lanes.clone(), 200).is_err(),
        "the memory is too small"
    );

    let mut driver = IntcDriver::new(lanes.clone(), 2).unwrap();
    drop(liar::<Control>(memory(&tables(2).controls), 1));
    let other: TypedWriter<Words<Wire>, _, _> =
        TypedWriter::create(memory(&lanes.wires).clone(), 1, Epoch::FIRST, vec![0]).unwrap();
    drop(other);
    assert!(matches!(
        driver.claim(),
        Err(IntcError::Fault(IntcFault::Wires(InletError::NoTable(_))))
    ));
}

/// Somewhere in a memory, a word: anything, or something that is nearly right.
fn scribble() -> impl Strategy<Value = (usize, u64)> {
    let word = prop_oneof![Just(0), Just(u64::MAX), 0u64..300, any::<u64>()];
    (any::<usize>(), word)
}

fn write(window: &Mapped, scribbles: &[(usize, u64)]) {
    for (place, word) in scribbles {
        let offset = 8 * (place % (window.len() / 8));
        Field::<u64, _>::new(window, offset)
            .unwrap()
            .store(*word, Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 3 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a guest scribbles over its tables, the host serves the others, and itself in bounded work.
    #[test]
    fn a_guest_s_scribbles_are_its_own_harm(
        rounds in prop::collection::vec(prop::collection::vec(scribble(), 0..40), 1..8),
    ) {
        let mut host = Lines::new(2);
        let (mut honest, _) = guest(&mut host, 0);
        let (mut bad, lanes) = guest(&mut host, 1);
        honest.unmask(0).unwrap();
        for scribbles in &rounds {
            let _ = bad.raise(1).unwrap();
            write(memory(&lanes.controls), scribbles);
            write(memory(&lanes.requests), scribbles);
            let mut looks = 0;
            while host.look(SessionId(1), 0, 1, nobody) {
                looks += 1;
                prop_assert!(looks < 10, "two lines were looked at {looks} times");
            }
            if let Some((id, _)) = host.take_fault() {
                prop_assert_eq!(id, SessionId(1));
            }
            let _ = host.raise(SessionId(1), 0, 1, 0);
            let _ = host.raise(SessionId(0), 0, 1, 0);
            let delivery = honest.claim().unwrap().unwrap();
            prop_assert_eq!(delivery.line, 0);
            let _ = honest.end(0).unwrap();
            while honest.claim().unwrap().is_some_and(|one| honest.end(one.line).is_ok()) {
                honest.mask(0).unwrap();
            }
            honest.unmask(0).unwrap();
        }
        host.reset_guest(SessionId(1), 0, nobody);
        bad = IntcDriver::new(lanes.clone(), 2).unwrap();
        host.add_guest(SessionId(1), lanes, 0, nobody).unwrap();
        bad.unmask(0).unwrap();
        prop_assert!(bad.claim().unwrap().is_some(), "it begins anew");
    }

    /// Whatever a host scribbles over its table, the driver answers with a delivery, nothing or a fault.
    #[test]
    fn a_host_s_scribbles_stall_nobody(
        rounds in prop::collection::vec(prop::collection::vec(scribble(), 0..40), 1..8),
    ) {
        let mut host = Lines::new(2);
        let (mut driver, lanes) = guest(&mut host, 0);
        driver.unmask(0).unwrap();
        driver.unmask(1).unwrap();
        for scribbles in &rounds {
            let _ = host.raise(SessionId(0), 0, 1, 0);
            write(memory(&lanes.wires), scribbles);
            match driver.claim() {
                Ok(Some(delivery)) => {
                    prop_assert!(delivery.asserted || delivery.edges > 0);
                    let _ = driver.end(delivery.line).unwrap();
                }
                Ok(None) => {}
                Err(error) => {
                    prop_assert!(matches!(error, IntcError::Fault(_)), "{error}");
                    prop_assert_eq!(driver.claim(), Err(error));
                }
            }
        }
    }
}
