//! The header before every frame on a virtio-net queue (virtio 1.4, section 5.1.6, "Device Operation").
//!
//! With `VIRTIO_F_VERSION_1` it has 12 bytes in either direction. Only checksum offload is spoken here: segmentation
//! offloads, receive coalescing and hash reports are never offered.

use super::port::{Checksum, ETHERNET_HEADER_BYTES};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is still to be made, from `csum_start` on.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the device vouches for the checksum.
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_NONE`.
const GSO_NONE: u8 = 0;

/// `struct virtio_net_hdr`, as read from or written to memory; nothing in it has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Bytes of all protocol headers; a hint for segmentation.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where in the frame the summed bytes begin.
    pub csum_start: u16,
    /// Where the checksum lies, from `csum_start`.
    pub csum_offset: u16,
    /// How many receive buffers the frame takes: 1 without `VIRTIO_NET_F_MRG_RXBUF`.
    pub num_buffers: u16,
}

/// What a header asks for cannot be done with its frame, or was not negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Segmentation was asked for.
    #[error("gso_type {0:#x} asks for segmentation, which was not negotiated")]
    Segmentation(u8),
    /// A checksum was asked for.
    #[error("VIRTIO_NET_HDR_F_NEEDS_CSUM is set, but checksum offload was not negotiated")]
    ChecksumNotNegotiated,
    /// The checksum would lie behind the frame, or in its Ethernet header: finishing it would forge an address.
    #[error(
        "a checksum at {start} + {offset} does not lie in the payload of a frame of {frame_bytes} bytes"
    )]
    ChecksumOutside {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Bytes of the frame.
        frame_bytes: usize,
    },
}

impl NetHeader {
    /// Reads a header's bytes.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The header that a driver puts before a frame that it transmits: `num_buffers` is 0 there.
    pub fn transmit(checksum: Checksum) -> Self {
        match checksum {
            Checksum::Partial { start, offset } => Self {
                flags: NEEDS_CSUM,
                csum_start: start,
                csum_offset: offset,
                ..Self::default()
            },
            // A driver must not set DATA_VALID.
            Checksum::InFrame | Checksum::Verified => Self::default(),
        }
    }

    /// The header that a device puts before a frame that a driver receives. `guest_csum` tells whether
    /// `VIRTIO_NET_F_GUEST_CSUM` was negotiated; without it no flag may be set, and `checksum` must not be partial.
    pub fn receive(checksum: Checksum, guest_csum: bool) -> Self {
        let flagged = match checksum {
            Checksum::Verified if guest_csum => Self {
                flags: DATA_VALID,
                ..Self::default()
            },
            _ => Self::transmit(checksum),
        };
        Self {
            num_buffers: 1,
            ..flagged
        }
    }

    /// What the header of a frame of `frame_bytes` bytes, from the other side, says about its checksum.
    /// `negotiated` tells whether checksum offload was negotiated for this direction (`VIRTIO_NET_F_CSUM` to the
    /// device, `VIRTIO_NET_F_GUEST_CSUM` to the driver). Unknown flags are ignored, as the specification wants.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] when it asks for what was not negotiated, or for a checksum outside the frame.
    pub fn checksum(&self, frame_bytes: usize, negotiated: bool) -> Result<Checksum, HeaderError> {
        if self.gso_type != GSO_NONE {
            return Err(HeaderError::Segmentation(self.gso_type));
        }
        if self.flags & NEEDS_CSUM != 0 {
            if !negotiated {
                return Err(HeaderError::ChecksumNotNegotiated);
            }
            let (start, offset) = (self.csum_start, self.csum_offset);
            let end = usize::from(start) + usize::from(offset) + 2;
            if usize::from(start) < ETHERNET_HEADER_BYTES || end > frame_bytes {
                return Err(HeaderError::ChecksumOutside {
                    start,
                    offset,
                    frame_bytes,
                });
            }
            return Ok(Checksum::Partial { start, offset });
        }
        if self.flags & DATA_VALID != 0 && negotiated {
            return Ok(Checksum::Verified);
        }
        Ok(Checksum::InFrame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lies_in_memory_as_the_specification_says() {
        let header = NetHeader {
            flags: 0x01,
            gso_type: 0x02,
            hdr_len: 0x0403,
            gso_size: 0x0605,
            csum_start: 0x0807,
            csum_offset: 0x0a09,
            num_buffers: 0x0c0b,
        };
        assert_eq!(header.emit(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn asks_only_for_what_was_negotiated() {
        let partial = Checksum::Partial {
            start: 34,
            offset: 16,
        };
        let header = NetHeader::transmit(partial);
        assert_eq!(header.checksum(54, true), Ok(partial));
        assert_eq!(
            header.checksum(54, false),
            Err(HeaderError::ChecksumNotNegotiated)
        );
        assert_eq!(
            header.checksum(51, true),
            Err(HeaderError::ChecksumOutside {
                start: 34,
                offset: 16,
                frame_bytes: 51
            })
        );
        // It would overwrite the source address.
        let forging = NetHeader {
            csum_start: 0,
            csum_offset: 6,
            ..header
        };
        assert!(forging.checksum(54, true).is_err());
        let segmented = NetHeader {
            gso_type: 1,
            ..header
        };
        assert_eq!(
            segmented.checksum(54, true),
            Err(HeaderError::Segmentation(1))
        );

        let vouched = NetHeader::receive(Checksum::Verified, true);
        assert_eq!(vouched.num_buffers, 1);
        assert_eq!(vouched.checksum(54, true), Ok(Checksum::Verified));
        // A side that did not negotiate the offload checks for itself, whatever the peer says.
        assert_eq!(vouched.checksum(54, false), Ok(Checksum::InFrame));
        assert_eq!(NetHeader::receive(Checksum::Verified, false).flags, 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_that_is_judged_without_panic(
            bytes: [u8; HEADER_BYTES], frame_bytes in 0_usize..70_000, negotiated: bool,
        ) {
            let header = NetHeader::parse(&bytes);
            prop_assert_eq!(header.emit(), bytes);
            if let Ok(Checksum::Partial { start, offset }) = header.checksum(frame_bytes, negotiated) {
                prop_assert!(negotiated && usize::from(start) >= ETHERNET_HEADER_BYTES);
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= frame_bytes);
            }
        }
    }
}
