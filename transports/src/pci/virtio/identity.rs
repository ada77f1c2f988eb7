//! Which virtio device a function is (virtio 1.4, section 4.1.2).

use shmbus_virtio::DeviceId;

use super::error::LayoutError;
use crate::pci::address::Identity;

const VENDOR: u16 = 0x1af4;
const FIRST_MODERN: u16 = 0x1040;
const LAST_MODERN: u16 = 0x107f;

/// The type of a virtio device. A transitional device is one too: its modern interface is used.
///
/// # Errors
///
/// [`LayoutError::NotVirtio`].
pub fn device_id(identity: Identity) -> Result<DeviceId, LayoutError> {
    let Identity { vendor, device } = identity;
    let number = match (vendor, device) {
        (VENDOR, FIRST_MODERN..=LAST_MODERN) => device - FIRST_MODERN,
        // Network, block, memory balloon, console, SCSI host, entropy source, 9P.
        (VENDOR, 0x1000) => 1,
        (VENDOR, 0x1001) => 2,
        (VENDOR, 0x1002) => 5,
        (VENDOR, 0x1003) => 3,
        (VENDOR, 0x1004) => 8,
        (VENDOR, 0x1005) => 4,
        (VENDOR, 0x1009) => 9,
        _ => return Err(LayoutError::NotVirtio { found: identity }),
    };
    Ok(DeviceId(number.into()))
}
