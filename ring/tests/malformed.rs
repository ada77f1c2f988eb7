//! Each thing that a driver or a device may write and must not: a typed fault that says what and where, and that
//! stays until the queue is reset.

mod support;

use shmbus_ring::{Buffer, ChainError, CompleteError, DeviceFault, DriverFault};
use shmbus_shm::AddressError;
use shmbus_virtio::Features;
use support::heap_ring::{Memory, bytes, set, space};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const SIZE: u16 = 4;
/// Where the tests' indirect table lies.
const TABLE: u64 = 64;

fn table(descriptors: &[(Buffer, u16, u16)]) -> Vec<u8> {
    descriptors
        .iter()
        .flat_map(|(buffer, flags, next)| {
            let mut bytes = buffer.address.to_le_bytes().to_vec();
            bytes.extend(buffer.len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            bytes
        })
        .collect()
}

/// Takes a chain whose descriptors are these, from 0 on, with an indirect table; answers what is wrong with it.
fn walk(
    features: Features,
    descriptors: &[(Buffer, u16, u16)],
    indirect: &[(Buffer, u16, u16)],
) -> Result<(Vec<Buffer>, Vec<Buffer>), ChainError> {
    let memory = Memory::new(SIZE);
    let mut device = memory.device(features);
    let space = space(4096);
    let rows = table(indirect);
    bytes(&space, Buffer::new(TABLE, rows.len() as u32)).copy_from(0, &rows);
    for (index, (buffer, flags, next)) in (0..).zip(descriptors) {
        memory.write_descriptor(index, *buffer, *flags, *next);
    }
    memory.write_available(0, 0);
    let mut segments = [Buffer::default(); 3];
    assert_eq!(device.poll(), Ok(1));
    match device.take(&space, &mut segments) {
        Ok(chain) => {
            let chain = chain.unwrap();
            Ok((chain.readable().to_vec(), chain.writable().to_vec()))
        }
        Err(fault) => {
            let DeviceFault::Chain {
                position: 0,
                head: 0,
                reason,
            } = fault
            else {
                panic!("{fault:?}");
            };
            // Latched: nothing more comes, and nothing was taken.
            assert_eq!(device.take(&space, &mut segments), Err(fault));
            assert_eq!(device.poll(), Err(fault));
            assert_eq!(device.fault(), Some(fault));
            assert_eq!(device.positions(), Default::default());
            device.reset();
            assert_eq!((device.fault(), device.poll()), (None, Ok(1)));
            Err(reason)
        }
    }
}

#[test]
fn malformed_chains_are_refused_with_the_reason() {
    let buffer = Buffer::new(512, 8);
    let direct = |descriptors: &[_]| walk(Features::empty(), descriptors, &[]);
    let indirect = |rows: &[(Buffer, u16, u16)]| {
        let descriptor = Buffer::new(TABLE, 16 * rows.len() as u32);
        walk(Features::INDIRECT_DESC, &[(descriptor, INDIRECT, 0)], rows)
    };

    assert_eq!(
        direct(&[(buffer, NEXT, 4)]),
        Err(ChainError::Next {
            next: 4,
            descriptors: 4
        })
    );
    let too_many = Err(ChainError::TooManyDescriptors { limit: 3 });
    assert_eq!(direct(&[(buffer, NEXT, 0)]), too_many, "a loop");
    assert_eq!(
        direct(&[(buffer, NEXT, 1), (buffer, NEXT, 0)]),
        too_many,
        "a loop of two"
    );
    assert_eq!(
        direct(&[
            (buffer, NEXT, 1),
            (buffer, NEXT, 2),
            (buffer, NEXT, 3),
            (buffer, 0, 0)
        ]),
        too_many,
        "more than the device takes"
    );
    assert_eq!(
        direct(&[(buffer, WRITE | NEXT, 2), (buffer, 0, 0), (buffer, 0, 0)]),
        Err(ChainError::ReadableAfterWritable { descriptor: 2 })
    );
    let huge = Buffer::new(0, 1 << 31);
    assert_eq!(
        direct(&[(huge, NEXT, 1), (huge, NEXT | WRITE, 2), (buffer, WRITE, 0)]),
        Err(ChainError::TooManyBytes)
    );
    assert!(
        direct(&[(huge, NEXT, 1), (huge, WRITE, 0)]).is_ok(),
        "exactly 2^32"
    );

    assert_eq!(
        direct(&[(Buffer::new(TABLE, 16), INDIRECT, 0)]),
        Err(ChainError::IndirectNotNegotiated)
    );
    assert_eq!(
        walk(
            Features::INDIRECT_DESC,
            &[(Buffer::new(TABLE, 16), INDIRECT | NEXT, 1)],
            &[(buffer, 0, 0)]
        ),
        Err(ChainError::IndirectWithNext { descriptor: 0 })
    );
    for len in [0, 15, 17] {
        assert_eq!(
            walk(
                Features::INDIRECT_DESC,
                &[(Buffer::new(TABLE, len), INDIRECT, 0)],
                &[]
            ),
            Err(ChainError::IndirectLength { len })
        );
    }
    assert_eq!(
        indirect(&[(buffer, NEXT, 1), (buffer, INDIRECT, 0)]),
        Err(ChainError::NestedIndirect { descriptor: 1 })
    );
    assert_eq!(
        indirect(&[(buffer, NEXT, 2), (buffer, 0, 0)]),
        Err(ChainError::Next {
            next: 2,
            descriptors: 2
        })
    );
    assert_eq!(indirect(&[(buffer, NEXT, 0)]), too_many);
    assert_eq!(
        walk(
            Features::INDIRECT_DESC,
            &[(Buffer::new(4090, 16), INDIRECT, 0)],
            &[]
        ),
        Err(ChainError::Address(AddressError::Unmapped {
            address: 4090,
            len: 16
        }))
    );
}

/// Virtio 1.4, section 2.7.5.3.2: the flag WRITE means nothing there, and direct descriptors may come before.
#[test]
fn a_device_handles_every_legal_indirect_chain() {
    let [a, b, c] = [8, 16, 24].map(|len| Buffer::new(512, len));
    let rows = [(b, NEXT, 2), (a, 0, 0), (c, WRITE, 0)];
    let descriptor = Buffer::new(TABLE, 48);
    for flags in [INDIRECT, INDIRECT | WRITE] {
        assert_eq!(
            walk(
                Features::INDIRECT_DESC,
                &[(a, NEXT, 1), (descriptor, flags, 0)],
                &rows
            ),
            Ok((vec![a, b], vec![c]))
        );
    }
}

/// A table longer than what is copied at a time, walked back and forth.
#[test]
fn a_long_indirect_table_is_walked_in_any_order() {
    let memory = Memory::new(64);
    let mut device = memory.device(Features::INDIRECT_DESC);
    let space = space(4096);
    // 0, 40, 1, 41, ... 19, 59.
    let order: Vec<u16> = (0..20).flat_map(|row| [row, row + 40]).collect();
    let mut rows = vec![(Buffer::default(), 0, 0); 60];
    for pair in order.windows(2) {
        rows[usize::from(pair[0])] = (Buffer::new(1, u32::from(pair[0])), NEXT, pair[1]);
    }
    rows[59] = (Buffer::new(1, 59), 0, 0);
    let rows = table(&rows);
    let descriptor = Buffer::new(TABLE, rows.len() as u32);
    bytes(&space, descriptor).copy_from(0, &rows);
    memory.write_descriptor(5, descriptor, INDIRECT, 0);
    memory.write_available(0, 5);
    let mut segments = [Buffer::default(); 64];
    device.poll().unwrap();
    let chain = device.take(&space, &mut segments).unwrap().unwrap();
    let lengths = chain.readable().iter().map(|buffer| buffer.len as u16);
    assert!(lengths.eq(order));
}

#[test]
fn wrong_available_indices_and_heads_are_refused() {
    let memory = Memory::new(SIZE);
    let space = space(64);
    let mut segments = [Buffer::default(); 4];
    let mut device = memory.device(Features::empty());
    set::<u16>(&memory.available, 2, SIZE + 1);
    assert_eq!(
        device.poll(),
        Err(DeviceFault::AvailableIndex {
            found: 5,
            expected: 0,
            outstanding: 0,
            size: 4
        })
    );

    device.reset();
    memory.write_available(0, SIZE);
    device.poll().unwrap();
    assert_eq!(
        device.take(&space, &mut segments),
        Err(DeviceFault::Head {
            position: 0,
            head: 4,
            size: 4
        })
    );

    // A chain that the device still has is made available again.
    device.reset();
    memory.write_descriptor(1, Buffer::new(0, 8), 0, 0);
    memory.write_available(0, 1);
    memory.write_available(1, 1);
    device.poll().unwrap();
    let first = device.take(&space, &mut segments).unwrap().unwrap();
    let first = first.into_head();
    assert_eq!(
        device.take(&space, &mut segments),
        Err(DeviceFault::HeadInFlight {
            position: 1,
            head: 1
        })
    );
    // The chain taken before the fault can still be returned.
    assert_eq!(device.complete(first, 0), Ok(()));

    // An index that goes back behind what a poll found.
    device.reset();
    set::<u16>(&memory.available, 2, 3);
    assert_eq!(device.poll(), Ok(3));
    set::<u16>(&memory.available, 2, 2);
    assert!(matches!(
        device.poll(),
        Err(DeviceFault::AvailableIndex { found: 2, .. })
    ));

    // Indices that go back behind what was taken, or on although all entries are out.
    for (size_ahead, found) in [(2, 1), (4, 5)] {
        device.reset();
        for entry in 0..size_ahead {
            memory.write_descriptor(entry, Buffer::new(0, 8), 0, 0);
            memory.write_available(entry, entry);
        }
        device.poll().unwrap();
        while let Some(chain) = device.take(&space, &mut segments).unwrap() {
            device.complete(chain, 0).unwrap();
        }
        set::<u16>(&memory.available, 2, found);
        assert_eq!(
            device.poll(),
            Err(DeviceFault::AvailableIndex {
                found,
                expected: size_ahead,
                outstanding: size_ahead,
                size: 4
            })
        );
    }
}

#[test]
fn a_buffer_that_lies_nowhere_fails_the_queue_where_it_is_used() {
    let memory = Memory::new(SIZE);
    let space = space(64);
    let mut driver = memory.driver(Features::empty());
    let mut device = memory.device(Features::empty());
    let mut segments = [Buffer::default(); 4];
    driver.add(&[Buffer::new(60, 8)], &[], ()).unwrap();
    assert!(driver.publish().is_needed());
    device.poll().unwrap();
    let chain = device.take(&space, &mut segments).unwrap().unwrap();
    let error = chain.read(&space, 0, &mut [0; 8]).unwrap_err();
    let fault = device.fail(chain, error);
    assert_eq!(
        fault,
        DeviceFault::Chain {
            position: 0,
            head: 0,
            reason: ChainError::Address(AddressError::Unmapped {
                address: 60,
                len: 8
            })
        }
    );
    assert_eq!(device.poll(), Err(fault));
}

#[test]
fn wrong_used_indices_are_refused() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.driver(Features::empty());
    for cookie in 0..3 {
        driver.add(&[Buffer::new(0, 8)], &[], cookie).unwrap();
    }
    // Placed, but not published: the device cannot have used it.
    memory.write_used(0, 0, 0);
    let fault = DriverFault::UsedIndex {
        found: 1,
        expected: 0,
        published: 0,
    };
    assert_eq!(driver.poll(), Err(fault));
    assert_eq!(driver.take(), Err(fault));
    let refused = driver.add(&[Buffer::new(0, 8)], &[], 9).unwrap_err();
    assert_eq!(refused.reason, fault.into());
    assert!(!driver.publish().is_needed(), "a stopped queue stays still");

    let mut returned = Vec::new();
    driver.reset(|cookie| returned.push(cookie));
    assert_eq!(returned, [0, 1, 2]);
    assert_eq!((driver.fault(), driver.free()), (None, SIZE));
    set::<u16>(&memory.used, 2, 0);

    for cookie in 0..3 {
        driver.add(&[Buffer::new(0, 8)], &[], cookie).unwrap();
    }
    let _ = driver.publish();
    memory.write_used(0, 0, 0);
    memory.write_used(1, 1, 0);
    assert_eq!(driver.poll(), Ok(2));
    set::<u16>(&memory.used, 2, 1);
    assert!(matches!(
        driver.poll(),
        Err(DriverFault::UsedIndex { found: 1, .. })
    ));
}

