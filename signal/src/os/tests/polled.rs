//! Doorbells that nothing rings here.

use super::*;

#[test]
fn what_cannot_ring_is_found_all_the_same_and_nobody_rings_in_vain() {
    let layout = DoorbellLayout::new(300).unwrap();
    let tree = heap(layout.tree_bytes());
    let armed = heap(DoorbellLayout::ARMED_BYTES);
    let mut sender = Sender::new(&tree, &armed, layout).unwrap();
    let receiver = || Receiver::new(&tree, &armed, layout, vec![0; 300]).unwrap();
    // Armed by one that was here before, and was woken by something.
    assert_eq!(receiver().arm(), Arm::Armed);

    let mut set = set();
    set.set_spin(Duration::ZERO);
    let polled = set.add_polled(receiver(), Priority::LOWEST).unwrap();
    let (rung, mut ringer) = add(&mut set, 10, Priority::HIGHEST, |window| window);
    let rounds = 50;
    let other = thread::spawn(move || {
        for round in 0..rounds {
            thread::sleep(2 * POLL_PERIOD);
            assert!(!sender.raise(round).unwrap().is_needed());
        }
        sender
    });
    // One by one, or several where this thread was late.
    let mut found = Vec::new();
    while found.len() < rounds as usize {
        assert!(set.wait(LOST).unwrap(), "what was raised was lost");
        found.extend(channels(&mut set));
    }
    found.sort_unstable_by_key(|(_, channel)| *channel);
    let raised: Vec<_> = (0..rounds).map(|round| (polled, round)).collect();
    assert_eq!(found, raised);
    let _sender = other.join().unwrap();
    assert!(set.counts().blocked > 0, "it slept");

    // Beside it, what can ring still does, and a storm is still muted.
    ringer.raise(7);
    assert!(set.wait(LOST).unwrap());
    assert_eq!(channels(&mut set), [(rung, 7)]);
    for _ in 0..=STORM_STRIKES {
        ringer.notifier.notify().unwrap();
        assert!(!set.wait(Some(POLL_PERIOD)).unwrap());
    }
    assert!(set.counts().muted > 0);

    // Once it is gone, a set that sleeps does not wake up any more.
    set.remove(polled).unwrap();
    assert!(!set.wait(Some(10 * POLL_PERIOD)).unwrap());
    let before = set.counts().blocked;
    assert!(!set.wait(Some(10 * POLL_PERIOD)).unwrap());
    assert!(set.counts().blocked - before <= 2);
}
