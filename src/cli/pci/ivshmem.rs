//! What lies behind an ivshmem function.

use shmbus::transports::ivshmem::layout::Header;
use shmbus::transports::pci::{BarIndex, Function, FunctionError, Registers};

use super::line;

const REGISTERS: BarIndex = BarIndex::new(0).unwrap();
const MEMORY: BarIndex = BarIndex::new(2).unwrap();
/// Of [`REGISTERS`]: the number by which peers know this machine.
const POSITION: u64 = 8;

/// The machine's number, and what the host says of the memory. Nothing is written to either.
pub(super) fn describe<F: Function>(function: &F) -> Result<String, FunctionError> {
    let mut text = String::new();
    let position = function.bar(REGISTERS)?.read_u32(POSITION)?;
    line(&mut text, format_args!("  this machine is peer {position}"));
    let bytes = function.bar(MEMORY)?.len();
    let memory = function.map(MEMORY, 0, bytes, true)?;
    let header = match Header::read(&memory) {
        Ok(header) => header,
        Err(error) => {
            line(&mut text, format_args!("  no bus to attach to: {error}"));
            return Ok(text);
        }
    };
    let whose = if header.is_shared {
        "of several guests"
    } else {
        "of this guest alone"
    };
    let (host, vectors) = (header.host, header.vectors);
    line(
        &mut text,
        format_args!(
            "  a bus, in the memory {whose}: the host is peer {host}, with {vectors} vectors"
        ),
    );
    for area in &header.areas {
        let peer = match area.peer {
            Some(peer) if u32::from(peer) == position => "this machine".to_owned(),
            Some(peer) => format!("peer {peer}"),
            None => "nobody".to_owned(),
        };
        let (offset, bytes) = (area.offset, area.bytes);
        line(
            &mut text,
            format_args!("    area of {peer}: {bytes:#x} bytes at offset {offset:#x}"),
        );
    }
    Ok(text)
}
