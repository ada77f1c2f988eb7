//! `struct virtio_net_config` (virtio 1.4, section 5.1.4), as far as `mtu`.

use shmbus_virtio::{Features, net};

use super::mac_address::MacAddress;
use super::port::ETHERNET_HEADER_BYTES;

/// The fields that the bus's own device has.
const OWN_FIELDS: Features = net::MAC.union(net::STATUS).union(net::MTU);

/// `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX`: the most queue pairs that a device may have.
const MAX_PAIRS: u16 = 0x8000;

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// The largest payload of a frame that may be offered: a whole frame fits 65,535 bytes.
pub const MAX_MTU: u16 = u16::MAX - ETHERNET_HEADER_BYTES as u16;
/// The smallest: every IPv4 link must take 68 bytes (RFC 791, section 3.2), and virtio allows no less.
pub const MIN_MTU: u16 = 68;
/// What Ethernet has.
pub const DEFAULT_MTU: u16 = 1500;

/// The configuration that the device shows to its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The driver's own address (`VIRTIO_NET_F_MAC`).
    pub mac: MacAddress,
    /// Whether the link is up (`VIRTIO_NET_F_STATUS`).
    pub link_up: bool,
    /// How many queue pairs there are (`VIRTIO_NET_F_MQ`).
    pub max_pairs: u16,
    /// The largest payload of a frame, in bytes without the Ethernet header (`VIRTIO_NET_F_MTU`).
    pub mtu: u16,
}

/// A configuration from the other side cannot be worked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The address names no single interface.
    #[error("{0} cannot be an interface's own MAC address")]
    Mac(MacAddress),
    /// The MTU is out of range.
    #[error("an MTU of {MIN_MTU} to {MAX_MTU} bytes was expected, {0} found")]
    Mtu(u16),
    /// There cannot be so many queue pairs.
    #[error("1 to {MAX_PAIRS} queue pairs were expected, {0} found")]
    Pairs(u16),
    /// The structure ends before what was negotiated.
    #[error("the configuration has {found} bytes, {expected} were expected")]
    Short {
        /// Its length, in bytes.
        found: usize,
        /// The length with all fields that were negotiated, in bytes.
        expected: usize,
    },
}

impl NetConfig {
    /// Bytes of the encoded structure: through `mtu`.
    pub const BYTES: usize = 12;
    /// `u64` words of the encoded structure, the last one padded with zeroes.
    pub const WORDS: usize = 2;

    /// A configuration with the link up and the default MTU.
    pub const fn new(mac: MacAddress) -> Self {
        Self {
            mac,
            link_up: true,
            max_pairs: 1,
            mtu: DEFAULT_MTU,
        }
    }

    /// The structure as it lies in configuration space: `mac`, `status`, `max_virtqueue_pairs`, `mtu`.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..6].copy_from_slice(&self.mac.0);
        bytes[6..8].copy_from_slice(&(u16::from(self.link_up) * LINK_UP).to_le_bytes());
        bytes[8..10].copy_from_slice(&self.max_pairs.to_le_bytes());
        bytes[10..].copy_from_slice(&self.mtu.to_le_bytes());
        bytes
    }

    /// [`NetConfig::encode`] as words for a table's slot.
    pub fn encode_words(&self) -> [u64; Self::WORDS] {
        let mut bytes = [0; 8 * Self::WORDS];
        bytes[..Self::BYTES].copy_from_slice(&self.encode());
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * index..8 * (index + 1)]);
            u64::from_le_bytes(word)
        };
        [word(0), word(1)]
    }

    /// Reads what the bus's own device wrote, which has one queue pair.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an address or an MTU that no interface can have.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, ConfigError> {
        Self::decode_with(bytes, OWN_FIELDS, MacAddress::BROADCAST)
    }

    /// How many bytes the structure has through the last field that there is with these features.
    pub fn bytes_with(features: Features) -> usize {
        let fields = [
            (net::MTU, 12),
            (net::MQ, 10),
            (net::STATUS, 8),
            (net::MAC, 6),
        ];
        let last = fields
            .into_iter()
            .find(|(field, _)| features.contains(*field));
        last.map_or(0, |(_, bytes)| bytes)
    }

    /// Reads what a device wrote of which `features` were negotiated: it has no field without one of them. A device that
    /// states no address is given `own_mac`; one without a status is up.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn decode_with(
        bytes: &[u8],
        features: Features,
        own_mac: MacAddress,
    ) -> Result<Self, ConfigError> {
        let expected = Self::bytes_with(features);
        let (mut fields, found) = ([0; Self::BYTES], bytes.len());
        let Some(negotiated) = bytes.get(..expected) else {
            return Err(ConfigError::Short { found, expected });
        };
        fields[..expected].copy_from_slice(negotiated);
        let word = |at: usize| u16::from_le_bytes([fields[at], fields[at + 1]]);
        let mut config = Self::new(own_mac);
        if features.contains(net::MAC) {
            config.mac.0.copy_from_slice(&fields[..6]);
        }
        if features.contains(net::STATUS) {
            config.link_up = word(6) & LINK_UP != 0;
        }
        if features.contains(net::MQ) {
            config.max_pairs = word(8);
        }
        if features.contains(net::MTU) {
            config.mtu = word(10);
        }
        if !config.mac.is_station() {
            return Err(ConfigError::Mac(config.mac));
        }
        if !(1..=MAX_PAIRS).contains(&config.max_pairs) {
            return Err(ConfigError::Pairs(config.max_pairs));
        }
        if !(MIN_MTU..=MAX_MTU).contains(&config.mtu) {
            return Err(ConfigError::Mtu(config.mtu));
        }
        Ok(config)
    }

    /// [`NetConfig::decode`] of words from a table's slot.
    ///
    /// # Errors
    ///
    /// As for [`NetConfig::decode`].
    pub fn decode_words(words: &[u64; Self::WORDS]) -> Result<Self, ConfigError> {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&words[0].to_le_bytes());
        bytes[8..].copy_from_slice(&words[1].to_le_bytes()[..4]);
        Self::decode(&bytes)
    }

    /// Bytes of the longest frame: the MTU, the Ethernet header and a VLAN tag.
    pub fn max_frame_bytes(&self) -> usize {
        max_frame_bytes(self.mtu)
    }
}

