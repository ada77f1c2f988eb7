//! Which flow a frame belongs to: frames of one flow stay in order, so they go through one queue.

use super::port::ETHERNET_HEADER_BYTES;

/// Ethernet's type of IPv4, after the addresses.
const IPV4: [u8; 2] = [8, 0];
/// IPv4's numbers of protocols that begin with two ports.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A number for a frame's flow: of its addresses, and for TCP and UDP over IPv4 of its ports. Frames of one flow have
/// one number; others have others, mostly.
pub(super) fn number(frame: &[u8]) -> u32 {
    ports(frame).map_or_else(
        || mix(frame.get(..12).unwrap_or(frame)),
        |(addresses, ports)| mix(addresses) ^ mix(ports).rotate_left(16),
    )
}

/// IPv4's addresses, and the ports behind its header if every frame of the flow has them.
fn ports(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let packet = frame.get(ETHERNET_HEADER_BYTES..)?;
    if frame[12..ETHERNET_HEADER_BYTES] != IPV4 || packet.first()? >> 4 != 4 {
        return None;
    }
    let header_bytes = 4 * usize::from(packet[0] & 0xf);
    let addresses = packet.get(12..20)?;
    // Of a fragmented packet only the first part has ports: more fragments, or an offset.
    let is_whole = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff == 0;
    let has_ports = is_whole && [TCP, UDP].contains(&packet[9]);
    let ports = packet.get(header_bytes..header_bytes + 4);
    Some((addresses, ports.filter(|_| has_ports).unwrap_or_default()))
}

/// FNV-1a, with its bits spread over the whole word, so that any few of them do.
fn mix(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash ^ hash >> 13
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(port: u16, payload: u8) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame[12..].copy_from_slice(&IPV4);
        let mut packet = [0; 20];
        (packet[0], packet[9]) = (0x45, TCP);
        packet[12..].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(packet);
        frame.extend(port.to_be_bytes());
        frame.extend([0, 80, payload]);
        frame
    }

    #[test]
    fn a_flow_has_one_number_and_many_flows_have_many() {
        assert_eq!(number(&tcp(50_000, 1)), number(&tcp(50_000, 2)));
        // Consecutive ports, as one client has them, over four queues: none of them gets much more than its share.
        let mut queues = [0; 4];
        for port in 49_152..49_152 + 400 {
            queues[number(&tcp(port, 0)) as usize % 4] += 1;
        }
        assert!(
            queues.iter().all(|flows| (60..160).contains(flows)),
            "{queues:?}"
        );
        // A fragment has no ports, and stays with the others of its packet.
        let fragment = |payload| {
            let mut frame = tcp(payload, 0);
            frame[14 + 6] = 0x20;
            frame
        };
        assert_eq!(number(&fragment(1)), number(&fragment(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_number(mut frame in prop::collection::vec(any::<u8>(), 0..80), ip: bool) {
            if ip && frame.len() > 14 {
                frame[12..14].copy_from_slice(&IPV4);
                frame[14] = 0x40 | frame[14] & 0xf;
            }
            number(&frame);
        }
    }
}
