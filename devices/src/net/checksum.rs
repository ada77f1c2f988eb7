//! The Internet checksum (RFC 1071), and who makes it.
//!
//! Between two guests of one bus a checksum protects nothing: the frame never leaves memory. So a sender that
//! negotiated `VIRTIO_NET_F_CSUM` leaves the pseudo-header's sum in its place, and only who puts the frame on a wire
//! finishes it: [`complete`].

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet};

use super::port::Checksum;

/// Where the checksum lies in a TCP header, in bytes.
const TCP_CHECKSUM_OFFSET: u16 = 16;

/// The one's complement sum of `bytes`, folded to 16 bits, in the machine's byte order (RFC 1071, section 2, parts B
/// and C: the order of the bytes does not matter as long as the result is stored in the same one).
fn sum(bytes: &[u8]) -> u16 {
    let mut words = bytes.chunks_exact(4);
    // 2^32 words fit before a 64-bit accumulator overflows.
    let mut sum: u64 = words
        .by_ref()
        .map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .sum();
    let mut tail = [0; 4];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    sum += u64::from(u32::from_ne_bytes(tail));
    fold(sum)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Makes the checksum of a frame that has a partial one. Does nothing when its place is not inside the frame.
pub fn complete(frame: &mut [u8], start: u16, offset: u16) {
    let at = usize::from(start) + usize::from(offset);
    if at + 2 > frame.len() {
        return;
    }
    // Zero means «no checksum» to UDP; its one's complement twin is valid for everybody (RFC 768).
    let checksum = match !sum(&frame[usize::from(start)..]) {
        0 => 0xffff,
        checksum => checksum,
    };
    frame[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
}

/// A TCP segment within a frame.
struct Segment {
    /// Where it begins, in bytes from the frame's start.
    start: usize,
    /// Its bytes.
    len: usize,
    /// The sum of its pseudo-header (RFC 9293, section 3.1), not folded.
    pseudo_header: u64,
}

impl Segment {
    /// The segment that smoltcp will see in `frame`, by smoltcp's own parser. Fragments count as segments, and fail
    /// their checksum: smoltcp without reassembly would take them for whole.
    fn locate(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        if packet.next_header() != IpProtocol::Tcp {
            return None;
        }
        let len = packet.payload().len();
        let words = [
            sum(&packet.src_addr().octets()),
            sum(&packet.dst_addr().octets()),
            u16::from(u8::from(IpProtocol::Tcp)).to_be(),
            (len as u16).to_be(),
        ];
        Some(Self {
            start: EthernetFrame::<&[u8]>::header_len() + usize::from(packet.header_len()),
            len,
            pseudo_header: words.into_iter().map(u64::from).sum(),
        })
    }
}

/// Prepares a frame whose TCP checksum was left out for somebody else to finish: stores the pseudo-header's sum.
/// Other frames, which carry their checksums, are left alone.
pub fn leave_partial(frame: &mut [u8]) -> Checksum {
    let Some(segment) = Segment::locate(frame) else {
        return Checksum::InFrame;
    };
    let at = segment.start + usize::from(TCP_CHECKSUM_OFFSET);
    let Some(field) = frame.get_mut(at..at + 2) else {
        return Checksum::InFrame;
    };
    field.copy_from_slice(&fold(segment.pseudo_header).to_ne_bytes());
    Checksum::Partial {
        start: segment.start as u16,
        offset: TCP_CHECKSUM_OFFSET,
    }
}

/// Whether a frame carries no TCP segment, or one whose checksum is right.
pub fn is_intact(frame: &[u8]) -> bool {
    Segment::locate(frame).is_none_or(|segment| {
        let bytes = &frame[segment.start..segment.start + segment.len];
        fold(segment.pseudo_header + u64::from(sum(bytes))) == 0xffff
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{EthernetAddress, Ipv4Address, TcpPacket};

    const TCP_START: usize = 34;

    fn tcp_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; TCP_START + 20 + payload.len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
        ethernet.set_dst_addr(EthernetAddress::BROADCAST);
        ethernet.set_ethertype(EthernetProtocol::Ipv4);
        let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_total_len(40 + payload.len() as u16);
        packet.set_next_header(IpProtocol::Tcp);
        packet.set_src_addr(Ipv4Address::new(10, 0, 0, 1));
        packet.set_dst_addr(Ipv4Address::new(10, 0, 0, 2));
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        segment.set_header_len(20);
        segment.payload_mut().copy_from_slice(payload);
        frame
    }

    proptest! {
        // smoltcp's own checksum is the model.
        #[test]
        fn a_completed_checksum_is_the_one_on_the_wire(
            payload in prop::collection::vec(any::<u8>(), 0..300), flip in 0_usize..300,
        ) {
            let mut frame = tcp_frame(&payload);
            let Checksum::Partial { start, offset } = leave_partial(&mut frame) else {
                return Err(TestCaseError::fail("a TCP frame was not recognised"));
            };
            prop_assert_eq!((usize::from(start), offset), (TCP_START, TCP_CHECKSUM_OFFSET));
            complete(&mut frame, start, offset);
            let segment = TcpPacket::new_checked(&frame[TCP_START..]).unwrap();
            let (from, to) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 2));
            prop_assert!(segment.verify_checksum(&from.into(), &to.into()));
            prop_assert!(is_intact(&frame));

            let at = TCP_START + flip % (frame.len() - TCP_START);
            frame[at] ^= 0x10;
            prop_assert!(!is_intact(&frame));
        }

        #[test]
        fn no_frame_panics(
            mut frame in prop::collection::vec(any::<u8>(), 0..100), start: u16, offset: u16, ip: bool,
        ) {
            if ip && frame.len() > 23 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                frame[23] = 6;
            }
            is_intact(&frame);
            leave_partial(&mut frame);
            complete(&mut frame, start, offset);
            complete(&mut frame, start % 100, offset % 100);
        }
    }

    #[test]
    fn frames_without_tcp_are_left_alone() {
        let mut frame = tcp_frame(b"datagram");
        frame[23] = 17;
        let before = frame.clone();
        assert_eq!(leave_partial(&mut frame), Checksum::InFrame);
        assert_eq!(frame, before);
        assert!(is_intact(&frame));
    }
}