/// Bytes of the longest frame on a link with this MTU: the Ethernet header, a VLAN tag (IEEE 802.1Q) and the payload.
pub const fn max_frame_bytes(mtu: u16) -> usize {
    ETHERNET_HEADER_BYTES + 4 + mtu as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lies_in_configuration_space_as_the_specification_says() {
        let config = NetConfig {
            mac: MacAddress([2, 1, 2, 3, 4, 5]),
            link_up: true,
            max_pairs: 1,
            mtu: 0x2345,
        };
        assert_eq!(config.encode(), [2, 1, 2, 3, 4, 5, 1, 0, 1, 0, 0x45, 0x23]);
        assert_eq!(NetConfig::decode(&config.encode()), Ok(config));
    }

    #[test]
    fn fields_that_were_not_negotiated_are_not_looked_at() {
        let (own, theirs) = (MacAddress::local(7), MacAddress::local(1));
        let written = NetConfig {
            mac: theirs,
            link_up: false,
            max_pairs: 4,
            mtu: 9000,
        };
        let decode = |features| NetConfig::decode_with(&written.encode(), features, own);
        assert_eq!(decode(Features::empty()), Ok(NetConfig::new(own)));
        let all = net::MAC | net::STATUS | net::MQ | net::MTU;
        assert_eq!(decode(all), Ok(written));
        let pairs = decode(net::MQ).unwrap();
        assert_eq!(
            (pairs.mac, pairs.max_pairs, pairs.mtu),
            (own, 4, DEFAULT_MTU)
        );

        // A device whose structure ends where its features end.
        let short = &written.encode()[..8];
        let features = net::MAC | net::STATUS;
        let config = NetConfig::decode_with(short, features, own).unwrap();
        assert!(config.mac == theirs && !config.link_up);
        assert_eq!(
            NetConfig::decode_with(short, net::MQ, own),
            Err(ConfigError::Short {
                found: 8,
                expected: 10
            })
        );
        for max_pairs in [0, MAX_PAIRS + 1] {
            let bytes = NetConfig {
                max_pairs,
                ..written
            }
            .encode();
            let refused = NetConfig::decode_with(&bytes, all, own);
            assert_eq!(refused, Err(ConfigError::Pairs(max_pairs)));
        }
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let mut config = NetConfig::new(MacAddress::local(1));
        config.mtu = MIN_MTU - 1;
        assert_eq!(
            NetConfig::decode(&config.encode()),
            Err(ConfigError::Mtu(67))
        );
        config.mtu = u16::MAX;
        assert_eq!(
            NetConfig::decode(&config.encode()),
            Err(ConfigError::Mtu(u16::MAX))
        );
        config = NetConfig::new(MacAddress::BROADCAST);
        assert_eq!(
            NetConfig::decode(&config.encode()),
            Err(ConfigError::Mac(MacAddress::BROADCAST))
        );
    }

    proptest! {
        #[test]
        fn words_and_bytes_say_the_same(words: [u64; NetConfig::WORDS]) {
            if let Ok(config) = NetConfig::decode_words(&words) {
                prop_assert_eq!(NetConfig::decode_words(&config.encode_words()), Ok(config));
                prop_assert_eq!(NetConfig::decode(&config.encode()), Ok(config));
            }
        }
    }
}
