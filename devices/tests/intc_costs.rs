//! What raising and taking an interrupt costs, counted: accesses to shared memory, and allocations.

use shmbus_devices::SessionId;
use shmbus_devices::intc::{IntcDriver, IntcError, IntcLanes, LinePriority, Lines};
use shmbus_devices::lane::{Carrier, Lane, OutletError, Reading, RingCarrier};
use shmbus_ring::RingKind;
use shmbus_shm::testing::{Counting, Probed};
use shmbus_shm::{Mapped, RingFormat, Window};

const ID: SessionId = SessionId(1);

fn pair<W: Window>(lanes: &IntcLanes<W>, lines: u32) -> (Lines<W>, IntcDriver<W>) {
    let mut driver = IntcDriver::new(lanes.clone(), lines).unwrap();
    let mut host = Lines::new(lines);
    host.add_guest(ID, lanes.clone(), 0, |_, _| ()).unwrap();
    for line in 0..lines {
        insist(&mut driver, &mut host, |driver| Ok(driver.unmask(line)?));
    }
    (host, driver)
}

fn probed(lane: Lane<Mapped>, counting: &Counting) -> Lane<Probed<Mapped, Counting>> {
    match lane {
        Lane::Table(window) => Lane::Table(Probed::new(window, counting.clone())),
        Lane::Ring(_) => panic!("a ring"),
    }
}

/// Of 65,536 lines one is raised: the host stores a slot's words and the way to it, and loads nothing. The guest finds it by
/// looking at one node of each level of the tree; and if nothing was raised, by one load.
#[test]
#[cfg_attr(miri, ignore = "too many lines for an interpreter")]
fn one_of_many_lines_costs_no_more_than_one_of_few() {
    let lines = 65_536;
    let counting = Counting::default();
    let others = Counting::default();
    let lanes = IntcLanes::on_heap(Carrier::Table, lines).unwrap();
    let lanes = IntcLanes {
        wires: probed(lanes.wires, &counting),
        controls: probed(lanes.controls, &others),
        requests: probed(lanes.requests, &others),
    };
    let (mut host, mut driver) = pair(&lanes, lines);
    // The first scan looks everywhere.
    assert_eq!(driver.claim(), Ok(None));
    for (line, edges) in [(0, 1), (40_000, 3), (65_535, 1), (40_000, 1)] {
        let (loads, stores) = (counting.loads(), counting.stores());
        let _ = host.raise(ID, line, edges, 5);
        // Sequence twice, three words of payload, and a leaf with three levels of nodes and the root above it.
        assert_eq!(
            (counting.loads() - loads, counting.stores() - stores),
            (0, 10)
        );

        let loads = counting.loads();
        let delivery = driver.claim().unwrap().unwrap();
        assert_eq!((delivery.line, delivery.edges), (line, edges));
        let loads = counting.loads() - loads;
        assert!(loads <= 1 + 4 * 16 + 40, "{loads} loads");
        let (loads, stores) = (counting.loads(), others.stores());
        let _ = driver.end(line).unwrap();
        assert_eq!(driver.claim(), Ok(None));
        assert_eq!(counting.loads() - loads, 1, "nothing new: the root's stamp");
        assert_eq!(others.stores() - stores, 11, "one control");
    }
}

#[test]
#[cfg_attr(miri, ignore = "counts through the system's allocator")]
fn interrupts_allocate_nothing() {
    let lines = 3_000;
    let twin = |reading| {
        Carrier::Ring(RingCarrier {
            kind: RingKind::plain(RingFormat::Packed),
            size: 256,
            reading,
        })
    };
    for carrier in [Carrier::Table, twin(Reading::Every), twin(Reading::Last)] {
        let lanes = IntcLanes::on_heap(carrier, lines).unwrap();
        let (mut host, mut driver) = pair(&lanes, lines);
        let mut taken = 0;
        let mut round = |now: u64| {
            for line in 0..lines {
                let priority = LinePriority::new((line % 32) as u8).unwrap();
                insist(&mut driver, &mut host, |driver| {
                    Ok(driver.set_priority(line, priority)?)
                });
                let _ = host.raise(ID, line, 1, now);
                let _ = host.set_level(ID, line, now.is_multiple_of(2), now);
                let _ = insist(&mut driver, &mut host, |driver| Ok(driver.raise(line)?));
            }
            loop {
                while let Some(delivery) = insist(&mut driver, &mut host, IntcDriver::claim) {
                    let _ = insist(&mut driver, &mut host, |driver| driver.end(delivery.line));
                    insist(&mut driver, &mut host, |driver| {
                        Ok(driver.mask(delivery.line)?)
                    });
                    taken += 1;
                }
                if !driver.poll().unwrap().is_needed() {
                    break;
                }
                while host.look(ID, now, 100, |_, _| ()) {}
            }
            for line in 0..lines {
                insist(&mut driver, &mut host, |driver| Ok(driver.unmask(line)?));
            }
            let _ = driver.poll().unwrap();
            while host.look(ID, now, 100, |_, _| ()) {}
        };
        round(0);
        let allocations = allocation_counter::measure(|| (1..5).for_each(&mut round));
        assert_eq!(allocations.count_total, 0, "{carrier:?}: {allocations:?}");
        if carrier == Carrier::Table {
            assert_eq!(taken, 5 * lines);
        }
        assert_eq!(host.take_fault(), None);
    }
}

/// Tries again when the host has looked, as long as a ring is full.
fn insist<W: Window, T>(
    driver: &mut IntcDriver<W>,
    host: &mut Lines<W>,
    mut call: impl FnMut(&mut IntcDriver<W>) -> Result<T, IntcError>,
) -> T {
    loop {
        match call(driver) {
            Err(IntcError::Outlet(OutletError::Full)) => {
                let _ = driver.poll().unwrap();
                while host.look(ID, 0, 100, |_, _| ()) {}
            }
            outcome => return outcome.unwrap(),
        }
    }
}
