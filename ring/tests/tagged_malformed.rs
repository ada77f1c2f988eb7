//! Each thing that a driver or a device of a tagged ring may write and must not: a typed fault that says what and
//! where, and that stays until the queue is reset.

mod support;

use shmbus_ring::tagged::{DeviceRing, DriverRing};
use shmbus_ring::{
    AddError, Buffer, ChainError, DeviceFault, DriverFault, RingFeatures, SetupError,
};
use shmbus_shm::AddressError;
use shmbus_virtio::{Features, PrivateFeatures};
use support::heap_ring::{bytes, space};
use support::tagged_ring::{CLAIMED, INDIRECT, Memory, NEXT, USED, WALL, WRITE};

const SIZE: u16 = 8;
const TABLE: u64 = 64;
const BUFFER: Buffer = Buffer::new(512, 8);

/// Takes a chain whose descriptors are these, from 0 on, with an indirect table; answers what is wrong with it.
fn walk(
    features: Features,
    descriptors: &[(Buffer, u16)],
    indirect: &[(Buffer, u16)],
) -> Result<(Vec<Buffer>, Vec<Buffer>), ChainError> {
    let memory = Memory::new(SIZE);
    let mut device = memory.device(features);
    let space = space(4096);
    for (row, (buffer, flags)) in (0..).zip(indirect) {
        let mut row_bytes = buffer.address.to_le_bytes().to_vec();
        row_bytes.extend(buffer.len.to_le_bytes());
        // A row has no tag: what lies there may be anything.
        row_bytes.extend(0xeeee_u16.to_le_bytes());
        row_bytes.extend(flags.to_le_bytes());
        bytes(&space, Buffer::new(TABLE + 16 * row, 16)).copy_from(0, &row_bytes);
    }
    for (index, (buffer, flags)) in (0..).zip(descriptors) {
        memory.write_available(index, *buffer, 2, *flags);
    }
    let mut segments = [Buffer::default(); 3];
    assert_eq!(device.poll(), Ok(1));
    match device.take(&space, &mut segments) {
        Ok(chain) => {
            let chain = chain.unwrap();
            assert_eq!((chain.index(), device.positions().in_flight), (2, 1));
            Ok((chain.readable().to_vec(), chain.writable().to_vec()))
        }
        Err(fault) => {
            let DeviceFault::Chain {
                position: 0,
                head: 2,
                reason,
            } = fault
            else {
                panic!("{fault:?}");
            };
            // Latched: nothing more comes, and nothing was taken.
            assert_eq!(device.take(&space, &mut segments), Err(fault));
            assert_eq!(device.poll(), Err(fault));
            assert_eq!(device.positions().available, 0);
            device.reset();
            assert_eq!((device.fault(), device.poll()), (None, Ok(1)));
            Err(reason)
        }
    }
}

