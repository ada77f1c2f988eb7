//! Ethernet addresses.

use core::fmt;
use core::str::FromStr;

/// The 48-bit address of a network interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

/// A text is not six hexadecimal bytes with colons between them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no MAC address: six hexadecimal bytes with colons were expected, as in 02:00:00:00:00:01"
)]
pub struct ParseMacAddressError(String);

impl MacAddress {
    /// Where frames for everybody go.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The locally administered unicast address number `number` of a bus.
    pub const fn local(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self([0x02, 0x53, a, b, c, d])
    }

    /// Whether frames to this address go to a group, or to everybody.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether an interface may have this address: it names one interface, and is not all zeroes.
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Whether a bridge keeps frames to this address on the link that they came from
    /// (IEEE 802.1Q, table 8-1: 01-80-C2-00-00-00 to -0F).
    pub fn is_link_local(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && self.0[5] < 0x10
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = ParseMacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseMacAddressError(text.chars().take(40).collect());
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(refuse)?;
            // `from_str_radix` alone would take a sign, and more than two digits.
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_goes_both_ways() {
        let address = MacAddress([0x02, 0, 0xab, 1, 2, 0xff]);
        assert_eq!(address.to_string(), "02:00:ab:01:02:ff");
        assert_eq!("2:0:AB:1:2:ff".parse(), Ok(address));
        for text in [
            "",
            "02:00:ab:01:02",
            "02:00:ab:01:02:ff:00",
            "+2:0:0:0:0:0",
            "002:0:0:0:0:0",
            "é:0:0:0:0:0",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_of_addresses_are_told_apart() {
        assert!(MacAddress::local(7).is_station());
        assert_ne!(MacAddress::local(7), MacAddress::local(8));
        assert!(MacAddress::BROADCAST.is_group());
        assert!(!MacAddress([0; 6]).is_station());
        assert!(MacAddress([1, 0x80, 0xc2, 0, 0, 0x0e]).is_link_local());
        assert!(!MacAddress([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
    }
}
