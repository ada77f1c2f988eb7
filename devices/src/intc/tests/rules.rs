//! What the controller promises, one promise a test.

use super::*;
use crate::lane::tests::carriers;

const ID: SessionId = SessionId(1);

fn pair(lines: u32) -> (Lines<Mapped>, IntcDriver<Mapped>) {
    let mut host = Lines::new(lines);
    let (mut driver, _) = guest(&mut host, ID.0);
    (0..lines).for_each(|line| driver.unmask(line).unwrap());
    (host, driver)
}

/// An edge between the guest's look and its acknowledgement has a number that the acknowledgement does not cover.
#[test]
fn an_edge_between_look_and_acknowledgement_is_delivered_again() {
    let (mut host, mut driver) = pair(2);
    let _ = host.raise(ID, 0, 1, 10);
    let first = driver.claim().unwrap().unwrap();
    assert_eq!((first.edges, first.raised_ns), (1, 10));
    let _ = host.raise(ID, 0, 2, 20);
    assert_eq!(driver.claim(), Ok(None), "one service at a time");
    let _ = driver.end(0).unwrap();
    let second = driver.claim().unwrap().unwrap();
    assert_eq!((second.edges, second.raised_ns), (2, 20));
    let _ = driver.end(0).unwrap();
    assert_eq!(driver.claim(), Ok(None));
    host.look(ID, 30, 10, nobody);
    assert_eq!((host.counters().raised, host.counters().ended), (3, 3));
    let coalesced = driver.counters();
    assert_eq!((coalesced.delivered, coalesced.coalesced), (2, 1));
}

#[test]
fn a_level_is_delivered_until_it_falls_and_not_after() {
    let (mut host, mut driver) = pair(2);
    assert!(host.set_level(ID, 1, true, 10).is_needed());
    assert!(
        !host.set_level(ID, 1, true, 11).is_needed(),
        "nothing changed"
    );
    for _ in 0..3 {
        let delivery = driver.claim().unwrap().unwrap();
        assert_eq!((delivery.line, delivery.edges), (1, 0));
        assert!(delivery.asserted && delivery.raised_ns == 10);
        assert!(
            driver.end(1).unwrap().is_needed(),
            "whoever asserts it may wait for that"
        );
    }
    // It falls after the driver took in that it was up.
    let _ = driver.poll().unwrap();
    assert!(driver.is_pending(1));
    let _ = host.set_level(ID, 1, false, 20);
    assert_eq!(driver.claim(), Ok(None));
    assert_eq!(driver.counters().delivered, 3);

    let _ = driver.poll().unwrap();
    let _ = host.set_level(ID, 0, true, 30);
    let _ = driver.poll().unwrap();
    let _ = host.set_level(ID, 0, false, 40);
    driver.mask(0).unwrap();
    assert_eq!(driver.claim(), Ok(None));
}

#[test]
fn a_level_withdrawn_before_its_delivery_is_not_delivered() {
    let (mut host, mut driver) = pair(1);
    let _ = host.set_level(ID, 0, true, 1);
    let _ = driver.poll().unwrap();
    // The scan of the claim finds it changed; only a change behind the scan is met by the second look, which the
    // threads' test provokes.
    let _ = host.set_level(ID, 0, false, 2);
    assert_eq!(driver.claim(), Ok(None));
    assert_eq!((driver.counters().delivered, driver.ready()), (0, 0));
}

#[test]
fn the_most_urgent_goes_first_and_interrupts_what_is_less_urgent() {
    let (mut host, mut driver) = pair(5);
    for (line, urgency) in [(0, 7), (1, 7), (2, 3), (3, 3), (4, 0)] {
        driver.set_priority(line, priority(urgency)).unwrap();
    }
    for line in [1, 0, 3, 2] {
        let _ = host.raise(ID, line, 1, 1);
    }
    let claim = |driver: &mut IntcDriver<_>| driver.claim().unwrap().map(|one| one.line);
    assert_eq!(claim(&mut driver), Some(2), "the lower number of two alike");
    assert_eq!(
        claim(&mut driver),
        None,
        "line 3 is not more urgent than line 2"
    );
    // Its priority while in service is the one it was delivered with.
    driver.set_priority(2, LinePriority::LOWEST).unwrap();
    assert_eq!(claim(&mut driver), None);
    let _ = host.raise(ID, 4, 1, 1);
    assert_eq!(claim(&mut driver), Some(4));
    assert_eq!(driver.in_service().collect::<Vec<_>>(), [2, 4]);
    let innermost = Some(4);
    let refused = Err(IntcError::NotInnermost { line: 2, innermost });
    assert_eq!(driver.end(2), refused);
    assert!(
        !driver.end(4).unwrap().is_needed(),
        "others are waiting to be claimed"
    );
    assert!(!driver.end(2).unwrap().is_needed());
    let mut rest = Vec::new();
    while let Some(line) = claim(&mut driver) {
        rest.push(line);
        let is_last = rest.len() == 3;
        assert_eq!(driver.end(line).unwrap().is_needed(), is_last);
    }
    assert_eq!(rest, [3, 0, 1]);
    assert_eq!(driver.counters().nested, 1);
}

