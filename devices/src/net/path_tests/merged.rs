//! Frames that come in several receive buffers, and devices that lie about them.

use super::super::driver::{DeviceError, MergeError};
use super::super::test_device::{BASE, Dma, Lies, TestDevice};
use super::*;
use proptest::prelude::*;
use shmbus_shm::Field;
use shmbus_virtio::{Features, net};

fn merging(rings: RingKind, size: u16, buffer_bytes: u32) -> Dma {
    let features = net::MRG_RXBUF | Features::EVENT_IDX;
    Dma::new(rings, features, 1, size, buffer_bytes)
}

fn set_up<W: Window>(dma: &Dma, window: &W) -> Driver<W> {
    let regions = dma.layout.pair_regions(0, window, BASE).unwrap();
    NetDriver::over_rings(&regions, dma.memory, dma.features).unwrap()
}

fn pair(dma: &Dma) -> (Driver<Mapped>, TestDevice) {
    let mut driver = set_up(dma, &dma.window);
    let device = dma.device();
    let _ = driver.flush();
    (driver, device)
}

#[test]
fn a_frame_comes_in_as_many_buffers_as_it_takes() {
    for rings in RingKind::ALL {
        for (size, buffer_bytes) in [(32, 64), (16, 128), (16, 576), (8, 1536)] {
            let (mut driver, mut device) = pair(&merging(rings, size, buffer_bytes));
            let (mut buffer, mut merged) = ([0; 2000], 0);
            for bytes in (14..=1518).step_by(if cfg!(miri) { 500 } else { 13 }) {
                let frame = noise(bytes);
                assert!(device.deliver(0, &frame, Lies::default()), "{bytes} bytes");
                let received = driver.receive(&mut buffer).unwrap();
                let expected = Received::Frame {
                    bytes,
                    checksum: Checksum::InFrame,
                };
                assert_eq!(received, expected);
                assert!(buffer[..bytes] == frame, "{bytes} bytes");
                assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Empty);
                let _ = driver.flush();
                merged += u64::from(12 + bytes > buffer_bytes as usize);
                assert_eq!(driver.merged_frames(), merged);
            }
        }
    }
}

/// What does not fit into the caller's memory is lost; its buffers are not.
#[test]
fn a_merged_frame_that_is_too_long_gives_all_its_buffers_back() {
    let (mut driver, mut device) = pair(&merging(SPLIT, 16, 256));
    let mut buffer = [0; 999];
    for _ in 0..20 {
        assert!(device.deliver(0, &noise(1000), Lies::default()));
        assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Discarded);
        assert!(device.deliver(0, &noise(999), Lies::default()));
        let received = driver.receive(&mut buffer).unwrap();
        assert!(matches!(received, Received::Frame { bytes: 999, .. }));
        let _ = driver.flush();
    }
    // No Ethernet frame, and no header.
    for bytes in [0, 13] {
        assert!(device.deliver(0, &noise(bytes), Lies::default()));
        assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Discarded);
    }
    let gap = 1;
    let lies = Lies {
        gap,
        ..Lies::default()
    };
    assert!(device.deliver(0, &[], lies));
    assert_eq!(driver.receive(&mut buffer).unwrap(), Received::Discarded);
}

#[test]
fn lies_about_merged_buffers_are_named_and_latched() {
    for rings in RingKind::ALL {
        let capacity = if rings.format == RingFormat::Tagged {
            15
        } else {
            16
        };
        let count = |found| MergeError::Count {
            found,
            lent: capacity,
        };
        let missing = |found, expected| MergeError::Missing { found, expected };
        let cases = [
            (Some(0), None, 0, count(0)),
            (Some(capacity + 1), None, 0, count(capacity + 1)),
            (Some(u16::MAX), None, 0, count(u16::MAX)),
            (None, Some(2), 0, missing(2, 4)),
            (Some(2), Some(1), 0, missing(1, 2)),
            (
                None,
                None,
                3,
                MergeError::NotFull {
                    part: 1,
                    parts: 4,
                    found: 253,
                    expected: 256,
                },
            ),
        ];
        for (num_buffers, parts, gap, expected) in cases {
            let (mut driver, mut device) = pair(&merging(rings, 16, 256));
            let lies = Lies {
                num_buffers,
                parts,
                gap,
            };
            assert!(device.deliver(0, &noise(1000), lies));
            for _ in 0..2 {
                let error = driver.receive(&mut [0; 2000]).unwrap_err();
                let PortError::Device(DeviceError::Merge(found)) = error else {
                    panic!("{rings}, {lies:?}: {error}");
                };
                assert_eq!(found, expected, "{rings}");
            }
        }
    }
}

