//! Messages to bytes and back. Decoding is total: any bytes give a message or a [`MessageError`].

mod error;

use shmbus_shm::{MemoryId, PRIORITY_CLASSES};
use shmbus_virtio::{Features, PrivateFeatures};

pub use error::MessageError;

use super::message::{
    Announcement, Entry, GoodbyeReason, HEADER_BYTES, Hello, Kind, MAGIC, MAX_BODY_BYTES,
    MAX_DESCRIPTORS, MAX_PAGE_ENTRIES, Message, Page, PeerRole, Refusal, RefusalCode, VERSION,
    Welcome,
};
use super::text::{Explanation, GuestName, MAX_EXPLANATION_BYTES, MAX_NAME_BYTES};

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of message.
    pub kind: Kind,
    /// How many descriptors come with the frame.
    pub descriptors: usize,
    /// Bytes in the body.
    pub body: usize,
}

impl Header {
    /// Decodes a header. Its sizes are within the limits; whether they fit the message is seen with the body.
    ///
    /// # Errors
    ///
    /// [`MessageError`].
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, MessageError> {
        let [m0, m1, m2, m3, kind, descriptors, body_low, body_high] = bytes;
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(MessageError::Magic { found });
        }
        let kind = Kind::from_number(kind).ok_or(MessageError::Kind { found: kind })?;
        let descriptors = usize::from(descriptors);
        if descriptors > MAX_DESCRIPTORS {
            return Err(MessageError::TooMany {
                kind,
                what: "file descriptors",
                limit: MAX_DESCRIPTORS,
                found: descriptors,
            });
        }
        let body = usize::from(u16::from_le_bytes([body_low, body_high]));
        if body > MAX_BODY_BYTES {
            return Err(MessageError::TooMany {
                kind,
                what: "bytes",
                limit: MAX_BODY_BYTES,
                found: body,
            });
        }
        Ok(Self {
            kind,
            descriptors,
            body,
        })
    }
}

