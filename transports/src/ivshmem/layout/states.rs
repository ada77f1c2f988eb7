//! Handshake words: which attachment, and how far it has come.

use core::fmt;

use super::error::LayoutError;

/// The bits of a word that hold the state; the attachment's number lies above.
const STATE_BITS: u32 = 8;

/// One attachment of a guest's program to the host: a number of 56 bits, which goes round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment(u64);

impl Attachment {
    /// Before the first.
    pub const NONE: Self = Self(0);

    /// Attachment `number`, of which the low 56 bits count.
    pub const fn new(number: u64) -> Self {
        Self(number & (u64::MAX >> STATE_BITS))
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    const fn with(self, state: u8) -> u64 {
        self.0 << STATE_BITS | state as u64
    }

    const fn of(word: u64) -> Self {
        Self(word >> STATE_BITS)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AnswerState {
    /// The area is free: a guest may say HELLO.
    Offered = 1,
    /// The area is formatted, and the terms are there.
    Welcome = 2,
    /// The session runs.
    Ready = 3,
    /// The guest is not let in, or no further; the words say why.
    Refused = 4,
    /// The session is over; the words say why.
    Closed = 5,
}

/// What a guest requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestState {
    /// A session; it has said who it is.
    Hello = 1,
    /// That the host attaches to its section, which is formatted.
    Memory = 2,
    /// To leave; it has said why.
    Goodbye = 3,
}

/// A host's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which attachment it is about.
    pub attachment: Attachment,
    /// How far that is.
    pub state: AnswerState,
}

impl Answer {
    /// As it stands in memory.
    pub const fn to_word(self) -> u64 {
        self.attachment.with(self.state as u8)
    }

    /// What a word says.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Word`].
    pub fn from_word(word: u64) -> Result<Self, LayoutError> {
        let state = match word as u8 {
            1 => AnswerState::Offered,
            2 => AnswerState::Welcome,
            3 => AnswerState::Ready,
            4 => AnswerState::Refused,
            5 => AnswerState::Closed,
            _ => {
                let expected = "a host's answer";
                return Err(LayoutError::Word { expected, word });
            }
        };
        let attachment = Attachment::of(word);
        Ok(Self { attachment, state })
    }
}

/// A guest's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which attachment it is about.
    pub attachment: Attachment,
    /// What is wanted.
    pub state: RequestState,
}

impl Request {
    /// As it stands in memory.
    pub const fn to_word(self) -> u64 {
        self.attachment.with(self.state as u8)
    }

    /// What a word says; zero says nothing yet.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Word`].
    pub fn from_word(word: u64) -> Result<Option<Self>, LayoutError> {
        let state = match word as u8 {
            0 if word == 0 => return Ok(None),
            1 => RequestState::Hello,
            2 => RequestState::Memory,
            3 => RequestState::Goodbye,
            _ => {
                let expected = "a guest's request";
                return Err(LayoutError::Word { expected, word });
            }
        };
        let attachment = Attachment::of(word);
        Ok(Some(Self { attachment, state }))
    }
}
