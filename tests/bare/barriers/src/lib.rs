//! The operations of rings that order memory, one function each, to be looked at in assembly.
#![no_std]

use shmbus_ring::{DeviceQueue, DeviceSlot, DriverQueue, DriverSlot, packed, split, tagged};
use shmbus_shm::Raw;

#[cfg(feature = "dma")]
type Scope = shmbus_shm::Dma;
#[cfg(not(feature = "dma"))]
type Scope = shmbus_shm::Smp;

type Driver<R> = DriverQueue<R, u64, &'static mut [DriverSlot<u64>]>;
type Device<R> = DeviceQueue<R, &'static mut [DeviceSlot]>;

/// What either side does: it publishes, looks for what the other side published, and asks to be told.
macro_rules! operations {
    ($($queue:ty: $publish:ident, $poll:ident, $enable:ident;)*) => {$(
        #[unsafe(no_mangle)]
        fn $publish(queue: &mut $queue) -> bool {
            queue.publish().is_needed()
        }

        #[unsafe(no_mangle)]
        fn $poll(queue: &mut $queue) -> bool {
            queue.poll().is_ok()
        }

        #[unsafe(no_mangle)]
        fn $enable(queue: &mut $queue) -> bool {
            queue.enable_notifications().is_empty()
        }
    )*};
}

/// A packed or tagged ring's next entry is looked at when it is taken.
macro_rules! takes {
    ($($queue:ty: $take:ident;)*) => {$(
        #[unsafe(no_mangle)]
        fn $take(queue: &mut $queue) -> bool {
            matches!(queue.take(), Ok(Some(_)))
        }
    )*};
}

takes! {
    Driver<packed::DriverRing<Raw<Scope>>>: packed_driver_take;
    Driver<tagged::DriverRing<Raw<Scope>>>: tagged_driver_take;
}

operations! {
    Driver<split::DriverRing<Raw<Scope>>>:
        split_driver_publish, split_driver_poll, split_driver_enable;
    Driver<split::InOrderDriverRing<Raw<Scope>>>:
        split_in_order_driver_publish, split_in_order_driver_poll, split_in_order_driver_enable;
    Driver<packed::DriverRing<Raw<Scope>>>:
        packed_driver_publish, packed_driver_poll, packed_driver_enable;
    Driver<packed::InOrderDriverRing<Raw<Scope>>>:
        packed_in_order_driver_publish, packed_in_order_driver_poll, packed_in_order_driver_enable;
    Driver<tagged::DriverRing<Raw<Scope>>>:
        tagged_driver_publish, tagged_driver_poll, tagged_driver_enable;
    Device<split::DeviceRing<Raw<Scope>>>:
        split_device_publish, split_device_poll, split_device_enable;
    Device<split::InOrderDeviceRing<Raw<Scope>>>:
        split_in_order_device_publish, split_in_order_device_poll, split_in_order_device_enable;
    Device<packed::DeviceRing<Raw<Scope>>>:
        packed_device_publish, packed_device_poll, packed_device_enable;
    Device<packed::InOrderDeviceRing<Raw<Scope>>>:
        packed_in_order_device_publish, packed_in_order_device_poll, packed_in_order_device_enable;
    Device<tagged::DeviceRing<Raw<Scope>>>:
        tagged_device_publish, tagged_device_poll, tagged_device_enable;
}
