//! What raising and taking an interrupt costs, counted: accesses to shared memory, and allocations.

use shmbus_devices::SessionId;
use shmbus_devices::intc::{Control, IntcDriver, IntcWindows, LinePriority, Lines, Wire};
use shmbus_shm::testing::{Counting, Probed};
use shmbus_shm::{Mapped, Window, heap};
use shmbus_table::layout_of;

const ID: SessionId = SessionId(1);

fn windows(lines: u32) -> IntcWindows<Mapped> {
    let wires = layout_of::<Wire>(lines).unwrap().bytes();
    IntcWindows {
        wires: heap(wires),
        controls: heap(layout_of::<Control>(lines).unwrap().bytes()),
        requests: heap(wires),
    }
}

fn pair<W: Window>(windows: &IntcWindows<W>, lines: u32) -> (Lines<W>, IntcDriver<W>) {
    let mut driver = IntcDriver::new(windows.clone(), lines).unwrap();
    let mut host = Lines::new(lines);
    host.add_guest(ID, windows.clone(), 0, |_, _| ()).unwrap();
    (0..lines).for_each(|line| driver.unmask(line).unwrap());
    (host, driver)
}

/// Of 65,536 lines one is raised: the host stores a slot's words and the way to it, and loads nothing. The guest finds it by
/// looking at one node of each level of the tree; and if nothing was raised, by one load.
#[test]
#[cfg_attr(miri, ignore = "too many lines for an interpreter")]
fn one_of_many_lines_costs_no_more_than_one_of_few() {
    let lines = 65_536;
    let counting = Counting::default();
    let memory = windows(lines);
    let wires = Probed::new(memory.wires, counting.clone());
    let others = Counting::default();
    let windows = IntcWindows {
        wires,
        controls: Probed::new(memory.controls, others.clone()),
        requests: Probed::new(memory.requests, others.clone()),
    };
    let (mut host, mut driver) = pair(&windows, lines);
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
    let (mut host, mut driver) = pair(&windows(lines), lines);
    let mut taken = 0;
    let mut round = |now: u64| {
        for line in 0..lines {
            let priority = LinePriority::new((line % 32) as u8).unwrap();
            driver.set_priority(line, priority).unwrap();
            let _ = host.raise(ID, line, 1, now);
            let _ = host.set_level(ID, line, now.is_multiple_of(2), now);
            let _ = driver.raise(line).unwrap();
        }
        while let Some(delivery) = driver.claim().unwrap() {
            let _ = driver.end(delivery.line).unwrap();
            driver.mask(delivery.line).unwrap();
            taken += 1;
        }
        (0..lines).for_each(|line| driver.unmask(line).unwrap());
        while host.look(ID, now, 100, |_, _| ()) {}
    };
    round(0);
    let allocations = allocation_counter::measure(|| (1..5).for_each(&mut round));
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
    assert_eq!(taken, 5 * lines);
}