#[test]
fn malformed_chains_are_refused_with_the_reason() {
    let direct = |descriptors: &[_]| walk(Features::empty(), descriptors, &[]);
    let indirect = |descriptors: &[_], rows: &[_]| walk(Features::INDIRECT_DESC, descriptors, rows);
    let table = |rows: u32| Buffer::new(TABLE, 16 * rows);

    let too_many = Err(ChainError::TooManyDescriptors { limit: 3 });
    assert_eq!(direct(&[(BUFFER, NEXT); 4]), too_many);
    assert_eq!(
        direct(&[(BUFFER, NEXT), (BUFFER, NEXT)]),
        Err(ChainError::NotAvailable { descriptor: 2 }),
        "the wall within a chain"
    );
    assert_eq!(
        direct(&[(BUFFER, WRITE | NEXT), (BUFFER, 0)]),
        Err(ChainError::ReadableAfterWritable { descriptor: 1 })
    );
    let huge = Buffer::new(0, 1 << 31);
    assert_eq!(
        direct(&[(huge, NEXT), (huge, NEXT | WRITE), (BUFFER, WRITE)]),
        Err(ChainError::TooManyBytes)
    );
    assert!(
        direct(&[(huge, NEXT), (huge, WRITE)]).is_ok(),
        "exactly 2^32"
    );

    assert_eq!(
        direct(&[(table(1), INDIRECT)]),
        Err(ChainError::IndirectNotNegotiated)
    );
    assert_eq!(
        indirect(&[(table(1), INDIRECT | NEXT), (BUFFER, 0)], &[(BUFFER, 0)]),
        Err(ChainError::IndirectWithNext { descriptor: 0 })
    );
    assert_eq!(
        indirect(&[(BUFFER, NEXT), (table(1), INDIRECT)], &[(BUFFER, 0)]),
        Err(ChainError::IndirectInChain { descriptor: 1 })
    );
    for len in [0, 15, 17] {
        assert_eq!(
            indirect(&[(Buffer::new(TABLE, len), INDIRECT)], &[]),
            Err(ChainError::IndirectLength { len })
        );
    }
    assert_eq!(
        indirect(&[(table(4), INDIRECT)], &[(BUFFER, 0); 4]),
        too_many
    );
    assert_eq!(
        indirect(&[(Buffer::new(TABLE, u32::MAX - 15), INDIRECT)], &[]),
        too_many,
        "the longest table"
    );
    assert_eq!(
        indirect(&[(table(2), INDIRECT)], &[(BUFFER, WRITE), (BUFFER, 0)]),
        Err(ChainError::ReadableAfterWritable { descriptor: 1 })
    );
    assert_eq!(
        indirect(&[(Buffer::new(4090, 16), INDIRECT)], &[]),
        Err(ChainError::Address(AddressError::Unmapped {
            address: 4090,
            len: 16
        }))
    );
}

/// In an indirect table only WRITE means something, and in the descriptor that refers to it WRITE means nothing.
#[test]
fn a_device_handles_every_legal_indirect_table() {
    let [a, b, c] = [8, 16, 24].map(|len| Buffer::new(512, len));
    let ignored = NEXT | INDIRECT | CLAIMED;
    for flags in [INDIRECT, INDIRECT | WRITE] {
        assert_eq!(
            walk(
                Features::INDIRECT_DESC,
                &[(Buffer::new(TABLE, 48), flags)],
                &[(a, ignored), (b, 0), (c, WRITE | ignored)],
            ),
            Ok((vec![a, b], vec![c]))
        );
    }
}

/// Whatever is not available stops it: the wall, what was used or is about to be.
#[test]
fn a_device_stops_at_whatever_is_not_available() {
    for state in [WALL, USED, CLAIMED] {
        let memory = Memory::new(SIZE);
        let mut device = memory.device(Features::empty());
        memory.write(0, 512, 8, 0, state);
        memory.write_available(1, BUFFER, 1, 0);
        assert_eq!(device.poll(), Ok(0));
        memory.write_available(0, BUFFER, 0, NEXT);
        memory.write(1, 512, 8, 0, state);
        assert_eq!(device.poll(), Ok(1));
        assert!(matches!(
            device.take(&space(64), &mut [Buffer::default(); 4]),
            Err(DeviceFault::Chain {
                reason: ChainError::NotAvailable { descriptor: 1 },
                ..
            })
        ));
    }
}

#[test]
fn wrong_tags_stop_the_device() {
    let space = space(4096);
    let mut segments = [Buffer::default(); SIZE as usize];
    for tag in [SIZE, 255, 32767, 32768, u16::MAX] {
        let memory = Memory::new(SIZE);
        let mut device = memory.device(Features::empty());
        memory.write_available(0, BUFFER, tag, 0);
        device.poll().unwrap();
        let fault = DeviceFault::Head {
            position: 0,
            head: tag,
            size: SIZE,
        };
        assert_eq!(device.take(&space, &mut segments), Err(fault));
        assert_eq!(device.poll(), Err(fault));
    }

    let memory = Memory::new(SIZE);
    let mut device = memory.device(Features::empty());
    memory.write_available(0, BUFFER, 3, 0);
    memory.write_available(1, BUFFER, 3, 0);
    device.poll().unwrap();
    let first = device.take(&space, &mut segments).unwrap().unwrap();
    let first = first.into_head();
    assert_eq!(
        device.take(&space, &mut segments),
        Err(DeviceFault::HeadInFlight {
            position: 1,
            head: 3
        })
    );
    // The chain taken before the fault can still be returned.
    assert_eq!(device.complete(first, 0), Ok(()));
    assert!(device.publish().is_needed());
    assert_eq!(memory.label(0), (0, 3, USED));
}

