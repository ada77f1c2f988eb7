//! What goes over a guest's second serial line: frames, in both directions.
//!
//! A frame is its kind (1 byte), the number of the command that it belongs to and the bytes that follow (4 bytes each,
//! little-endian), and these bytes.

use std::io::{self, Read, Write};

/// The most bytes that follow.
const LIMIT: u32 = 1 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// From the guest: commands are taken.
    Ready,
    /// To the guest: run this in a shell.
    Run(u32, Vec<u8>),
    /// To the guest: send this signal to the command and its children.
    Signal(u32, i32),
    /// From the guest: the command wrote this.
    Output(u32, Vec<u8>),
    /// From the guest: the command ended with this status.
    End(u32, i32),
}

impl Frame {
    /// Writes it at once.
    ///
    /// # Errors
    ///
    /// From the line.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let number;
        let (kind, id, bytes): (u8, u32, &[u8]) = match self {
            Self::Ready => (b'Y', 0, &[]),
            Self::Run(id, command) => (b'R', *id, command),
            Self::Signal(id, signal) => {
                number = signal.to_le_bytes();
                (b'S', *id, &number)
            }
            Self::Output(id, output) => (b'O', *id, output),
            Self::End(id, status) => {
                number = status.to_le_bytes();
                (b'E', *id, &number)
            }
        };
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|length| *length <= LIMIT)
            .ok_or_else(|| invalid(format!("a frame of {} bytes", bytes.len())))?;
        let mut frame = vec![kind];
        frame.extend_from_slice(&id.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(bytes);
        to.write_all(&frame)?;
        to.flush()
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// From the line; [`io::ErrorKind::InvalidData`] for what is no frame.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut kind = [0; 1];
        let mut id = [0; 4];
        let mut length = [0; 4];
        from.read_exact(&mut kind)?;
        from.read_exact(&mut id)?;
        from.read_exact(&mut length)?;
        let (id, length) = (u32::from_le_bytes(id), u32::from_le_bytes(length));
        if length > LIMIT {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        from.read_exact(&mut bytes)?;
        let number = |bytes: &[u8]| {
            let number: [u8; 4] = bytes
                .try_into()
                .map_err(|_| invalid(format!("a number of {length} bytes")))?;
            Ok::<_, io::Error>(i32::from_le_bytes(number))
        };
        Ok(match kind {
            [b'Y'] => Self::Ready,
            [b'R'] => Self::Run(id, bytes),
            [b'S'] => Self::Signal(id, number(&bytes)?),
            [b'O'] => Self::Output(id, bytes),
            [b'E'] => Self::End(id, number(&bytes)?),
            [kind] => return Err(invalid(format!("a frame of kind {kind:#x}"))),
        })
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were() {
        let frames = [
            Frame::Ready,
            Frame::Run(1, b"ls /".to_vec()),
            Frame::Signal(1, 9),
            Frame::Output(1, vec![0, 0xff, b'\n', b'\r']),
            Frame::End(u32::MAX, -1),
        ];
        let mut line = Vec::new();
        for frame in &frames {
            frame.write(&mut line).unwrap();
        }
        let mut line = line.as_slice();
        for frame in &frames {
            assert_eq!(Frame::read(&mut line).unwrap(), *frame);
        }
    }

    #[test]
    fn noise_on_the_line_is_no_frame() {
        let noise = [b"login: guest\n".as_slice(), b"O\0\0\0\0\xff\xff\xff\xff"];
        for noise in noise {
            let error = Frame::read(&mut &*noise).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