#[test]
fn a_masked_line_is_found_pending_when_it_is_unmasked() {
    let (mut host, mut driver) = pair(2);
    driver.mask(0).unwrap();
    let _ = host.raise(ID, 0, 3, 1);
    let _ = host.set_level(ID, 0, true, 2);
    assert_eq!(driver.claim(), Ok(None));
    assert!(driver.is_pending(0));
    driver.unmask(0).unwrap();
    let delivery = driver.claim().unwrap().unwrap();
    assert_eq!((delivery.edges, delivery.asserted), (3, true));
}

#[test]
fn a_line_is_a_wire_between_guests() {
    let mut host = Lines::new(4);
    let mut drivers: Vec<_> = (0..3).map(|id| guest(&mut host, id).0).collect();
    for driver in &mut drivers {
        driver.unmask(2).unwrap();
    }
    let _ = drivers[0].raise(2).unwrap();
    let _ = drivers[0].raise(2).unwrap();
    let mut told = Vec::new();
    host.look(SessionId(0), 5, 10, |guest, _| told.push(guest.0));
    assert_eq!(told, [1, 2]);
    assert_eq!(drivers[0].claim(), Ok(None), "it hears nothing of itself");
    for driver in &mut drivers[1..] {
        let delivery = driver.claim().unwrap().unwrap();
        assert_eq!((delivery.edges, delivery.raised_ns), (2, 5));
        let _ = driver.end(2).unwrap();
    }

    // A level is up as long as anybody else asserts it, and falls with whoever dies.
    for id in [0, 1] {
        let _ = drivers[id].set_level(2, true).unwrap();
        host.look(SessionId(id as u64), 6, 10, nobody);
    }
    let asserted = |drivers: &mut Vec<IntcDriver<_>>| {
        drivers
            .iter_mut()
            .for_each(|driver| assert_eq!(driver.poll(), Ok(Notify::No)));
        drivers
            .iter()
            .map(|driver| driver.is_asserted(2))
            .collect::<Vec<_>>()
    };
    assert_eq!(asserted(&mut drivers), [true, true, true]);
    host.remove_guest(SessionId(0), 7, nobody);
    assert_eq!(asserted(&mut drivers)[1..], [false, true]);
    let mut told = Vec::new();
    host.remove_guest(SessionId(1), 8, |guest, _| told.push(guest.0));
    assert_eq!((asserted(&mut drivers)[2], told), (false, vec![2]));
}

/// What a guest raised and the host had not seen when the guest died still counts.
#[test]
fn a_departed_guest_s_last_edges_are_passed_on() {
    let mut host = Lines::new(4);
    let (mut leaving, _) = guest(&mut host, 0);
    let (mut staying, _) = guest(&mut host, 1);
    staying.unmask(3).unwrap();
    let _ = leaving.raise(3).unwrap();
    drop(leaving);
    let mut told = Vec::new();
    host.remove_guest(SessionId(0), 1, |guest, _| told.push(guest.0));
    assert_eq!(told, [1]);
    assert_eq!(staying.claim().unwrap().map(|one| one.edges), Some(1));
}

#[test]
fn there_are_as_many_lines_as_there_are() {
    let (mut host, mut driver) = pair(3);
    let no_such = Err(OutletError::NoSuchSlot { slot: 3, slots: 3 });
    assert_eq!(driver.unmask(3), no_such);
    assert_eq!(driver.set_priority(3, LinePriority::HIGHEST), no_such);
    assert!(driver.raise(3).is_err() && driver.set_level(3, true).is_err());
    assert!(driver.end(3).is_err() && !driver.is_pending(3));
    assert!(!host.raise(ID, 3, 1, 0).is_needed());
    assert!(!host.set_level(ID, u32::MAX, true, 0).is_needed());
    assert!(!host.raise(SessionId(9), 0, 1, 0).is_needed());
    assert_eq!(driver.claim(), Ok(None));
}

