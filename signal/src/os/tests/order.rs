//! Who is served when.

use super::*;

#[test]
fn higher_classes_go_first_and_every_class_within_the_stated_bound() {
    let mut set = set();
    let mut ringers: Vec<_> = (0..CLASSES)
        .map(|index| add(&mut set, 500, class(index), |window| window))
        .collect();
    for (_, ringer) in &mut ringers {
        (0..500).for_each(|channel| ringer.raise(channel));
    }
    assert!(set.wait(LOOK).unwrap());
    let order: Vec<usize> = channels(&mut set)
        .iter()
        .map(|(token, _)| ringers.iter().position(|(of, _)| of == token).unwrap())
        .collect();
    assert_eq!(order.len(), CLASSES * 500);
    assert_eq!(order[..16], [0; 16]);
    let bound = STARVATION_BOUND as usize + CLASSES - 2;
    for class in 0..CLASSES {
        let mut waited = 0;
        let mut left = 500;
        for served in &order {
            if *served == class {
                (waited, left) = (0, left - 1);
            } else if left > 0 {
                waited += 1;
                assert!(waited <= bound, "class {class}");
            }
        }
    }
}

#[test]
fn equals_take_turns() {
    let mut set = set();
    let (first, mut of_first) = add(&mut set, 9, Priority::HIGHEST, |window| window);
    let (second, mut of_second) = add(&mut set, 9, Priority::HIGHEST, |window| window);
    for channel in 0..3 {
        of_first.raise(channel);
        of_second.raise(channel);
    }
    assert!(set.wait(LOOK).unwrap());
    let expected: Vec<_> = (0..3)
        .flat_map(|channel| [(first, channel), (second, channel)])
        .collect();
    assert_eq!(channels(&mut set), expected);
}

/// Whoever raises while events are taken out does not keep that from ending, and loses nothing by it.
#[test]
fn taking_events_out_ends_although_all_raise_without_pause() {
    let mut set = set();
    let mut ringers: Vec<_> = (0..3)
        .map(|index| add(&mut set, 150, class(index), |window| window).1)
        .collect();
    let mut raise_all = |channel| ringers.iter_mut().for_each(|ringer| ringer.raise(channel));
    raise_all(0);
    for round in 0..3 {
        assert!(set.wait(LOOK).unwrap());
        let mut events = 0;
        while set.next_event().is_some() {
            events += 1;
            raise_all(events % 150);
        }
        assert_eq!(events, ROUND_BOUND, "round {round}");
    }
    raise_all(149);
    assert!(set.wait(LOOK).unwrap());
    let rest = channels(&mut set);
    assert_eq!(
        rest.iter().filter(|(_, channel)| *channel == 149).count(),
        3
    );
    assert!(!set.wait(LOOK).unwrap());
}

/// Doorbells that are busy all the time do not keep the set from asking the kernel.
#[test]
fn a_descriptor_is_noticed_behind_a_busy_doorbell() {
    let mut set = set();
    let (_, mut ringer) = add(&mut set, 1, Priority::HIGHEST, |window| window);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let socket = set
        .add_fd(theirs, Interest::READABLE, Priority::LOWEST)
        .unwrap();
    ours.write_all(b"x").unwrap();
    for _ in 0..100 {
        ringer.raise(0);
        assert!(set.wait(LOST).unwrap());
        if let Some(event) = set.next_event()
            && event.token() == socket
        {
            return;
        }
    }
    panic!("the socket starved");
}
