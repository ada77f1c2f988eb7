//! Each thing that a driver or a device of a packed ring may write and must not: a typed fault that says what and
//! where, and that stays until the queue is reset.

mod support;

use shmbus_ring::packed::DriverRing;
use shmbus_ring::{Buffer, ChainError, DeviceFault, DriverFault, DriverQueue, SetupError};
use shmbus_shm::AddressError;
use shmbus_virtio::Features;
use support::heap_ring::{bytes, space};
use support::packed_ring::{AVAILABLE, INDIRECT, Memory, NEXT, USED, WRITE};

const SIZE: u16 = 5;
const TABLE: u64 = 64;
const START: u16 = 1 << 15;
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
        // The id is reserved there, so it may be anything.
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
                position: START,
                head: 2,
                reason,
            } = fault
            else {
                panic!("{fault:?}");
            };
            // Latched: nothing more comes, and nothing was taken.
            assert_eq!(device.take(&space, &mut segments), Err(fault));
            assert_eq!(device.poll(), Err(fault));
            assert_eq!(device.positions().available, START);
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
        Err(ChainError::NotAvailable { descriptor: 2 })
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

/// Virtio 1.4, section 2.8.7: in an indirect table only WRITE means something, and in the descriptor that refers to
/// it WRITE means nothing.
#[test]
fn a_device_handles_every_legal_indirect_table() {
    let [a, b, c] = [8, 16, 24].map(|len| Buffer::new(512, len));
    let ignored = NEXT | INDIRECT | AVAILABLE | USED;
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

#[test]
fn wrong_ids_and_descriptors_that_are_out_stop_the_device() {
    let space = space(4096);
    let mut segments = [Buffer::default(); SIZE as usize];
    for id in [SIZE, 255, 32767, 32768, u16::MAX] {
        let memory = Memory::new(SIZE);
        let mut device = memory.device(Features::empty());
        memory.write_available(0, BUFFER, id, 0);
        device.poll().unwrap();
        let fault = DeviceFault::Head {
            position: START,
            head: id,
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
            position: START | 1,
            head: 3
        })
    );
    // The chain taken before the fault can still be returned.
    assert_eq!(device.complete(first, 0), Ok(()));
    assert!(device.publish().is_needed());
    assert_eq!(memory.state(0), (0, 3, AVAILABLE | USED));

    // A driver that goes on into the next lap although nothing came back.
    let memory = Memory::new(SIZE);
    let mut device = memory.device(Features::empty());
    for at in 0..SIZE {
        memory.write_available(at, BUFFER, at, 0);
    }
    device.poll().unwrap();
    for _ in 0..SIZE {
        let _ = device
            .take(&space, &mut segments)
            .unwrap()
            .unwrap()
            .into_head();
    }
    memory.write(0, 0, 8, 4, USED);
    device.poll().unwrap();
    assert_eq!(
        device.take(&space, &mut segments),
        Err(DeviceFault::Overrun {
            position: 0,
            entries: 1,
            outstanding: SIZE,
            size: SIZE
        })
    );
}

#[test]
fn the_driver_believes_no_id_and_no_length() {
    let with_two_chains = || {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[BUFFER, BUFFER], "first").unwrap();
        driver.add(&[BUFFER], &[], "second").unwrap();
        let _ = driver.publish();
        driver.add(&[BUFFER], &[], "not published").unwrap();
        (memory, driver)
    };
    // Ids are 0 and 1; 2 is placed only.
    for id in [2, 3, 4, 5, 255, 32768, u16::MAX] {
        let (memory, mut driver) = with_two_chains();
        memory.write_used(0, id, 0);
        assert_eq!(driver.poll(), Ok(1));
        let fault = DriverFault::NotLent {
            position: START,
            id: u32::from(id),
        };
        assert_eq!(driver.take(), Err(fault));
        assert_eq!((driver.poll(), driver.take()), (Err(fault), Err(fault)));
        assert!(!driver.publish().is_needed(), "a stopped queue stays still");
        let mut returned = Vec::new();
        driver.reset(|cookie| returned.push(cookie));
        assert_eq!(returned, ["first", "second", "not published"]);
        assert_eq!((driver.fault(), driver.free()), (None, SIZE));
        assert_eq!(driver.poll(), Ok(0), "the ring is formatted anew");
    }

    let (memory, mut driver) = with_two_chains();
    memory.write_used(0, 0, 16);
    memory.write_used(3, 0, 0);
    assert_eq!(driver.poll(), Ok(1));
    assert_eq!(driver.take().unwrap().unwrap().cookie, "first");
    assert_eq!(
        driver.take(),
        Err(DriverFault::NotLent {
            position: START | 3,
            id: 0
        }),
        "completed twice"
    );

    for (id, written, writable) in [(0, 17, 16), (1, 1, 0), (0, u32::MAX, 16)] {
        let (memory, mut driver) = with_two_chains();
        memory.write_used(0, id, written);
        driver.poll().unwrap();
        assert_eq!(
            driver.take(),
            Err(DriverFault::TooLong {
                position: START,
                id,
                written,
                writable
            })
        );
    }

    // Without WRITE the length is reserved (virtio 1.4, section 2.8.4).
    let (memory, mut driver) = with_two_chains();
    memory.write(0, 0, u32::MAX, 1, AVAILABLE | USED | NEXT | INDIRECT);
    driver.poll().unwrap();
    let used = driver.take().unwrap().unwrap();
    assert_eq!((used.cookie, used.written), ("second", 0));
}

/// QEMU's devices write the length and leave WRITE out; Linux's driver looks at the length alone.
#[test]
fn a_length_without_the_write_flag_counts_if_the_chain_can_have_it() {
    for (written, expected) in [(0, 0), (5, 5), (16, 16), (17, 0), (u32::MAX, 0)] {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[BUFFER, BUFFER], ()).unwrap();
        let _ = driver.publish();
        memory.write(0, 0, written, 0, AVAILABLE | USED);
        driver.poll().unwrap();
        assert_eq!(driver.take().unwrap().unwrap().written, expected);

        let mut driver = memory.in_order_driver(Features::empty());
        driver.add(&[BUFFER], &[BUFFER, BUFFER], ()).unwrap();
        let _ = driver.publish();
        memory.write(0, 0, written, 0, AVAILABLE | USED);
        driver.poll().unwrap();
        assert_eq!(driver.take().unwrap().unwrap().written, expected);
    }
}

const MODERN: Features = Features::VERSION_1.union(Features::RING_PACKED);

#[test]
fn what_the_ring_cannot_do_is_refused_at_set_up() {
    let memory = Memory::new(SIZE);
    for (features, refused) in [
        (MODERN | Features::IN_ORDER, Features::IN_ORDER),
        (Features::NOTIFY_ON_EMPTY, Features::NOTIFY_ON_EMPTY),
    ] {
        assert_eq!(
            DriverRing::new(memory.areas(), features).unwrap_err(),
            SetupError::Unsupported {
                bits: refused.bits()
            }
        );
    }
    for position in [SIZE, START | SIZE, 0x7fff, 0xffff] {
        let ring = DriverRing::new(memory.areas(), MODERN).unwrap();
        assert_eq!(
            DriverQueue::<_, (), _>::with_heap_at(ring, position).unwrap_err(),
            SetupError::Position {
                position,
                size: SIZE
            }
        );
    }
}