#[test]
fn a_ring_without_a_wall_has_an_end_for_the_device() {
    let space = space(4096);
    let mut segments = [Buffer::default(); SIZE as usize];
    let overrun = |position, entries, outstanding| DeviceFault::Overrun {
        position,
        entries,
        outstanding,
        size: SIZE,
    };
    let without_wall = || {
        let memory = Memory::new(SIZE);
        for at in 0..SIZE {
            memory.write_available(at, BUFFER, at, 0);
        }
        memory
    };

    // Nothing comes back: all but one entry, and no more.
    let memory = without_wall();
    let mut device = memory.device(Features::empty());
    device.poll().unwrap();
    for _ in 1..SIZE {
        let _ = device
            .take(&space, &mut segments)
            .unwrap()
            .unwrap()
            .into_head();
    }
    let fault = overrun(SIZE - 1, 1, SIZE - 1);
    assert_eq!(device.take(&space, &mut segments), Err(fault));
    assert_eq!(device.poll(), Err(fault));

    // What was completed and not published is still out.
    let memory = without_wall();
    let mut device = memory.device(Features::empty());
    device.poll().unwrap();
    for _ in 1..SIZE {
        let chain = device.take(&space, &mut segments).unwrap().unwrap();
        device.complete(chain, 0).unwrap();
    }
    assert_eq!(device.take(&space, &mut segments), Err(fault));

    // A chain all round the ring.
    let memory = Memory::new(SIZE);
    for at in 0..SIZE {
        let next = if at + 1 < SIZE { NEXT } else { 0 };
        memory.write_available(at, BUFFER, 0, next);
    }
    let mut device = memory.device(Features::empty());
    device.poll().unwrap();
    assert_eq!(device.take(&space, &mut segments), Err(overrun(0, SIZE, 0)));
}

#[test]
fn the_driver_believes_no_tag_and_no_length() {
    let with_two_chains = || {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[BUFFER, BUFFER], "first").unwrap();
        driver.add(&[BUFFER], &[], "second").unwrap();
        let _ = driver.publish();
        driver.add(&[BUFFER], &[], "not published").unwrap();
        (memory, driver)
    };
    // Tags are 0 and 1; 2 is placed only.
    for tag in [2, 3, 4, SIZE, 255, 32768, u16::MAX] {
        let (memory, mut driver) = with_two_chains();
        memory.write_used(0, tag, 0);
        assert_eq!(driver.poll(), Ok(1));
        let fault = DriverFault::NotLent {
            position: 0,
            id: u32::from(tag),
        };
        assert_eq!(driver.take(), Err(fault));
        assert_eq!((driver.poll(), driver.take()), (Err(fault), Err(fault)));
        let refused = driver.add(&[BUFFER], &[], "more").unwrap_err();
        assert_eq!(refused.reason, AddError::Faulted(fault));
        assert!(!driver.publish().is_needed(), "a stopped queue stays still");
        let mut returned = Vec::new();
        driver.reset(|cookie| returned.push(cookie));
        assert_eq!(returned, ["first", "second", "not published"]);
        assert_eq!((driver.fault(), driver.free()), (None, SIZE - 1));
        assert_eq!(memory.states(), [WALL; SIZE as usize]);
    }

    let (memory, mut driver) = with_two_chains();
    memory.write_used(0, 0, 16);
    memory.write_used(3, 0, 0);
    assert_eq!(driver.poll(), Ok(1));
    assert_eq!(driver.take().unwrap().unwrap().cookie, "first");
    assert_eq!(
        driver.take(),
        Err(DriverFault::NotLent { position: 3, id: 0 }),
        "completed twice"
    );

    for (id, written, writable) in [(0, 17, 16), (1, 1, 0), (0, u32::MAX, 16)] {
        let (memory, mut driver) = with_two_chains();
        memory.write_used(0, id, written);
        driver.poll().unwrap();
        assert_eq!(
            driver.take(),
            Err(DriverFault::TooLong {
                position: 0,
                id,
                written,
                writable
            })
        );
    }
}

