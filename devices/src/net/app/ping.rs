//! Echo requests (RFC 792), one at a time.

use core::net::Ipv4Addr;
use core::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};

use super::Application;
use crate::net::port::Port;
use crate::net::stack::Stack;

/// What is sent, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingConfig {
    /// Who is asked.
    pub target: Ipv4Addr,
    /// How many requests are sent.
    pub count: u32,
    /// From one request to the next, unless the answer takes longer.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Payload of a request, in bytes; what exceeds the MTU is never sent.
    pub payload_bytes: usize,
}

impl PingConfig {
    /// Four requests of 56 bytes, one a second.
    pub fn new(target: Ipv4Addr) -> Self {
        Self {
            target,
            count: 4,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            payload_bytes: 56,
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The request's number, counted from 1.
    pub sequence: u32,
    /// How long its answer took; `None` if there was none in time.
    pub round_trip: Option<Duration>,
}

/// Asks a host whether it is there.
pub struct Ping {
    config: PingConfig,
    socket: SocketHandle,
    ident: u16,
    payload: Vec<u8>,
    /// Requests so far.
    sent: u32,
    state: State,
    finished: Option<Echo>,
}

enum State {
    /// The next request goes out at this time.
    Pausing { until: Duration },
    /// A request is out.
    Waiting { since: Duration },
    /// No more requests.
    Done,
}

impl Ping {
    /// Begins with the next [`Application::advance`].
    pub fn new<P: Port>(stack: &mut Stack<P>, config: PingConfig) -> Self {
        let header_bytes = 8;
        let socket = stack.add_icmp(4, header_bytes + config.payload_bytes);
        let ident = stack.dynamic_port();
        // A fresh socket and a number other than zero: this cannot fail.
        let _ = stack.icmp(socket).bind(icmp::Endpoint::Ident(ident));
        Self {
            config,
            socket,
            ident,
            payload: (0..config.payload_bytes).map(|byte| byte as u8).collect(),
            sent: 0,
            state: State::Pausing {
                until: Duration::ZERO,
            },
            finished: None,
        }
    }

    /// What became of a request, once for each.
    pub fn next_echo(&mut self) -> Option<Echo> {
        self.finished.take()
    }

    /// Whether all requests were answered or given up.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn send<P: Port>(&mut self, stack: &mut Stack<P>) {
        let request = Icmpv4Repr::EchoRequest {
            ident: self.ident,
            seq_no: self.sent as u16,
            data: &self.payload,
        };
        let socket = stack.icmp(self.socket);
        // A request for which there is no room goes the way of one that was lost.
        if let Ok(buffer) = socket.send(request.buffer_len(), IpAddress::Ipv4(self.config.target)) {
            request.emit(
                &mut Icmpv4Packet::new_unchecked(buffer),
                &ChecksumCapabilities::default(),
            );
        }
    }

    /// Takes answers out of the socket until one is to the request that is out.
    fn is_answered<P: Port>(&mut self, stack: &mut Stack<P>) -> bool {
        let socket = stack.icmp(self.socket);
        while let Ok((bytes, from)) = socket.recv() {
            let answer = Icmpv4Packet::new_checked(bytes).and_then(|packet| {
                Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()).map(is_reply)
            });
            let expected = (self.ident, self.sent as u16, self.payload.as_slice());
            if from == IpAddress::Ipv4(self.config.target) && answer == Ok(Some(expected)) {
                return true;
            }
        }
        false
    }

    /// Ends the request that is out.
    fn finish(&mut self, since: Duration, round_trip: Option<Duration>) {
        self.finished = Some(Echo {
            sequence: self.sent,
            round_trip,
        });
        self.state = match self.sent < self.config.count {
            true => State::Pausing {
                until: since + self.config.interval,
            },
            false => State::Done,
        };
    }
}

fn is_reply(answer: Icmpv4Repr<'_>) -> Option<(u16, u16, &[u8])> {
    match answer {
        Icmpv4Repr::EchoReply {
            ident,
            seq_no,
            data,
        } => Some((ident, seq_no, data)),
        _ => None,
    }
}

impl<P: Port> Application<P> for Ping {
    fn advance(&mut self, stack: &mut Stack<P>, now: Duration) -> bool {
        match self.state {
            State::Pausing { until } if now >= until && self.finished.is_none() => {
                if self.config.count == 0 {
                    self.state = State::Done;
                    return false;
                }
                self.sent += 1;
                self.send(stack);
                self.state = State::Waiting { since: now };
                true
            }
            State::Waiting { since } => {
                let elapsed = now.saturating_sub(since);
                if self.is_answered(stack) {
                    self.finish(since, Some(elapsed));
                } else if elapsed >= self.config.timeout {
                    self.finish(since, None);
                }
                false
            }
            _ => false,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Pausing { until } => Some(until),
            State::Waiting { since } => Some(since + self.config.timeout),
            State::Done => None,
        }
    }
}
