//! An HTTP client for one file (RFC 9112, in the manner of HTTP/1.0: one request a connection).

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::io::Write;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::Application;
use crate::net::port::Port;
use crate::net::stack::Stack;

/// Bytes of the longest response header that is read.
const MAX_HEAD_BYTES: usize = 8192;
/// Fields of the largest response header.
const MAX_FIELDS: usize = 64;
/// From one attempt to connect to the next.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What must be escaped in a path (RFC 3986, section 3.3), `/` not among it.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// What is fetched from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// The server's address.
    pub server: Ipv4Addr,
    /// The server's port.
    pub port: u16,
    /// The path, not escaped, with or without a `/` at its begin.
    pub path: String,
    /// How long connecting is tried, also while the server refuses.
    pub connect_timeout: Duration,
    /// How long nothing may arrive.
    pub stall_timeout: Duration,
}

impl FetchConfig {
    /// With ten seconds for connecting, and thirty for a stall.
    pub fn new(server: Ipv4Addr, port: u16, path: impl Into<String>) -> Self {
        Self {
            server,
            port,
            path: path.into(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// A file that arrived whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, SHA-256 {}", self.bytes, hex(&self.sha256))
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there, or nobody is there.
    #[error("{server}:{port} cannot be connected to: {reason}")]
    Connect {
        /// The server's address.
        server: Ipv4Addr,
        /// The server's port.
        port: u16,
        /// What happened.
        reason: &'static str,
    },
    /// The server does not give the file.
    #[error("the server answers {code} {reason}")]
    Status {
        /// The HTTP status code.
        code: u16,
        /// The server's words for it.
        reason: String,
    },
    /// What came is no HTTP response.
    #[error("the server's answer is no HTTP response: {0}")]
    BadResponse(String),
    /// The connection ended too early.
    #[error("the connection ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes that arrived.
        received: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The server closed before it answered, or in the middle of an answer of unannounced length.
    #[error("the server reset the connection after {received} bytes")]
    Reset {
        /// Bytes that arrived.
        received: u64,
    },
    /// Nothing arrived for too long.
    #[error("nothing has arrived for {0:?}")]
    Stalled(Duration),
    /// The file cannot be stored.
    #[error("the file cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

enum State {
    /// Tries to connect, again at `retry` if it was refused.
    Connecting {
        until: Duration,
        retry: Option<Duration>,
    },
    /// The request is out, the response's header is collected.
    Head { head: Vec<u8> },
    /// The file is coming in.
    Body { expected: Option<u64> },
    /// It ended.
    Done,
}

/// Fetches one file into a writer.
pub struct Fetch<W> {
    config: FetchConfig,
    socket: SocketHandle,
    writer: W,
    state: State,
    received: u64,
    hash: Sha256,
    last_arrival: Duration,
    outcome: Option<Result<Fetched, FetchError>>,
}

impl<W: Write> Fetch<W> {
    /// Begins to connect with the next [`Application::advance`]. What arrives is written to `writer`, which is the
    /// only thing that may block.
    pub fn new<P: Port>(
        stack: &mut Stack<P>,
        config: FetchConfig,
        writer: W,
        now: Duration,
    ) -> Self {
        Self {
            socket: stack.add_tcp(stack.window_bytes(), 4096),
            state: State::Connecting {
                until: now + config.connect_timeout,
                retry: Some(now),
            },
            config,
            writer,
            received: 0,
            hash: Sha256::new(),
            last_arrival: now,
            outcome: None,
        }
    }

    /// Bytes of the file so far, and how many there will be if the server said so.
    pub fn progress(&self) -> (u64, Option<u64>) {
        match self.state {
            State::Body { expected } => (self.received, expected),
            _ => (self.received, None),
        }
    }

    /// The outcome, once.
    pub fn outcome(&mut self) -> Option<Result<Fetched, FetchError>> {
        self.outcome.take()
    }

    /// Whether the connection is closed on both sides. For a clean end take turns until it is.
    pub fn has_closed<P: Port>(&self, stack: &mut Stack<P>) -> bool {
        let state = stack.tcp(self.socket).state();
        matches!(state, tcp::State::Closed | tcp::State::TimeWait)
    }

    /// Removes the socket from the stack, and a connection that is left with it; returns the writer.
    pub fn finish<P: Port>(self, stack: &mut Stack<P>) -> W {
        stack.tcp(self.socket).abort();
        stack.remove(self.socket);
        self.writer
    }

    fn connect<P: Port>(
        &mut self,
        stack: &mut Stack<P>,
        now: Duration,
    ) -> Result<bool, FetchError> {
        let State::Connecting { until, retry } = self.state else {
            return Ok(false);
        };
        let failed = |reason| FetchError::Connect {
            server: self.config.server,
            port: self.config.port,
            reason,
        };
        match stack.tcp(self.socket).state() {
            tcp::State::Established => {
                let path = self.config.path.trim_start_matches('/');
                let request = format!(
                    "GET /{} HTTP/1.0\r\nHost: {}:{}\r\nConnection: close\r\n\r\n",
                    utf8_percent_encode(path, ESCAPED),
                    self.config.server,
                    self.config.port,
                );
                match stack.tcp(self.socket).send_slice(request.as_bytes()) {
                    Ok(sent) if sent == request.len() => {}
                    Ok(_) => return Err(failed("the path is too long")),
                    Err(_) => return Err(failed("the server closed at once")),
                }
                self.state = State::Head { head: Vec::new() };
                self.last_arrival = now;
                Ok(true)
            }
            tcp::State::Closed if now >= until => Err(failed("it refuses")),
            tcp::State::Closed => match retry {
                Some(at) if now >= at => {
                    let to = (self.config.server, self.config.port);
                    stack
                        .connect(self.socket, to)
                        .map_err(|_| failed("no such address or port"))?;
                    self.state = State::Connecting { until, retry: None };
                    Ok(true)
                }
                Some(_) => Ok(false),
                None => {
                    let retry = Some(now + RETRY_INTERVAL);
                    self.state = State::Connecting { until, retry };
                    Ok(false)
                }
            },
            _ if now >= until => Err(failed("it does not answer")),
            _ => Ok(false),
        }
    }

    /// Collects the header of the response; what is behind it already belongs to the file.
    fn read_head<P: Port>(
        &mut self,
        stack: &mut Stack<P>,
        now: Duration,
    ) -> Result<bool, FetchError> {
        let State::Head { head } = &mut self.state else {
            return Ok(false);
        };
        let socket = stack.tcp(self.socket);
        let mut progress = false;
        while socket.can_recv() {
            let before = head.len();
            let taken = socket.recv(|data| {
                let count = data.len().min(MAX_HEAD_BYTES - head.len());
                head.extend_from_slice(&data[..count]);
                (count, count)
            });
            self.last_arrival = now;
            progress = true;
            if let Some(Head { bytes, expected }) = parse_head(head)? {
                let rest = head.split_off(bytes);
                self.state = State::Body { expected };
                self.store(&rest)?;
                return Ok(true);
            }
            if head.len() == MAX_HEAD_BYTES {
                return Err(FetchError::BadResponse(format!(
                    "its header is longer than {MAX_HEAD_BYTES} bytes"
                )));
            }
            if taken.is_err() || head.len() == before {
                break;
            }
        }
        match socket.may_recv() {
            true => Ok(progress),
            false => Err(FetchError::Reset { received: 0 }),
        }
    }

    fn read_body<P: Port>(
        &mut self,
        stack: &mut Stack<P>,
        now: Duration,
    ) -> Result<bool, FetchError> {
        let State::Body { expected } = self.state else {
            return Ok(false);
        };
        let mut progress = false;
        loop {
            if expected.is_some_and(|expected| self.received >= expected) {
                return self.complete(stack).map(|()| true);
            }
            let left = expected.map_or(u64::MAX, |expected| expected - self.received);
            let mut stored = Ok(());
            let taken = stack.tcp(self.socket).recv(|data| {
                let count = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                stored = self.store(&data[..count]);
                (count, count)
            });
            stored?;
            match taken {
                Ok(0) => return Ok(progress),
                Ok(_) => {
                    self.last_arrival = now;
                    progress = true;
                }
                Err(tcp::RecvError::Finished) if expected.is_none() => {
                    return self.complete(stack).map(|()| true);
                }
                Err(_) => {
                    return Err(match expected {
                        Some(expected) => FetchError::Truncated {
                            received: self.received,
                            expected,
                        },
                        None => FetchError::Reset {
                            received: self.received,
                        },
                    });
                }
            }
        }
    }

    fn store(&mut self, data: &[u8]) -> Result<(), FetchError> {
        self.writer.write_all(data)?;
        self.hash.update(data);
        self.received += data.len() as u64;
        Ok(())
    }

    fn complete<P: Port>(&mut self, stack: &mut Stack<P>) -> Result<(), FetchError> {
        self.writer.flush()?;
        stack.tcp(self.socket).close();
        self.state = State::Done;
        self.outcome = Some(Ok(Fetched {
            bytes: self.received,
            sha256: std::mem::take(&mut self.hash).finalize().into(),
        }));
        Ok(())
    }
}

impl<P: Port, W: Write> Application<P> for Fetch<W> {
    fn advance(&mut self, stack: &mut Stack<P>, now: Duration) -> bool {
        let stalled = self.config.stall_timeout;
        let advanced = match self.state {
            State::Connecting { .. } => self.connect(stack, now),
            State::Head { .. } => self.read_head(stack, now),
            State::Body { .. } => self.read_body(stack, now),
            State::Done => return false,
        };
        let waits = matches!(self.state, State::Head { .. } | State::Body { .. });
        let advanced = match advanced {
            Ok(false) if waits && now.saturating_sub(self.last_arrival) >= stalled => {
                Err(FetchError::Stalled(stalled))
            }
            other => other,
        };
        match advanced {
            Ok(advanced) => advanced,
            Err(error) => {
                stack.tcp(self.socket).abort();
                self.state = State::Done;
                self.outcome = Some(Err(error));
                true
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Connecting { until, retry } => {
                Some(retry.map_or(until, |retry| retry.min(until)))
            }
            State::Head { .. } | State::Body { .. } => {
                Some(self.last_arrival + self.config.stall_timeout)
            }
            State::Done => None,
        }
    }
}

struct Head {
    /// Its own length in bytes.
    bytes: usize,
    /// `Content-Length`.
    expected: Option<u64>,
}

/// Reads a response's header, if all of it is there.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, FetchError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let bad = |reason: &str| FetchError::BadResponse(reason.to_owned());
    let length = match response
        .parse(bytes)
        .map_err(|error| bad(&error.to_string()))?
    {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let code = response.code.unwrap_or_default();
    if code != 200 {
        let reason = response
            .reason
            .unwrap_or_default()
            .chars()
            .take(80)
            .collect();
        return Err(FetchError::Status { code, reason });
    }
    let mut expected = None;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).unwrap_or_default();
            expected = Some(
                text.parse()
                    .map_err(|_| bad("its Content-Length is no number"))?,
            );
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("it uses a transfer encoding, which HTTP/1.0 has not"));
        }
    }
    Ok(Some(Head {
        bytes: length,
        expected,
    }))
}
