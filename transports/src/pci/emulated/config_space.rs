//! The configuration space of an emulated device.

use super::blueprint::{Blueprint, Claim, MsixClaim};

pub(super) const BYTES: usize = 256;

/// Its 256 bytes. Capabilities that find no room are left out.
pub(super) fn write(blueprint: &Blueprint) -> Vec<u8> {
    let mut space = vec![0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(range) = space.get_mut(at..at + bytes.len()) {
            range.copy_from_slice(bytes);
        }
    };
    put(0x00, &blueprint.vendor.to_le_bytes());
    put(0x02, &blueprint.device.to_le_bytes());
    put(0x06, &(1_u16 << 4).to_le_bytes());
    put(0x08, &[1, 0, 0, 2]); // revision 1, a network controller
    for (index, register) in blueprint.bar_registers.iter().enumerate() {
        put(0x10 + 4 * index, &register.to_le_bytes());
    }
    put(0x2c, &0x1af4_u16.to_le_bytes());
    put(0x2e, &0x1100_u16.to_le_bytes());

    let msix = blueprint.msix.iter().map(msix_bytes);
    let capabilities = msix.chain(blueprint.claims.iter().map(claim_bytes));
    let (mut pointer, mut at) = (0x34, 0x40);
    for bytes in capabilities {
        if at + bytes.len() > BYTES {
            break;
        }
        put(pointer, &[at as u8]);
        put(at, &bytes);
        pointer = at + 1;
        at += bytes.len().next_multiple_of(4);
    }
    space
}

fn msix_bytes(msix: &MsixClaim) -> Vec<u8> {
    let place = |(bar, offset): (u8, u32)| (offset | u32::from(bar)).to_le_bytes();
    let mut bytes = vec![0x11, 0];
    bytes.extend(msix.last_vector.to_le_bytes());
    bytes.extend(place(msix.table));
    bytes.extend(place(msix.pending));
    bytes
}

fn claim_bytes(claim: &Claim) -> Vec<u8> {
    let mut bytes = vec![0x09, 0, claim.cap_len, claim.kind];
    if claim.kind == Claim::VENDOR {
        bytes.extend(&claim.vendor_data);
        return bytes;
    }
    bytes.extend([claim.bar, claim.id, 0, 0]);
    bytes.extend((claim.offset as u32).to_le_bytes());
    bytes.extend((claim.len as u32).to_le_bytes());
    match claim.kind {
        Claim::NOTIFY => bytes.extend(claim.multiplier.to_le_bytes()),
        Claim::CONFIG_ACCESS => bytes.extend([0; 4]),
        Claim::SHARED_MEMORY => {
            bytes.extend(((claim.offset >> 32) as u32).to_le_bytes());
            bytes.extend(((claim.len >> 32) as u32).to_le_bytes());
        }
        _ => {}
    }
    bytes
}