/// One chain is published and another only placed: the device may return one, but not that one.
#[test]
fn a_chain_that_is_not_published_cannot_come_back() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.driver(Features::empty());
    driver.add(&[Buffer::new(0, 8)], &[], "published").unwrap();
    let _ = driver.publish();
    driver.add(&[Buffer::new(0, 8)], &[], "placed").unwrap();
    memory.write_used(0, 1, 0);
    assert_eq!(driver.poll(), Ok(1));
    assert_eq!(
        driver.take(),
        Err(DriverFault::NotLent { position: 0, id: 1 })
    );
}

#[test]
fn a_device_that_miscounts_is_told() {
    let memory = Memory::new(SIZE);
    let space = space(64);
    let mut driver = memory.driver(Features::empty());
    let mut device = memory.device(Features::empty());
    let mut segments = [Buffer::default(); 4];
    for _ in 0..2 {
        driver.add(&[], &[Buffer::new(0, 8)], ()).unwrap();
    }
    let _ = driver.publish();
    device.poll().unwrap();
    let chain = device.take(&space, &mut segments).unwrap().unwrap();
    let refused = device.complete(chain, 9).unwrap_err();
    assert_eq!(
        refused.reason,
        CompleteError::TooLong {
            head: 0,
            written: 9,
            writable: 8
        }
    );
    assert_eq!(device.complete(refused.chain, 8), Ok(()));
    let chain = device.take(&space, &mut segments).unwrap().unwrap();
    device.reset();
    let refused = device.complete(chain, 8).unwrap_err();
    assert_eq!(refused.reason, CompleteError::NotTaken { head: 1 });
}