/// Delivers and ends until there is no more, with the host looking when it is told.
fn settle(
    host: &mut Lines<Mapped>,
    driver: &mut IntcDriver<Mapped>,
    id: SessionId,
) -> Vec<(u32, u64)> {
    let (mut taken, mut to_end) = (Vec::new(), None);
    loop {
        let step = match to_end {
            Some(line) => driver.end(line).map(|_| None),
            None => driver.claim(),
        };
        match step {
            Ok(Some(one)) => {
                taken.push((one.line, one.edges));
                to_end = Some(one.line);
                continue;
            }
            Ok(None) if to_end.take().is_some() => continue,
            Ok(None) | Err(IntcError::Outlet(OutletError::Full)) => {}
            Err(error) => panic!("{error}"),
        }
        let told = driver.poll().unwrap();
        if step == Ok(None) && !told.is_needed() {
            return taken;
        }
        while host.look(id, 5, 10, nobody) {}
    }
}

/// A guest that has claimed all, and polled, is told of the next edge, whatever carries it; and the host of what the guest
/// raises.
#[test]
fn whoever_waits_is_told_over_every_carrier() {
    for carrier in carriers() {
        let mut host = Lines::new(3);
        let (mut driver, _) = guest_over(carrier, &mut host, ID.0);
        let (mut other, _) = guest_over(carrier, &mut host, 2);
        driver.unmask(2).unwrap();
        for round in 0..40 {
            let taken = settle(&mut host, &mut driver, ID);
            assert_eq!(taken, [], "{carrier:?}, {round}");
            assert_eq!(settle(&mut host, &mut other, SessionId(2)), []);
            let notify = host.raise(ID, 2, 1, round);
            assert!(notify.is_needed(), "{carrier:?}, {round}");
            let taken = settle(&mut host, &mut driver, ID);
            assert_eq!(taken, [(2, 1)], "{carrier:?}, {round}");

            let _ = settle(&mut host, &mut driver, ID);
            let mut told = Vec::new();
            let notify = other.raise(2).unwrap();
            assert!(notify.is_needed(), "{carrier:?}, {round}");
            while host.look(SessionId(2), 5, 10, |id, notify| {
                if notify.is_needed() && id == ID {
                    told.push(id);
                }
            }) {}
            assert_eq!(told, [ID], "{carrier:?}, {round}");
            let taken = settle(&mut host, &mut driver, ID);
            assert_eq!(taken, [(2, 1)], "{carrier:?}, {round}");
        }
        assert_eq!(host.take_fault(), None);
    }
}

/// A table that its writer has set up anew counts anew, and is not taken for what it was.
#[test]
fn numbers_of_two_lives_never_meet() {
    let mut host = Lines::new(2);
    let (mut driver, lanes) = guest(&mut host, ID.0);
    let (mut other, _) = guest(&mut host, 2);
    other.unmask(0).unwrap();
    let edges = |driver: &mut IntcDriver<_>| {
        let claimed = driver.claim().unwrap();
        claimed.map(|one| (one.edges, driver.end(one.line).unwrap()).0)
    };
    for _ in 0..3 {
        let _ = driver.raise(0).unwrap();
    }
    host.look(ID, 1, 10, nobody);
    assert_eq!(edges(&mut other), Some(3));

    // The guest begins anew. The host looks before it hears of that, and does not take five for two more.
    let mut driver = IntcDriver::new(lanes.clone(), 2).unwrap();
    for _ in 0..5 {
        let _ = driver.raise(0).unwrap();
    }
    host.look(ID, 2, 10, nobody);
    let fault = host.take_fault().map(|(_, fault)| fault);
    assert!(
        matches!(fault, Some(GuestFault::BegunAnew { line: 0, .. })),
        "{fault:?}"
    );
    assert_eq!(edges(&mut other), None);
    host.add_guest(ID, lanes.clone(), 3, nobody).unwrap();
    host.look(ID, 4, 10, nobody);
    assert_eq!(edges(&mut other), Some(5));

    // Nor does the guest, if the host begins anew.
    driver.unmask(1).unwrap();
    let _ = host.raise(ID, 1, 1, 5);
    assert_eq!(edges(&mut driver), Some(1));
    host.add_guest(ID, lanes, 6, nobody).unwrap();
    let _ = host.raise(ID, 1, 1, 7);
    let fault = driver.claim();
    assert!(
        matches!(
            fault,
            Err(IntcError::Fault(IntcFault::BegunAnew { line: 1, .. }))
        ),
        "{fault:?}"
    );
}