impl Message {
    /// The whole frame. A [`Page`] longer than [`MAX_PAGE_ENTRIES`] is cut; doorbells beyond [`PRIORITY_CLASSES`] do not
    /// decode.
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Writer(Vec::with_capacity(HEADER_BYTES + 64));
        frame.bytes(&MAGIC);
        frame.u8(self.kind() as u8);
        frame.u8(self.descriptors() as u8);
        frame.u16(0); // the body's length, below
        match self {
            Self::Hello(hello) => {
                frame.u16(VERSION);
                frame.u8(hello.role as u8);
                frame.u8(hello.name.as_str().len() as u8);
                frame.u32(0);
                frame.u64(hello.private.bits());
                frame.u128(hello.features.bits());
                frame.name(hello.name.as_str());
            }
            Self::Welcome(welcome) => {
                frame.u16(VERSION);
                frame.u8(welcome.memories);
                frame.u8(welcome.classes);
                frame.u32(welcome.session);
                frame.u64(welcome.private.bits());
                frame.u128(welcome.features.bits());
                frame.u64(welcome.guest_memory_bytes);
            }
            Self::Refusal(refusal) => {
                let text = refusal.text.as_str();
                frame.u16(refusal.code.number());
                frame.u16(text.len() as u16);
                frame.bytes(text.as_bytes());
            }
            Self::Memory(memory) => frame.announcement(memory, 0),
            Self::Doorbells { classes } => {
                frame.u8(*classes);
                frame.zeros(7);
            }
            Self::Ready => {}
            Self::Goodbye(reason) => {
                frame.u16(reason.number());
                frame.zeros(6);
            }
            Self::List { from } => frame.u64(*from),
            Self::Page(page) => {
                let entries = page.entries.iter().take(MAX_PAGE_ENTRIES);
                frame.u8(entries.len() as u8);
                frame.zeros(7);
                frame.u64(page.next);
                for entry in entries {
                    let name = entry.guest.as_ref().map_or("", GuestName::as_str);
                    frame.u32(entry.session);
                    frame.zeros(4);
                    frame.announcement(&entry.memory, name.len() as u8);
                    frame.name(name);
                }
            }
        }
        let body = (frame.0.len() - HEADER_BYTES) as u16;
        frame.0[6..8].copy_from_slice(&body.to_le_bytes());
        frame.0
    }

    /// Decodes the body that belongs to `header`.
    ///
    /// # Errors
    ///
    /// [`MessageError`], for anything that [`Message::encode`] would not have written.
    pub fn decode(header: Header, body: &[u8]) -> Result<Self, MessageError> {
        if body.len() != header.body {
            return Err(MessageError::Length {
                kind: header.kind,
                expected: header.body,
                found: body.len(),
            });
        }
        let mut fields = Reader {
            kind: header.kind,
            body,
            at: 0,
        };
        let message = match header.kind {
            Kind::Hello => Self::Hello(fields.hello()?),
            Kind::Welcome => Self::Welcome(fields.welcome()?),
            Kind::Refusal => Self::Refusal(fields.refusal()?),
            Kind::Memory => Self::Memory(fields.announcement()?.0),
            Kind::Doorbells => {
                let classes = fields.classes()?;
                fields.zeros::<7>()?;
                Self::Doorbells { classes }
            }
            Kind::Ready => Self::Ready,
            Kind::Goodbye => {
                let reason = GoodbyeReason::from_number(fields.u16()?);
                fields.zeros::<6>()?;
                Self::Goodbye(reason)
            }
            Kind::List => Self::List {
                from: fields.u64()?,
            },
            Kind::Page => Self::Page(fields.page()?),
        };
        if fields.at != body.len() {
            return Err(MessageError::Length {
                kind: header.kind,
                expected: fields.at,
                found: body.len(),
            });
        }
        if message.descriptors() != header.descriptors {
            return Err(MessageError::Descriptors {
                kind: header.kind,
                expected: message.descriptors(),
                found: header.descriptors,
            });
        }
        Ok(message)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }
    fn name(&mut self, name: &str) {
        self.bytes(name.as_bytes());
        self.zeros(MAX_NAME_BYTES - name.len());
    }
    /// 24 bytes; a page's entries keep the length of the name that follows in the byte after the id.
    fn announcement(&mut self, memory: &Announcement, name_length: u8) {
        self.u32(memory.id.0);
        self.u8(name_length);
        self.zeros(3);
        self.u64(memory.bytes);
        self.u64(memory.epoch);
    }
}

