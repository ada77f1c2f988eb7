//! What can be wrong with a message.

use crate::local::message::{Kind, VERSION};

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The peer is some other program.
    #[error(
        "expected a frame that starts with \"sbus\", found \"{}\": the peer is no shmbus program",
        .found.escape_ascii()
    )]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The peer speaks another version.
    #[error(
        "the peer speaks version {found} of the protocol, this side version {VERSION}: use the same release of shmbus on both sides"
    )]
    Version {
        /// The peer's version.
        found: u16,
    },
    /// No message has this number.
    #[error("expected a message of kind 1 to 9, found kind {found}")]
    Kind {
        /// The number found.
        found: u8,
    },
    /// The header announces more than any message has.
    #[error("a message has at most {limit} {what}, this {kind} announces {found}")]
    TooMany {
        /// The kind of message.
        kind: Kind,
        /// Of what.
        what: &'static str,
        /// The most there can be.
        limit: usize,
        /// How many were announced.
        found: usize,
    },
    /// The body has the wrong size.
    #[error("a {kind} message has {expected} bytes, found {found}")]
    Length {
        /// The kind of message.
        kind: Kind,
        /// Its size in bytes.
        expected: usize,
        /// The size found.
        found: usize,
    },
    /// The wrong number of descriptors was announced.
    #[error("a {kind} message like this comes with {expected} file descriptors, found {found}")]
    Descriptors {
        /// The kind of message.
        kind: Kind,
        /// How many should come.
        expected: usize,
        /// How many were announced.
        found: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{kind} message, byte {at} of its body: expected {expected}, found {found:#x}")]
    Field {
        /// The kind of message.
        kind: Kind,
        /// Where in the body the field is.
        at: usize,
        /// What it can be.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
    /// Text that is not what text must be.
    #[error("{kind} message, byte {at} of its body: expected {expected}")]
    Text {
        /// The kind of message.
        kind: Kind,
        /// Where in the body the text starts.
        at: usize,
        /// What it must be.
        expected: &'static str,
    },
}
