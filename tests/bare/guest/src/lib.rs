//! The driver side of a ring, and both sides of tables, by C functions: what a guest without an operating system, an
//! allocator and the standard library links.
//!
//! The ring's type follows from the features. All memory is passed in.
#![no_std]

mod abi;
mod mirror;

use core::arch::asm;
use core::mem::{align_of, size_of};
use core::panic::PanicInfo;
use core::ptr::NonNull;
use core::slice;

use abi::{Area, Chain, FAULT, MOST_PIECES, NO, Piece, Returned, Setup, YES};
use shmbus_ring::any::{Areas, DriverRing, Layout};
use shmbus_ring::{AddError, Buffer, DriverQueue, DriverSlot, RingFeatures};
use shmbus_shm::{Bytes, MemoryType, Raw, RingFormat};
use shmbus_virtio::{Features, PrivateFeatures};

type Slot = DriverSlot<u64>;
type Queue = DriverQueue<DriverRing<Raw>, u64, &'static mut [Slot]>;

/// A driver, in the storage that was passed in.
pub struct Driver(Queue);

/// Where the slots lie in the storage.
const SLOTS: usize = size_of::<Driver>().next_multiple_of(align_of::<Slot>());

/// There is nobody to tell: an instruction that no processor has.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: whoever handles the exception does not come back.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("ud2", options(noreturn, nomem, nostack));
        #[cfg(target_arch = "aarch64")]
        asm!("udf #0", options(noreturn, nomem, nostack));
    }
}

/// How much storage a driver needs, in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn ring_storage_bytes(size: u16) -> usize {
    SLOTS + usize::from(size) * size_of::<Slot>()
}

/// Sets a driver up; formats what the driver writes. Null if something does not fit.
///
/// # Safety
///
/// All memory that is passed in stays there and is accessed by the driver alone, but for what it shares with the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_open(setup: &Setup) -> *mut Driver {
    // SAFETY: the caller's contract is the same.
    match unsafe { open(setup) } {
        Some(driver) => driver,
        None => core::ptr::null_mut(),
    }
}

/// # Safety
///
/// As for [`ring_open`].
unsafe fn open(setup: &Setup) -> Option<&'static mut Driver> {
    let features = RingFeatures {
        virtio: Features::from_words([setup.features, 0]),
        private: PrivateFeatures::from_bits_retain(setup.private),
    };
    let format = if features.private.contains(PrivateFeatures::RING_TAGGED) {
        RingFormat::Tagged
    } else if features.virtio.contains(Features::RING_PACKED) {
        RingFormat::Packed
    } else {
        RingFormat::Split
    };
    let layout = Layout::new(format, setup.size).ok()?;
    // SAFETY: the caller's contract covers all areas.
    let window = |area: Area| unsafe { window(area) };
    let common = match setup.common.bytes {
        0 => None,
        _ => Some(window(setup.common)?),
    };
    let areas = Areas::in_memories(
        layout,
        &window(setup.driver)?,
        &window(setup.device)?,
        common.as_ref(),
    );
    let ring = DriverRing::new(areas.ok()?, features).ok()?;

    let Area { start, bytes } = setup.storage;
    let place = NonNull::new(start)?.cast::<Driver>();
    if !place.is_aligned() || bytes < ring_storage_bytes(setup.size) {
        return None;
    }
    let size = usize::from(setup.size);
    // SAFETY: the storage has room for so many slots behind the driver, and they are aligned as the driver is.
    let slots = unsafe {
        let slots = start.add(SLOTS).cast::<Slot>();
        for index in 0..size {
            slots.add(index).write(Slot::new());
        }
        slice::from_raw_parts_mut(slots, size)
    };
    let queue = Queue::new(ring, slots).ok()?;
    // SAFETY: the storage is the driver's from now on, and big enough.
    unsafe {
        place.write(Driver(queue));
        Some(&mut *place.as_ptr())
    }
}

/// # Safety
///
/// The area's bytes are there as long as the window is used.
unsafe fn window(area: Area) -> Option<Raw> {
    let start = NonNull::new(area.start)?;
    // SAFETY: the caller's contract.
    Some(unsafe { Raw::new(start, area.bytes, MemoryType::Ordinary, ()) })
}

/// Places a chain; [`NO`] if there is no room now.
///
/// # Safety
///
/// The pieces are there, and the table is the driver's until the chain comes back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_add(driver: &mut Driver, chain: &Chain) -> i32 {
    let count = chain.readable.saturating_add(chain.writable);
    if count == 0 || count > MOST_PIECES {
        return FAULT;
    }
    // SAFETY: the caller's contract.
    let pieces = unsafe { slice::from_raw_parts(chain.pieces, count) };
    let mut buffers = [Buffer::default(); MOST_PIECES];
    for (buffer, Piece { address, len }) in buffers.iter_mut().zip(pieces) {
        *buffer = Buffer::new(*address, *len);
    }
    let (readable, writable) = buffers[..count].split_at(chain.readable);
    let queue = &mut driver.0;
    let result = if chain.table.bytes == 0 {
        queue.add(readable, writable, chain.cookie)
    } else {
        // SAFETY: the caller's contract.
        let Some(window) = (unsafe { window(chain.table) }) else {
            return FAULT;
        };
        let Ok(table) = Bytes::new(&window, 0, chain.table.bytes) else {
            return FAULT;
        };
        queue.add_indirect(
            readable,
            writable,
            &table,
            chain.table_address,
            chain.cookie,
        )
    };
    match result.map_err(|rejected| rejected.reason) {
        Ok(()) => YES,
        Err(AddError::Full { .. }) => NO,
        Err(_) => FAULT,
    }
}

/// Makes what was placed available; [`YES`] if the device must be told.
#[unsafe(no_mangle)]
pub extern "C" fn ring_publish(driver: &mut Driver) -> i32 {
    i32::from(driver.0.publish().is_needed())
}

/// Takes back a chain, if one is used.
#[unsafe(no_mangle)]
pub extern "C" fn ring_take(driver: &mut Driver, returned: &mut Returned) -> i32 {
    let queue = &mut driver.0;
    let used = match queue.take() {
        Ok(Some(used)) => Some(used),
        Ok(None) => match queue.poll().and_then(|_| queue.take()) {
            Ok(used) => used,
            Err(_) => return FAULT,
        },
        Err(_) => return FAULT,
    };
    match used {
        Some(used) => {
            *returned = Returned {
                cookie: used.cookie,
                written: used.written,
            };
            YES
        }
        None => NO,
    }
}

/// Asks not to be told of used chains.
#[unsafe(no_mangle)]
pub extern "C" fn ring_disable_notifications(driver: &mut Driver) {
    driver.0.disable_notifications();
}

/// Asks to be told of the next used chain; [`YES`] if the driver may sleep.
#[unsafe(no_mangle)]
pub extern "C" fn ring_enable_notifications(driver: &mut Driver) -> i32 {
    i32::from(driver.0.enable_notifications().is_empty())
}
