//! A host and a guest, each in its own thread, on many lines at once: every edge is accounted for, and nothing is delivered
//! without a cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use shmbus_devices::SessionId;
use shmbus_devices::intc::{IntcDriver, IntcLanes, LinePriority, Lines};
use shmbus_devices::lane::Carrier;
use shmbus_shm::Mapped;

const LINES: u32 = if cfg!(miri) { 8 } else { 200 };
const STEPS: u64 = if cfg!(miri) { 300 } else { 400_000 };
const ID: SessionId = SessionId(1);

/// What the host has done to a line, noted before edges are raised and before a level rises, and after it has fallen.
#[derive(Default)]
struct Noted {
    raised: AtomicU64,
    risen: AtomicU64,
    fallen: AtomicU64,
}

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u32) -> u32 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % bound
    }
}

fn raise(mut host: Lines<Mapped>, noted: &[Noted], is_over: &AtomicBool) -> Lines<Mapped> {
    let mut numbers = Numbers(88172645463325252);
    let mut up = vec![false; LINES as usize];
    for step in 0..STEPS {
        let line = numbers.below(LINES);
        let note = &noted[line as usize];
        if numbers.below(3) > 0 {
            let edges = 1 + u64::from(numbers.below(3));
            note.raised.fetch_add(edges, SeqCst);
            assert!(host.raise(ID, line, edges, step).is_needed());
        } else if std::mem::replace(&mut up[line as usize], false) {
            assert!(host.set_level(ID, line, false, step).is_needed());
            note.fallen.fetch_add(1, SeqCst);
        } else {
            note.risen.fetch_add(1, SeqCst);
            assert!(host.set_level(ID, line, true, step).is_needed());
            up[line as usize] = true;
        }
        if step % 64 == 0 {
            host.look(ID, step, 7, |_, _| panic!("nobody else is there"));
            assert_eq!(host.take_fault(), None);
        }
    }
    for (line, note) in (0..LINES).zip(noted) {
        if up[line as usize] {
            let _ = host.set_level(ID, line, false, STEPS);
            note.fallen.fetch_add(1, SeqCst);
        }
    }
    is_over.store(true, SeqCst);
    host
}

#[test]
fn every_edge_is_accounted_for_and_nothing_comes_without_a_cause() {
    let lanes = IntcLanes::on_heap(Carrier::Table, LINES).unwrap();
    let mut driver = IntcDriver::new(lanes.clone(), LINES).unwrap();
    let mut host = Lines::new(LINES);
    host.add_guest(ID, lanes, 0, |_, _| ()).unwrap();
    let mut numbers = Numbers(6364136223846793005);
    for line in 0..LINES {
        let priority = LinePriority::new(numbers.below(32) as u8).unwrap();
        driver.set_priority(line, priority).unwrap();
        driver.unmask(line).unwrap();
    }
    let noted: Arc<[Noted]> = (0..LINES).map(|_| Noted::default()).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let raising = {
        let (noted, is_over) = (Arc::clone(&noted), Arc::clone(&is_over));
        thread::spawn(move || raise(host, &noted, &is_over))
    };

    let mut edges = vec![0; LINES as usize];
    let mut service: Vec<(LinePriority, u32)> = Vec::new();
    let (mut deliveries, mut masked) = (0, None);
    loop {
        // Whatever is claimed after this is all there is.
        let is_last = is_over.load(SeqCst);
        let before: Vec<u64> = noted.iter().map(|note| note.fallen.load(SeqCst)).collect();
        let claimed = driver.claim().unwrap();
        if let Some(one) = claimed {
            let note = &noted[one.line as usize];
            edges[one.line as usize] += one.edges;
            assert!(
                edges[one.line as usize] <= note.raised.load(SeqCst),
                "{one:?}"
            );
            if one.asserted {
                let risen = note.risen.load(SeqCst);
                assert!(
                    risen > before[one.line as usize],
                    "its level was down: {one:?}"
                );
            }
            assert!(one.asserted || one.edges > 0, "{one:?}");
            assert!(
                service
                    .last()
                    .is_none_or(|(running, _)| one.priority < *running)
            );
            service.push((one.priority, one.line));
            deliveries += 1;
        }
        if claimed.is_none() || numbers.below(2) == 0 {
            if let Some((_, line)) = service.pop() {
                let _ = driver.end(line).unwrap();
            } else if is_last && masked.is_none() {
                break;
            }
        }
        if let Some(line) = masked.take() {
            driver.unmask(line).unwrap();
        } else if !is_last {
            let line = numbers.below(LINES);
            driver.mask(line).unwrap();
            masked = Some(line);
        }
    }
    let mut host = raising.join().unwrap();
    while host.look(ID, STEPS, 7, |_, _| ()) {}
    let raised: u64 = noted.iter().map(|note| note.raised.load(SeqCst)).sum();
    for (line, note) in (0..).zip(noted.iter()) {
        assert_eq!(edges[line], note.raised.load(SeqCst), "line {line}");
    }
    let counters = driver.counters();
    assert_eq!((counters.edges, counters.delivered), (raised, deliveries));
    assert_eq!(
        (host.counters().raised, host.counters().ended),
        (raised, raised)
    );
    assert_eq!(host.take_fault(), None);
    println!("{raised} edges in {deliveries} deliveries: {counters:?}");
}
