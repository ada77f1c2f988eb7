//! A doorbell whose sender stores anything in its tree, and whose receiver stores anything in its armed word: channels that
//! exist, one kick at most for each raise, and a receiver that sleeps or does not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_shm::{Notify, heap};
use shmbus_signal::suppress::{Arm, DoorbellLayout, Receiver, Sender};

fuzz_target!(|input: (u16, Vec<(u16, u16)>, &[u8], &[u8])| {
    let (channels, damage, of_tree, of_armed) = input;
    let Ok(layout) = DoorbellLayout::new(u32::from(channels % 300)) else {
        return;
    };
    let tree = heap(layout.tree_bytes());
    let armed = heap(DoorbellLayout::ARMED_BYTES);
    let seen = vec![0; layout.channels() as usize];

    let lying = scripted(&armed, of_armed);
    let mut sender = Sender::new(&tree, &lying, layout).expect("the sections fit");
    tamper(&tree, &damage);
    let lying = scripted(&tree, of_tree);
    let mut receiver = Receiver::new(&lying, &armed, layout, seen).expect("the sections fit");
    for round in 0..8 {
        let raised = sender.raise(round * 37 % layout.channels());
        raised.expect("the channel exists").is_needed();
        let mut reports = 0;
        receiver.poll(|channel, _| {
            assert!(channel < layout.channels());
            reports += 1;
        });
        assert!(reports <= layout.channels());
        let stamp = receiver.stamp();
        if receiver.arm_at(stamp.wrapping_add(u64::from(round))) == Arm::Armed {
            // An honest sender would reach it.
            assert!(round > 0);
        }
    }
    let counts = sender.counts();
    assert_eq!(counts.sent + counts.suppressed, 8);

    tamper(&tree, &damage);
    let lying = scripted(&tree, of_tree);
    if let Ok((mut sender, notify)) = Sender::resume(&lying, &armed, layout) {
        assert_eq!(notify, Notify::Yes);
        sender.raise(0).expect("the channel exists").is_needed();
    }
});