struct Reader<'a> {
    kind: Kind,
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at + count;
        let bytes = self.body.get(self.at..end).ok_or(MessageError::Length {
            kind: self.kind,
            expected: end,
            found: self.body.len(),
        })?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        self.array().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_le_bytes)
    }
    fn u128(&mut self) -> Result<u128, MessageError> {
        self.array().map(u128::from_le_bytes)
    }

    /// The error for the field of `bytes` bytes that was read last.
    fn bad_field(&self, bytes: usize, found: u64, expected: &'static str) -> MessageError {
        MessageError::Field {
            kind: self.kind,
            at: self.at - bytes,
            expected,
            found,
        }
    }

    fn zeros<const N: usize>(&mut self) -> Result<(), MessageError> {
        let start = self.at;
        let bytes = self.array::<N>()?;
        match bytes.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(offset) => Err(MessageError::Field {
                kind: self.kind,
                at: start + offset,
                expected: "a reserved byte, zero",
                found: u64::from(bytes[offset]),
            }),
        }
    }

    /// Before anything else is read: the rest may look different in another version.
    fn version(&mut self) -> Result<(), MessageError> {
        match self.u16()? {
            VERSION => Ok(()),
            found => Err(MessageError::Version { found }),
        }
    }

    fn classes(&mut self) -> Result<u8, MessageError> {
        let classes = self.u8()?;
        if classes > PRIORITY_CLASSES {
            return Err(self.bad_field(1, classes.into(), "at most 4 priority classes"));
        }
        Ok(classes)
    }

    /// A zero-padded field of 32 bytes; `None` where the length is zero.
    fn name(&mut self, length: u8) -> Result<Option<GuestName>, MessageError> {
        let at = self.at;
        let field = self.array::<MAX_NAME_BYTES>()?;
        let expected = "a name of letters, digits, '.', '_' and '-', padded with zeros";
        let wrong = MessageError::Text {
            kind: self.kind,
            at,
            expected,
        };
        let Some((name, padding)) = field.split_at_checked(length.into()) else {
            return Err(wrong);
        };
        if padding.iter().any(|byte| *byte != 0) {
            return Err(wrong);
        }
        if name.is_empty() {
            return Ok(None);
        }
        let name = core::str::from_utf8(name)
            .ok()
            .and_then(|name| GuestName::new(name).ok());
        name.map(Some).ok_or(wrong)
    }

    fn hello(&mut self) -> Result<Hello, MessageError> {
        self.version()?;
        let role = match self.u8()? {
            1 => PeerRole::Guest,
            2 => PeerRole::Inspector,
            found => {
                return Err(self.bad_field(1, found.into(), "1 (guest) or 2 (inspector)"));
            }
        };
        let name_length = self.u8()?;
        self.zeros::<4>()?;
        let private = PrivateFeatures::from_bits_retain(self.u64()?);
        let features = Features::from_bits_retain(self.u128()?);
        let at = self.at;
        let name = self.name(name_length)?.ok_or(MessageError::Text {
            kind: self.kind,
            at,
            expected: "a name that is not empty",
        })?;
        Ok(Hello {
            role,
            name,
            features,
            private,
        })
    }

    fn welcome(&mut self) -> Result<Welcome, MessageError> {
        self.version()?;
        let memories = self.u8()?;
        let classes = self.classes()?;
        Ok(Welcome {
            memories,
            classes,
            session: self.u32()?,
            private: PrivateFeatures::from_bits_retain(self.u64()?),
            features: Features::from_bits_retain(self.u128()?),
            guest_memory_bytes: self.u64()?,
        })
    }

    fn refusal(&mut self) -> Result<Refusal, MessageError> {
        let code = RefusalCode::from_number(self.u16()?);
        let length = self.u16()?;
        if usize::from(length) > MAX_EXPLANATION_BYTES {
            return Err(self.bad_field(2, length.into(), "at most 256 bytes of text"));
        }
        let at = self.at;
        let text = core::str::from_utf8(self.slice(length.into())?)
            .ok()
            .filter(|text| !text.chars().any(char::is_control))
            .ok_or(MessageError::Text {
                kind: self.kind,
                at,
                expected: "UTF-8 without control characters",
            })?;
        Ok(Refusal {
            code,
            text: Explanation::new(text),
        })
    }

    /// With the length of the name that follows in a page.
    fn announcement(&mut self) -> Result<(Announcement, u8), MessageError> {
        let id = MemoryId(self.u32()?);
        let name_length = self.u8()?;
        if name_length != 0 && self.kind == Kind::Memory {
            return Err(self.bad_field(1, name_length.into(), "a reserved byte, zero"));
        }
        self.zeros::<3>()?;
        let bytes = self.u64()?;
        let epoch = self.u64()?;
        let memory = Announcement { id, bytes, epoch };
        Ok((memory, name_length))
    }

    fn page(&mut self) -> Result<Page, MessageError> {
        let count = self.u8()?;
        if usize::from(count) > MAX_PAGE_ENTRIES {
            return Err(self.bad_field(1, count.into(), "at most 16 entries"));
        }
        self.zeros::<7>()?;
        let next = self.u64()?;
        let entries = (0..count)
            .map(|_| {
                let session = self.u32()?;
                self.zeros::<4>()?;
                let (memory, name_length) = self.announcement()?;
                let guest = self.name(name_length)?;
                Ok(Entry {
                    session,
                    guest,
                    memory,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Page { next, entries })
    }
}

#[cfg(test)]
mod tests;
