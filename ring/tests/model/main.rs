//! Driver against device, and both against a model, in every format: random batches, chains, indirect tables,
//! suppression, resets, completion in any order, and either side saved and restored, from any start position, so that
//! indices wrap.

mod direction;
mod rules;
mod run;
mod saved;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use proptest::prelude::*;
use rules::Rules;
use run::Run;
use shmbus_ring::{RingFeatures, RingKind, any, packed, split, tagged};
use shmbus_shm::RingFormat;
use shmbus_virtio::Features;
use steps::{Step, features, steps};
use support::heap_ring::Memory;
use support::{IN_ORDER, packed_ring, tagged_ring};

fn run_split(size: u16, position: u16, features: Features, halves: bool, steps: &[Step]) {
    let memory = if halves {
        Memory::with_halves(size)
    } else {
        Memory::new(size)
    };
    let areas = || memory.areas();
    if features.contains(Features::IN_ORDER) {
        let driver = || split::InOrderDriverRing::new(areas(), features).unwrap();
        let device = || split::InOrderDeviceRing::new(areas(), features).unwrap();
        let rules = Rules::SPLIT.in_order();
        Run::new(&driver, &device, rules, position, features).run(steps);
    } else {
        let driver = || split::DriverRing::new(areas(), features).unwrap();
        let device = || split::DeviceRing::new(areas(), features).unwrap();
        Run::new(&driver, &device, Rules::SPLIT, position, features).run(steps);
    }
}

fn run_packed(size: u16, position: u16, features: Features, steps: &[Step]) {
    let memory = packed_ring::Memory::new(size);
    let areas = || memory.areas();
    let rules = Rules::packed(size);
    if features.contains(Features::IN_ORDER) {
        let driver = || packed::InOrderDriverRing::new(areas(), features).unwrap();
        let device = || packed::InOrderDeviceRing::new(areas(), features).unwrap();
        Run::new(&driver, &device, rules.in_order(), position, features).run(steps);
    } else {
        let driver = || packed::DriverRing::new(areas(), features).unwrap();
        let device = || packed::DeviceRing::new(areas(), features).unwrap();
        Run::new(&driver, &device, rules, position, features).run(steps);
    }
}

fn run_tagged(size: u16, half: bool, position: u16, features: Features, steps: &[Step]) {
    let memory = tagged_ring::Memory::new(size);
    let areas = || memory.areas();
    let driver = || {
        let ring = tagged::DriverRing::new(areas(), features).unwrap();
        if half {
            ring.with_half_distance()
        } else {
            ring
        }
    };
    let device = || tagged::DeviceRing::new(areas(), features).unwrap();
    let run = Run::new(&driver, &device, Rules::TAGGED, position, features);
    assert_eq!(run.capacity, if half { size / 2 } else { size - 1 });
    run.run(steps);
}

/// By rings whose type is known at run time only.
fn run_any(kind: RingKind, position: u16, features: Features, steps: &[Step]) {
    const SIZE: u16 = 16;
    let (areas, rules) = match kind.format {
        RingFormat::Split => (any::Areas::Split(Memory::new(SIZE).areas()), Rules::SPLIT),
        RingFormat::Packed => (
            any::Areas::Packed(packed_ring::Memory::new(SIZE).areas()),
            Rules::packed(SIZE),
        ),
        RingFormat::Tagged => (
            any::Areas::Tagged(tagged_ring::Memory::new(SIZE).areas()),
            Rules::TAGGED,
        ),
    };
    let rules = if kind.in_order {
        rules.in_order()
    } else {
        rules
    };
    let features = features | Features::VERSION_1 | kind.features();
    let negotiated = RingFeatures::from(features).with_private(kind.private_features());
    let driver = || any::DriverRing::new(areas.clone(), negotiated).unwrap();
    let device = || any::DeviceRing::new(areas.clone(), negotiated).unwrap();
    Run::new(&driver, &device, rules, position, features).run(steps);
}

fn any_position() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), 0xff80_u16..=0xffff]
}

/// A size that need be no power of two, and a position that a packed ring of that size has.
fn size_and_position() -> impl Strategy<Value = (u16, u16)> {
    (1_u16..33, any::<bool>()).prop_flat_map(|(size, wrap)| {
        (
            Just(size),
            (0..size).prop_map(move |offset| offset | u16::from(wrap) << 15),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_sides_of_a_split_ring_do_what_the_model_does(
        shift in 0_u32..6,
        position in any_position(),
        features in features(),
        halves: bool,
        steps in steps(),
    ) {
        run_split(1 << shift, position, features, halves, &steps);
    }

    #[test]
    fn both_sides_of_a_split_ring_in_order_do_what_the_model_does(
        shift in 0_u32..6,
        position in any_position(),
        features in features(),
        halves: bool,
        steps in steps(),
    ) {
        run_split(1 << shift, position, features | IN_ORDER, halves, &steps);
    }

    #[test]
    fn both_sides_of_a_packed_ring_do_what_the_model_does(
        (size, position) in size_and_position(),
        features in features(),
        steps in steps(),
    ) {
        run_packed(size, position, features, &steps);
    }

    #[test]
    fn both_sides_of_a_packed_ring_in_order_do_what_the_model_does(
        (size, position) in size_and_position(),
        features in features(),
        steps in steps(),
    ) {
        run_packed(size, position, features | IN_ORDER, &steps);
    }

    #[test]
    fn both_sides_of_a_ring_of_any_type_do_what_the_model_does(
        kind in prop::sample::select(RingKind::ALL.as_slice()),
        position in 0_u16..16,
        features in features(),
        steps in steps(),
    ) {
        run_any(kind, position, features, &steps);
    }

    #[test]
    fn both_sides_of_a_tagged_ring_do_what_the_model_does(
        shift in 1_u32..6,
        half: bool,
        position in any_position(),
        features in features(),
        steps in steps(),
    ) {
        run_tagged(1 << shift, half, position, features, &steps);
    }
}