/// Two frames' buffers taken for one frame's: more bytes than any frame has, and no byte outside.
#[test]
fn a_sum_over_the_limit_is_discarded() {
    let (mut driver, mut device) = pair(&merging(SPLIT, 32, 64));
    let lies = Lies {
        num_buffers: Some(32),
        ..Lies::default()
    };
    assert!(device.deliver(0, &noise(32 * 64 - 12), lies));
    let mut frame = [0; 1518];
    assert_eq!(driver.receive(&mut frame).unwrap(), Received::Discarded);
    let _ = driver.flush();
    assert!(device.deliver(0, &noise(1518), Lies::default()));
    assert!(driver.receive(&mut frame).is_ok());
}

#[test]
fn a_frame_is_sent_by_a_table_of_its_own() {
    for rings in RingKind::ALL {
        if rings.format == RingFormat::Tagged {
            continue; // it has no tables
        }
        let features = Features::INDIRECT_DESC | Features::EVENT_IDX;
        let (mut driver, mut device) = pair(&Dma::new(rings, features, 1, 8, 1536));
        for bytes in [14, 60, 1000, 1518, 14, 300, 200, 100, 50] {
            let frame = noise(bytes);
            let sent = driver.send(&frame, Checksum::InFrame).unwrap();
            assert_eq!(sent, Sent::Taken);
            let _ = driver.flush();
            let (found, buffers) = device.transmitted(0).unwrap();
            assert!(found == frame, "{bytes} bytes");
            assert_eq!(buffers, 2, "header and frame");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever a device says of a frame's buffers: a frame within the caller's memory, none, or a latched error; and
    /// each call ends.
    #[test]
    fn any_count_and_any_lengths_end_in_a_frame_or_an_error(
        which in 0..RingKind::ALL.len(),
        deliveries in prop::collection::vec(
            (0_usize..1600, prop::option::of(0_u16..40), prop::option::of(1_u16..8), 0_u32..12), 1..20),
    ) {
        let (mut driver, mut device) = pair(&merging(RingKind::ALL[which], 32, 64));
        let mut buffer = [0; 1518];
        for (bytes, num_buffers, parts, gap) in deliveries {
            if !device.deliver(0, &noise(bytes), Lies { num_buffers, parts, gap }) {
                break;
            }
            while let Ok(received) = driver.receive(&mut buffer) {
                match received {
                    Received::Frame { bytes, .. } => prop_assert!((14..=1518).contains(&bytes)),
                    Received::Discarded => {}
                    Received::Empty => break,
                }
            }
            if driver.fault().is_some() {
                prop_assert!(driver.receive(&mut buffer).is_err());
                break;
            }
            let _ = driver.flush();
        }
    }
}

/// A driver that is lied to by its memory at every look, with buffers that are smaller than frames, and tables.
#[test]
fn a_merging_driver_neither_panics_nor_hangs_on_memory_that_lies() {
    let rounds = if cfg!(miri) { 2 } else { 200 };
    let mut faults = 0;
    for rings in RingKind::ALL {
        let mut features = net::MRG_RXBUF | Features::EVENT_IDX;
        if rings.format != RingFormat::Tagged {
            features |= Features::INDIRECT_DESC;
        }
        for seed in 0..rounds {
            let dma = Dma::new(rings, features, 1, 32, 64);
            let hostile = Probed::new(dma.window.clone(), Hostile::new(seed, 20));
            let mut driver = set_up(&dma, &hostile);
            let mut frame = [0; 1518];
            for round in 0..20 {
                // The word of headers where a number of buffers is, which lies would seldom make a good one.
                for index in 0..32 {
                    let regions = dma.layout.pair_regions(0, &dma.window, BASE).unwrap();
                    let word = Field::<u16, _>::new(&regions.receiveq.buffers, 64 * index + 10);
                    word.unwrap()
                        .store(1 + round % 5, core::sync::atomic::Ordering::Relaxed);
                }
                let _ = (driver.send(&frame, Checksum::InFrame), driver.flush());
                for _ in 0..4 {
                    let _ = driver.receive(&mut frame);
                }
                if driver.fault().is_some() {
                    faults += 1;
                    driver.reset();
                }
            }
        }
    }
    assert!(cfg!(miri) || faults > 500, "{faults}");
}
