//! virtio-net's feature bits (virtio 1.4, section 5.1.3) and queue numbers.

use crate::features::Features;

/// The device handles packets with partial checksums.
pub const CSUM: Features = Features::bit(0);
/// The driver handles packets with partial checksums.
pub const GUEST_CSUM: Features = Features::bit(1);
/// The device states a maximum transmission unit.
pub const MTU: Features = Features::bit(3);
/// The device states its MAC address.
pub const MAC: Features = Features::bit(5);
/// The driver can merge receive buffers.
pub const MRG_RXBUF: Features = Features::bit(15);
/// The configuration has a status field.
pub const STATUS: Features = Features::bit(16);
/// There is a control queue.
pub const CTRL_VQ: Features = Features::bit(17);
/// There are several queue pairs.
pub const MQ: Features = Features::bit(22);

/// Queue number of receiveq1.
pub const RECEIVEQ1: u16 = 0;
/// Queue number of transmitq1.
pub const TRANSMITQ1: u16 = 1;
