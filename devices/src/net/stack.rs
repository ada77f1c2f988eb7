//! TCP/IP in a guest: smoltcp over a port.
//!
//! The stack has no thread and no clock of its own. Its owner calls [`Stack::poll`] with the time when the port's
//! queues signal, and when [`Stack::next_deadline`] has come: set that as the bus's timer. Applications
//! ([`Ping`](super::app::ping::Ping), [`Server`](super::app::serve::Server), [`Fetch`](super::app::fetch::Fetch)) are
//! state machines that are advanced after each poll.

use core::net::Ipv4Addr;
use core::time::Duration;

pub use smoltcp::iface::SocketHandle;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::socket::{icmp, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

use super::mac_address::MacAddress;
use super::phy::Phy;
pub use super::phy::StackCounters;
use super::port::{Notifications, Port, PortError};
use super::queues::QueueMemory;

/// Frames that are taken in before something is sent: one acknowledgement then answers them all.
const BATCH: u32 = 32;

/// The first port that outgoing connections use (RFC 6335, section 6).
const FIRST_DYNAMIC_PORT: u16 = 49_152;

/// How a stack appears on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackConfig {
    /// Its own MAC address, as the device told it.
    pub mac: MacAddress,
    /// Its IP address.
    pub address: Ipv4Addr,
    /// How many leading bits of the address name the network, 0 to 32.
    pub prefix_len: u8,
    /// Where packets to other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// The largest payload of a frame, in bytes, as the device told it.
    pub mtu: u16,
    /// How much of a connection may be on its way, in bytes. What does not fit into the receive queue of a guest that
    /// lags is lost, and sent again much later: see [`QueueMemory::tcp_window_bytes`].
    pub window_bytes: usize,
    /// What port and sequence numbers begin with: different in each run.
    pub random_seed: u64,
}

impl StackConfig {
    /// The configuration for a device with these queues, without a gateway, and with a seed of 0.
    pub const fn new(
        mac: MacAddress,
        address: Ipv4Addr,
        prefix_len: u8,
        memory: QueueMemory,
    ) -> Self {
        Self {
            mac,
            address,
            prefix_len,
            gateway: None,
            mtu: memory.mtu(),
            window_bytes: memory.tcp_window_bytes(),
            random_seed: 0,
        }
    }
}

/// The configuration cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackConfigError {
    /// The MAC address names no single interface.
    #[error("{0} cannot be an interface's own MAC address")]
    Mac(MacAddress),
    /// The IP address names no single interface.
    #[error("{0} cannot be an interface's own IP address")]
    Address(Ipv4Addr),
    /// There is no such prefix.
    #[error("a prefix of 0 to 32 bits was expected, {0} found")]
    Prefix(u8),
}

/// What one [`Stack::poll`] did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackPolled {
    /// Who must be told.
    pub notifications: Notifications,
    /// Whether a frame was received or sent: applications may go on.
    pub progress: bool,
    /// Whether the bound on the work of one call was reached: poll again.
    pub more: bool,
}

/// A TCP/IP stack with its sockets, over one port.
pub struct Stack<P: Port> {
    interface: Interface,
    sockets: SocketSet<'static>,
    phy: Phy<P>,
    next_port: u16,
    window_bytes: usize,
}