/// What the device leaves where no completion is looked for is not looked at; what it has only claimed is not used.
#[test]
fn the_driver_looks_for_the_next_completion_only() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.driver(Features::empty());
    memory.write_used(0, 0, 0);
    assert_eq!(driver.poll(), Ok(0), "nothing is in flight");
    driver.add(&[BUFFER], &[BUFFER], "only").unwrap();
    let _ = driver.publish();
    for at in 1..SIZE {
        memory.write_used(at, 0, 0);
    }
    assert_eq!(driver.poll(), Ok(0));
    memory.write(0, 0, 0, 0, CLAIMED);
    assert_eq!(driver.poll(), Ok(0));
    // In a completion the flags are reserved.
    memory.write(0, 0, 8, 0, USED | NEXT | WRITE | INDIRECT);
    assert_eq!(driver.poll(), Ok(1));
    let used = driver.take().unwrap().unwrap();
    assert_eq!((used.cookie, used.written), ("only", 8));
    assert_eq!(driver.take(), Ok(None), "nothing is in flight");
}

#[test]
fn what_the_ring_cannot_do_is_refused_at_set_up() {
    let memory = Memory::new(SIZE);
    for (features, refused) in [
        (Features::VERSION_1 | Features::IN_ORDER, Features::IN_ORDER),
        (
            Features::VERSION_1 | Features::RING_PACKED,
            Features::RING_PACKED,
        ),
        (Features::NOTIFY_ON_EMPTY, Features::NOTIFY_ON_EMPTY),
    ] {
        let expected = SetupError::Unsupported {
            bits: refused.bits(),
        };
        assert_eq!(
            DriverRing::new(memory.areas(), features).unwrap_err(),
            expected
        );
        assert_eq!(
            DeviceRing::new(memory.areas(), features).unwrap_err(),
            expected
        );
    }
    let private = |private| RingFeatures::default().with_private(private);
    assert!(DriverRing::new(memory.areas(), private(PrivateFeatures::RING_TAGGED)).is_ok());
    assert_eq!(
        DriverRing::new(memory.areas(), private(PrivateFeatures::PUBLISH_INDICES)).unwrap_err(),
        SetupError::UnsupportedPrivate {
            bits: PrivateFeatures::PUBLISH_INDICES.bits()
        },
        "there is no place for them"
    );

    // A chain that never fits does not wait for room.
    let mut driver = memory.driver(Features::empty());
    let refused = driver
        .add(&[BUFFER; SIZE as usize], &[], "long")
        .unwrap_err();
    assert_eq!(
        refused.reason,
        AddError::TooManyDescriptors {
            needed: usize::from(SIZE),
            limit: usize::from(SIZE) - 1
        }
    );
    assert_eq!(refused.cookie, "long");
    assert_eq!((driver.size(), driver.capacity()), (SIZE, SIZE - 1));
}

#[test]
fn a_queue_is_rebound_to_the_same_ring_elsewhere_and_to_no_other() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.driver(Features::empty());
    let mut device = memory.device(Features::empty());
    driver.add(&[BUFFER], &[], "before").unwrap();
    let _ = driver.publish();

    // A copy stands for the same memory at another address.
    let elsewhere = Memory::new(SIZE);
    for at in 0..SIZE {
        let (len, tag, flags) = memory.label(at);
        elsewhere.write(at, 512, len, tag, flags);
    }
    driver.rebind(elsewhere.areas()).unwrap();
    device.rebind(elsewhere.areas()).unwrap();
    memory.write(0, 0, 0, 0, WALL);
    device.poll().unwrap();
    let mut segments = [Buffer::default(); 2];
    let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
    device.complete(chain, 0).unwrap();
    let _ = device.publish();
    driver.poll().unwrap();
    assert_eq!(driver.take().unwrap().unwrap().cookie, "before");

    let other = Memory::new(2 * SIZE).areas();
    let refused = Err(SetupError::OtherSize {
        found: 2 * SIZE,
        expected: SIZE,
    });
    assert_eq!(driver.rebind(other.clone()), refused);
    assert_eq!(device.rebind(other), refused);
}
