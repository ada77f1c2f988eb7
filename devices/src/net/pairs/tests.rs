use shmbus_ring::RingKind;
use shmbus_ring::any::DriverRing;
use shmbus_shm::Mapped;
use shmbus_virtio::Features;

use super::*;
use crate::net::test_device::{BASE, Dma, Lies, TestDevice};

type Pairs = QueuePairs<DriverRing<Mapped>, Mapped>;

const PAIRS: u16 = 3;

fn pairs(rings: RingKind, size: u16) -> (Pairs, TestDevice) {
    let dma = Dma::new(rings, Features::EVENT_IDX, PAIRS, size, 1536);
    let mut pairs = dma.layout.set_up(&dma.window, BASE).unwrap().pairs;
    let device = dma.device();
    let _ = pairs.flush();
    pairs.take_notifications(|_| {});
    (pairs, device)
}

/// A frame whose number tells it from others, of a flow of its own.
fn frame(number: u16) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..2].copy_from_slice(&number.to_le_bytes());
    frame
}

#[test]
fn all_pairs_are_received_from_in_turn() {
    for rings in RingKind::ALL {
        let (mut pairs, mut device) = pairs(rings, 64);
        let each = 50;
        for number in 0..each {
            for pair in 0..PAIRS {
                let frame = frame(pair << 8 | number);
                assert!(device.deliver(pair.into(), &frame, Lies::default()));
            }
        }
        let mut buffer = [0; 2000];
        let mut order = Vec::new();
        while let Received::Frame { bytes, .. } = pairs.receive(&mut buffer).unwrap() {
            assert_eq!(bytes, 60);
            order.push((buffer[1], buffer[0]));
        }
        assert_eq!(order.len(), usize::from(PAIRS * each));
        // Nobody waits for more than the others' turns, and each pair's frames are in order.
        for pair in 0..PAIRS as u8 {
            let places: Vec<_> = (0..)
                .zip(&order)
                .filter(|(_, (of, _))| *of == pair)
                .collect();
            let turns = places
                .windows(2)
                .map(|two: &[(u32, _)]| two[1].0 - two[0].0);
            assert!(turns.max() <= Some((u32::from(PAIRS) - 1) * TURN + 1));
            assert!(places.is_sorted_by_key(|(_, (_, number))| number));
        }
        let counters: Vec<_> = pairs.counters().map(|pair| pair.received_frames).collect();
        assert_eq!(counters, [50; 3]);
    }
}

#[test]
fn the_device_is_told_of_the_queues_that_moved() {
    let (mut pairs, mut device) = pairs(RingKind::ALL[0], 16);
    let mut told = Vec::new();
    let mut buffer = [0; 2000];
    for number in 0..100 {
        while device.transmitted(0).is_some() {}
        assert_eq!(pairs.receive(&mut buffer).unwrap(), Received::Empty);
        let sent = pairs.send(&frame(number), Checksum::InFrame).unwrap();
        assert_eq!(sent, Sent::Taken);
        let decided = pairs.flush();
        let before = told.len();
        pairs.take_notifications(|queue| told.push(queue));
        assert_eq!(decided.any(), told.len() > before);
        assert!(told.len() <= before + 1, "one queue moved");
    }
    // Each transmit queue carried some flows; of receive queues, nothing was said.
    for pair in 0..PAIRS {
        assert!(told.contains(&QueueName::Transmitq(pair)), "{told:?}");
        assert!(!told.contains(&QueueName::Receiveq(pair)), "{told:?}");
    }
}

#[test]
fn a_flow_keeps_its_pair_until_that_is_full() {
    for rings in RingKind::ALL {
        let (mut pairs, mut device) = pairs(rings, 4);
        let frame = frame(7);
        let mut taken = 0;
        while pairs.can_send() {
            assert_eq!(pairs.send(&frame, Checksum::InFrame).unwrap(), Sent::Taken);
            taken += 1;
        }
        assert_eq!(pairs.send(&frame, Checksum::InFrame).unwrap(), Sent::Full);
        let sent: Vec<_> = pairs.counters().map(|pair| pair.sent_frames).collect();
        assert_eq!(sent, [taken / 3; 3], "each was filled");
        let _ = pairs.flush();
        for pair in 0..PAIRS.into() {
            while device.transmitted(pair).is_some() {}
        }
        assert!(pairs.can_send());
        for _ in 0..3 {
            assert_eq!(pairs.send(&frame, Checksum::InFrame).unwrap(), Sent::Taken);
        }
        let sent = pairs
            .counters()
            .zip(sent)
            .map(|(now, before)| now.sent_frames - before);
        assert_eq!(sent.filter(|frames| *frames == 3).count(), 1, "one flow");
    }
}
