//! How a network card is to be driven, and why it cannot be.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use shmbus_devices::net::config::ConfigError;
use shmbus_devices::net::control::ControlError;
use shmbus_devices::net::dma::DmaSetupError;
use shmbus_devices::net::queues::ReceiveBufferError;
use shmbus_ring::SetupError;
use shmbus_signal::os::SetError;
use shmbus_transports::pci::virtio::DeviceError;
use shmbus_transports::pci::{AccessError, DmaError};
use shmbus_virtio::{DeviceId, Features};

/// How a network card is to be driven.
#[derive(Clone, Copy, Debug)]
pub struct CardOptions {
    /// The guest's IP address.
    pub address: Ipv4Addr,
    /// How many leading bits of it name the network.
    pub prefix_len: u8,
    /// Where packets to other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// How many queue pairs to use.
    pub queue_pairs: u16,
    /// What is not accepted, although the card offers it and the driver knows it.
    pub without: Features,
    /// What must be negotiated.
    pub required: Features,
    /// Bytes of a receive buffer; those of a whole frame, unless said otherwise.
    pub receive_buffer_bytes: Option<u32>,
}

impl CardOptions {
    /// All that both sides can, with one queue pair, in a network without a way out.
    pub const fn new(address: Ipv4Addr, prefix_len: u8) -> Self {
        Self {
            address,
            prefix_len,
            gateway: None,
            queue_pairs: 1,
            without: Features::empty(),
            required: Features::empty(),
            receive_buffer_bytes: None,
        }
    }
}

/// A network card cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// It is no network card.
    #[error("a net device was expected, {0} found")]
    NotNet(DeviceId),
    /// The device behind PCI: also that it needs a reset, because it met an error.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A queue cannot be notified.
    #[error("a queue cannot be notified: {0}")]
    Notify(#[from] AccessError),
    /// Features were required that the card does not offer, or the driver does not know.
    #[error(
        "feature bits {missing:#x} are required; the card offers {offered:#x}, and {chosen:#x} would be accepted"
    )]
    Required {
        /// Those that are missing.
        missing: u128,
        /// What the card offers.
        offered: u128,
        /// What would be accepted.
        chosen: u128,
    },
    /// There are fewer queue pairs.
    #[error("{wanted} queue pairs are wanted, and the card has {found}")]
    Pairs {
        /// How many are wanted.
        wanted: u16,
        /// How many there are.
        found: u16,
    },
    /// A queue that must be there is not, or too small.
    #[error("queue {queue} has {found} entries, {expected} were expected at least")]
    Queue {
        /// Its number.
        queue: u16,
        /// How many entries it can have; 0 if there is none.
        found: u16,
        /// How many it needs.
        expected: u16,
    },
    /// It cannot signal anything.
    #[error("the card has no MSI-X vectors")]
    NoVectors,
    /// Its configuration cannot be used.
    #[error("its configuration: {0}")]
    Config(#[from] ConfigError),
    /// The rings cannot be laid out.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// The receive buffers cannot be used.
    #[error(transparent)]
    ReceiveBuffers(#[from] ReceiveBufferError),
    /// There is no memory for the queues.
    #[error(transparent)]
    Memory(#[from] DmaError),
    /// The queues cannot be set up.
    #[error(transparent)]
    Queues(#[from] DmaSetupError),
    /// A command failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A command was not answered.
    #[error("no answer on the control queue within {limit:?}")]
    Silent {
        /// How long the driver waited.
        limit: Duration,
    },
    /// Something cannot be waited for.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The system refused something.
    #[error(transparent)]
    System(#[from] io::Error),
}