impl<P: Port> Stack<P> {
    /// A stack without sockets. `now` is the time since any fixed moment, as in all calls.
    ///
    /// # Errors
    ///
    /// [`StackConfigError`].
    pub fn new(port: P, config: &StackConfig, now: Duration) -> Result<Self, StackConfigError> {
        if !config.mac.is_station() {
            return Err(StackConfigError::Mac(config.mac));
        }
        if config.address.is_unspecified()
            || config.address.is_multicast()
            || config.address.is_broadcast()
        {
            return Err(StackConfigError::Address(config.address));
        }
        if config.prefix_len > 32 {
            return Err(StackConfigError::Prefix(config.prefix_len));
        }
        let mut phy = Phy::new(port, config.mtu);
        let mut interface_config = Config::new(EthernetAddress(config.mac.0).into());
        interface_config.random_seed = config.random_seed;
        let mut interface = Interface::new(interface_config, &mut phy, instant(now));
        interface.update_ip_addrs(|addresses| {
            // There is room for more than one.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(
                config.address,
                config.prefix_len,
            )));
        });
        if let Some(gateway) = config.gateway {
            // The only route: there is room.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let span = u64::from(u16::MAX - FIRST_DYNAMIC_PORT);
        Ok(Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            phy,
            window_bytes: config.window_bytes,
            next_port: FIRST_DYNAMIC_PORT + (config.random_seed % span) as u16,
        })
    }

    /// Receives and sends at most about `budget` frames each.
    pub fn poll(&mut self, now: Duration, budget: u32) -> StackPolled {
        let now = instant(now);
        self.phy.interrupted = false;
        self.interface.poll_maintenance(now);
        let (mut received, mut sent) = (0, 0);
        loop {
            let before = (received, sent);
            let batch_end = received + BATCH.min(budget - received);
            while received < batch_end {
                match self
                    .interface
                    .poll_ingress_single(now, &mut self.phy, &mut self.sockets)
                {
                    PollIngressSingleResult::None => break,
                    PollIngressSingleResult::PacketProcessed
                    | PollIngressSingleResult::SocketStateChanged => {
                        received += 1;
                    }
                }
            }
            while sent < budget {
                match self
                    .interface
                    .poll_egress(now, &mut self.phy, &mut self.sockets)
                {
                    PollResult::None => break,
                    PollResult::SocketStateChanged => sent += 1,
                }
            }
            if (received, sent) == before || received >= budget || sent >= budget {
                break;
            }
        }
        StackPolled {
            notifications: self.phy.port.flush(),
            progress: received + sent > 0,
            more: received >= budget || sent >= budget || self.phy.interrupted,
        }
    }

    /// When [`Stack::poll`] must be called next even if no queue signals; `None` if never. It may be in the past.
    pub fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        let at = Duration::from_micros(at.total_micros().max(0) as u64);
        if at <= now && (self.phy.fault.is_some() || !self.phy.port.can_send()) {
            return None; // nothing can be sent: the transmit queue signals when there is room
        }
        Some(at)
    }

    /// The port that the stack is over.
    pub fn port(&self) -> &P {
        &self.phy.port
    }

    /// The port that the stack is over.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.phy.port
    }

    /// Goes on through `port` in place of the present one, as the station `mac`. Connections stay: what was on its way
    /// is lost, and sent again. Everybody else may have another address now, too, and is asked for it anew.
    ///
    /// # Errors
    ///
    /// [`StackConfigError::Mac`]: nothing has changed then.
    pub fn move_to(&mut self, port: P, mac: MacAddress) -> Result<(), StackConfigError> {
        if !mac.is_station() {
            return Err(StackConfigError::Mac(mac));
        }
        self.phy.port = port;
        self.phy.fault = None;
        self.interface
            .set_hardware_addr(EthernetAddress(mac.0).into());
        // Any update makes it forget its neighbours.
        self.interface.update_ip_addrs(|_| {});
        Ok(())
    }

    /// What went through the port so far.
    pub fn counters(&self) -> StackCounters {
        self.phy.counters
    }

    /// What the port latched, if it stopped; connections then time out.
    pub fn fault(&self) -> Option<&PortError> {
        self.phy.fault.as_ref()
    }

    /// Forgets what the port latched, after it was reset or replaced by way of [`Stack::port_mut`].
    pub fn clear_fault(&mut self) -> Option<PortError> {
        self.phy.fault.take()
    }

    /// How much of a connection may be on its way, in bytes: how large a buffer for bulk data should be.
    pub fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// Adds a TCP socket with buffers of these sizes, in bytes, of at most 1 GiB. See [`Stack::window_bytes`].
    pub fn add_tcp(&mut self, receive_bytes: usize, transmit_bytes: usize) -> SocketHandle {
        let buffer = |bytes: usize| tcp::SocketBuffer::new(vec![0; bytes.min(1 << 30)]);
        let mut socket = tcp::Socket::new(buffer(receive_bytes), buffer(transmit_bytes));
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    /// Adds an ICMP socket with room for `packets` packets of up to `payload_bytes` bytes each way.
    pub fn add_icmp(&mut self, packets: usize, payload_bytes: usize) -> SocketHandle {
        let buffer = || {
            icmp::PacketBuffer::new(
                vec![icmp::PacketMetadata::EMPTY; packets],
                vec![0; packets * payload_bytes],
            )
        };
        self.sockets.add(icmp::Socket::new(buffer(), buffer()))
    }

    /// A TCP socket.
    ///
    /// # Panics
    ///
    /// When `handle` is of no TCP socket of this stack.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// An ICMP socket.
    ///
    /// # Panics
    ///
    /// When `handle` is of no ICMP socket of this stack.
    pub fn icmp(&mut self, handle: SocketHandle) -> &mut icmp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Connects a TCP socket from the next free dynamic port.
    ///
    /// # Errors
    ///
    /// [`tcp::ConnectError`].
    ///
    /// # Panics
    ///
    /// As for [`Stack::tcp`].
    pub fn connect(
        &mut self,
        handle: SocketHandle,
        to: (Ipv4Addr, u16),
    ) -> Result<(), tcp::ConnectError> {
        let from = self.dynamic_port();
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.interface.context(), to, from)
    }

    /// The next of the numbers that outgoing connections, and echo requests, are told apart by.
    pub(super) fn dynamic_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_DYNAMIC_PORT);
        port
    }

    /// Removes a socket. A connection is not closed by that: close or abort it before.
    ///
    /// # Panics
    ///
    /// When `handle` is of no socket of this stack.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }
}

/// smoltcp counts microseconds. Rounding down here and nowhere else keeps a deadline that has come in the past.
fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
