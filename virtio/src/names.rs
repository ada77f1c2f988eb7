//! Names for people: of device types (virtio 1.4, section 5) and of feature bits.

use crate::device::DeviceId;
use crate::features::Features;

impl DeviceId {
    /// What virtio calls a type, whether the bus has a device of it or not.
    pub const fn virtio_name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "network card",
            2 => "block device",
            3 => "console",
            4 => "entropy source",
            5 => "memory balloon",
            6 => "I/O memory",
            8 => "SCSI host",
            9 => "9P transport",
            16 => "GPU",
            17 => "clock",
            18 => "input device",
            19 => "socket device",
            20 => "crypto device",
            23 => "IOMMU",
            24 => "memory device",
            25 => "sound device",
            26 => "file system",
            27 => "persistent memory",
            _ => return None,
        })
    }

    /// What feature bit number `bit` is called in a device of this type. Of types, only the network card's bits are known;
    /// those that every device may have are always.
    pub fn feature_name(self, bit: u32) -> Option<&'static str> {
        match Features::bit(bit).iter_names().next() {
            Some((name, _)) => Some(name),
            None if self == Self::NET => net_feature(bit),
            None => None,
        }
    }
}

/// Virtio-net's feature bits (virtio 1.4, section 5.1.3).
fn net_feature(bit: u32) -> Option<&'static str> {
    Some(match bit {
        0 => "CSUM",
        1 => "GUEST_CSUM",
        2 => "CTRL_GUEST_OFFLOADS",
        3 => "MTU",
        5 => "MAC",
        7 => "GUEST_TSO4",
        8 => "GUEST_TSO6",
        9 => "GUEST_ECN",
        10 => "GUEST_UFO",
        11 => "HOST_TSO4",
        12 => "HOST_TSO6",
        13 => "HOST_ECN",
        14 => "HOST_UFO",
        15 => "MRG_RXBUF",
        16 => "STATUS",
        17 => "CTRL_VQ",
        18 => "CTRL_RX",
        19 => "CTRL_VLAN",
        20 => "CTRL_RX_EXTRA",
        21 => "GUEST_ANNOUNCE",
        22 => "MQ",
        23 => "CTRL_MAC_ADDR",
        50 => "DEVICE_STATS",
        51 => "HASH_TUNNEL",
        52 => "VQ_NOTF_COAL",
        53 => "NOTF_COAL",
        54 => "GUEST_USO4",
        55 => "GUEST_USO6",
        56 => "HOST_USO",
        57 => "HASH_REPORT",
        59 => "GUEST_HDRLEN",
        60 => "RSS",
        61 => "RSC_EXT",
        62 => "STANDBY",
        63 => "SPEED_DUPLEX",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net;

    #[test]
    fn a_bit_has_one_name_which_may_depend_on_the_type() {
        let number = |feature: Features| feature.bits().trailing_zeros();
        let of_net = |feature| DeviceId::NET.feature_name(number(feature));
        assert_eq!(of_net(net::MRG_RXBUF), Some("MRG_RXBUF"));
        assert_eq!(of_net(net::MQ), Some("MQ"));
        assert_eq!(of_net(Features::RING_PACKED), Some("RING_PACKED"));
        assert_eq!(of_net(Features::bit(127)), None);
        assert_eq!(DeviceId(2).feature_name(22), None);
        assert_eq!(DeviceId(2).feature_name(32), Some("VERSION_1"));
    }
}
