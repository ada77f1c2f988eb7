//! Processes on one machine: memfds and eventfds over a UNIX socket.
//!
//! The host listens at a path ([`Listener`]); a guest [`connect`]s and gets its session's memories and doorbells, then
//! hands over its own memory; an [`Inspector`] gets read-only memories. After the handshake the socket is silent: it
//! carries new epochs of memories, a goodbye, and, by its closing, the news that a side has died.
//!
//! Neither side trusts the other. Whatever a peer sends is bounded, decoded totally ([`message`], [`codec`]) and
//! answered by a typed error; whatever a peer may use up has a quota ([`Quotas`], [`GuestLimits`]).

pub(crate) mod bucket;
pub mod codec;
pub(crate) mod complaints;
mod connect;
mod connection;
pub(crate) mod door;
mod given;
mod guest;
mod handshake;
mod inspector;
mod listener;
pub mod message;
pub(crate) mod path;
mod quotas;
pub(crate) mod ready;
mod reconnect;
mod sessions;
pub(crate) mod socket;
mod text;
pub(crate) mod timer;

pub use connect::{ConnectError, connect};
pub use connection::{CloseReason, Numbering, SessionId};
pub use guest::{GuestLimits, GuestLink, GuestOptions, Invitation, LinkEvent};
pub use inspector::{Inspected, Inspector};
pub use listener::{Applicant, Event, Listener, ListenerOptions};
pub use message::{GoodbyeReason, Refusal, RefusalCode};
pub use path::BindError;
pub use quotas::Quotas;
pub use reconnect::{Backoff, reconnect};
pub use sessions::{Admission, MAX_MEMORIES, SessionError};
pub use socket::SocketError;
pub use text::{Explanation, GuestName, MAX_EXPLANATION_BYTES, MAX_NAME_BYTES, NameError};
