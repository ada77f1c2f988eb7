//! A file server: `GET` and `HEAD` for the files of one directory (RFC 9112, in the manner of HTTP/1.0: one request
//! a connection).

use core::time::Duration;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use percent_encoding::percent_decode_str;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::Application;
use crate::net::port::Port;
use crate::net::stack::Stack;

/// Bytes of the longest request that is read.
const MAX_REQUEST_BYTES: usize = 4096;
/// Fields of the largest request header.
const MAX_FIELDS: usize = 64;
/// How long TIME-WAIT lasts here (RFC 9293 has minutes): long enough for the last acknowledgement to leave. Nobody
/// else waits for the port, and a client that did not hear the acknowledgement gets a reset after all of its file.
const LINGER: Duration = Duration::from_millis(50);

/// How a directory is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The TCP port.
    pub port: u16,
    /// Connections at a time; who comes when all are in use is refused.
    pub connections: usize,
    /// How long a request may take to arrive, and how long a client may be silent.
    pub patience: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            port: 80,
            connections: 8,
            patience: Duration::from_secs(10),
        }
    }
}

/// A directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It cannot be opened.
    #[error("{directory} cannot be served: {source}")]
    Directory {
        /// The directory.
        directory: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no TCP port 0.
    #[error("TCP port 0 cannot be listened on")]
    PortZero,
}

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Files that were sent whole.
    pub files: u64,
    /// Bytes of files, also of those that were cut short.
    pub bytes: u64,
    /// Requests that were answered with an error.
    pub refused: u64,
    /// Connections that ended before their file was sent.
    pub aborted: u64,
}

/// Serves the files below one directory, whatever the request says: never what lies outside, also by symbolic links.
pub struct Server {
    config: ServerConfig,
    directory: OwnedFd,
    connections: Vec<Connection>,
    counters: ServerCounters,
}

struct Connection {
    socket: SocketHandle,
    state: State,
}

enum State {
    /// Nobody is connected.
    Listening,
    /// The request is collected.
    Request { bytes: Vec<u8>, until: Duration },
    /// The header and then `left` bytes of the file are sent.
    Response {
        head: Vec<u8>,
        sent: usize,
        file: Option<File>,
        left: u64,
    },
    /// All was handed to TCP, which has until then once both sides are closed.
    Closing { until: Option<Duration> },
}

impl Server {
    /// Listens on all connections at once.
    ///
    /// # Errors
    ///
    /// [`ServerError`].
    pub fn new<P: Port>(
        stack: &mut Stack<P>,
        directory: &Path,
        config: ServerConfig,
    ) -> Result<Self, ServerError> {
        if config.port == 0 {
            return Err(ServerError::PortZero);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| {
            ServerError::Directory {
                directory: directory.display().to_string(),
                source: error.into(),
            }
        })?;
        let connections = (0..config.connections)
            .map(|_| Connection {
                socket: stack.add_tcp(2 * MAX_REQUEST_BYTES, stack.window_bytes()),
                state: State::Closing { until: None },
            })
            .collect();
        let mut server = Self {
            config,
            directory,
            connections,
            counters: ServerCounters::default(),
        };
        server.advance(stack, Duration::ZERO);
        Ok(server)
    }

    /// What was served so far.
    pub fn counters(&self) -> ServerCounters {
        self.counters
    }

    /// Connections that are in use now.
    pub fn connected(&self) -> usize {
        let is_used = |connection: &&Connection| !matches!(connection.state, State::Listening);
        self.connections.iter().filter(is_used).count()
    }
}

impl<P: Port> Application<P> for Server {
    fn advance(&mut self, stack: &mut Stack<P>, now: Duration) -> bool {
        let mut advanced = false;
        for connection in &mut self.connections {
            let socket = stack.tcp(connection.socket);
            // Each step leads to the next state or waits; a connection has four.
            while connection.step(
                socket,
                &self.directory,
                &self.config,
                &mut self.counters,
                now,
            ) {
                advanced = true;
            }
        }
        advanced
    }

    fn deadline(&self) -> Option<Duration> {
        let deadline = |connection: &Connection| match connection.state {
            State::Request { until, .. } => Some(until),
            State::Closing { until } => until,
            // TCP's own timeout watches over a response.
            State::Listening | State::Response { .. } => None,
        };
        self.connections.iter().filter_map(deadline).min()
    }
}

impl Connection {
    /// Does what can be done in this state; returns whether there may be more to do at once.
    fn step(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        directory: &OwnedFd,
        config: &ServerConfig,
        counters: &mut ServerCounters,
        now: Duration,
    ) -> bool {
        match &mut self.state {
            State::Listening => {
                if socket.is_listening() || socket.state() == tcp::State::SynReceived {
                    return false;
                }
                self.state = match socket.is_active() {
                    true => State::Request {
                        bytes: Vec::with_capacity(512),
                        until: now + config.patience,
                    },
                    false => State::Closing { until: None },
                };
                true
            }
            State::Request { bytes, until } => {
                let room = MAX_REQUEST_BYTES - bytes.len();
                let _ = socket.recv(|data| {
                    let count = data.len().min(room);
                    bytes.extend_from_slice(&data[..count]);
                    (count, ())
                });
                match answer(bytes, directory) {
                    Some(answer) => {
                        counters.refused += u64::from(answer.status != Status::Ok);
                        self.state = answer.into();
                    }
                    None if !socket.may_recv() || now >= *until => self.abort(socket, counters),
                    None => return false,
                }
                true
            }
            State::Response {
                head,
                sent,
                file,
                left,
            } => {
                if *sent < head.len() {
                    match socket.send_slice(&head[*sent..]) {
                        Ok(count) => *sent += count,
                        Err(_) => self.abort(socket, counters),
                    }
                    return socket.can_send();
                }
                let Some(source) = file.as_mut().filter(|_| *left > 0) else {
                    counters.files += u64::from(file.is_some());
                    socket.close();
                    self.state = State::Closing { until: None };
                    return true;
                };
                // From the file straight into TCP's buffer.
                let read = socket.send(|buffer| {
                    let room = buffer
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    match source.read(&mut buffer[..room]) {
                        Ok(count) => (count, Ok((count, room))),
                        Err(error) => (0, Err(error)),
                    }
                });
                match read {
                    Ok(Ok((_, 0))) => false, // no room
                    // The file became shorter: the announced length cannot be kept.
                    Ok(Ok((0, _)) | Err(_)) | Err(_) => {
                        self.abort(socket, counters);
                        true
                    }
                    Ok(Ok((count, _))) => {
                        *left -= count as u64;
                        counters.bytes += count as u64;
                        true
                    }
                }
            }
            State::Closing { until } => {
                // What the client still sends is of no interest, but must not fill its window.
                let _ = socket.recv(|data| (data.len(), ()));
                let is_free = match socket.state() {
                    // A reset that is still to be sent keeps the client's address.
                    tcp::State::Closed => socket.remote_endpoint().is_none(),
                    tcp::State::TimeWait => now >= *until.get_or_insert(now + LINGER),
                    _ => false,
                };
                if is_free {
                    socket.abort();
                    socket.set_timeout(Some(config.patience.into()));
                    // It is closed, and the port is not zero: this cannot fail.
                    let _ = socket.listen(config.port);
                    self.state = State::Listening;
                }
                false
            }
        }
    }

    fn abort(&mut self, socket: &mut tcp::Socket<'_>, counters: &mut ServerCounters) {
        socket.abort();
        counters.aborted += 1;
        self.state = State::Closing { until: None };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    HeaderTooLarge,
    ServerError,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeaderTooLarge => "431 Request Header Fields Too Large",
            Self::ServerError => "500 Internal Server Error",
        }
    }
}

struct Answer {
    status: Status,
    /// The file and its length; without the file only the length is told (`HEAD`).
    content: Option<(Option<File>, u64)>,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self {
            status,
            content: None,
        }
    }
}

impl From<Answer> for State {
    fn from(answer: Answer) -> Self {
        let line = answer.status.line();
        let head = |kind: &str, length: u64, body: &str| {
            format!(
                "HTTP/1.0 {line}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes()
        };
        match answer.content {
            Some((file, length)) => Self::Response {
                head: head("application/octet-stream", length, ""),
                sent: 0,
                left: if file.is_some() { length } else { 0 },
                file,
            },
            None => Self::Response {
                head: head("text/plain", line.len() as u64 + 1, &format!("{line}\n")),
                sent: 0,
                file: None,
                left: 0,
            },
        }
    }
}

/// The answer to a request, if all of it is there.
fn answer(bytes: &[u8], directory: &OwnedFd) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let answer = match request.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST_BYTES => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Status::HeaderTooLarge.into()
        }
        Err(_) => Status::BadRequest.into(),
        Ok(httparse::Status::Complete(_)) => {
            let target = request.path.unwrap_or_default();
            match request.method {
                Some(method @ ("GET" | "HEAD")) => match open(target, directory) {
                    Ok((file, length)) => Answer {
                        status: Status::Ok,
                        content: Some(((method == "GET").then_some(file), length)),
                    },
                    Err(status) => status.into(),
                },
                _ => Status::MethodNotAllowed.into(),
            }
        }
    };
    tracing::debug!(
        method = request.method,
        target = request.path,
        status = answer.status.line(),
        "answered"
    );
    Some(answer)
}

/// Opens the file that a request's target names, below the directory.
fn open(target: &str, directory: &OwnedFd) -> Result<(File, u64), Status> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').ok_or(Status::BadRequest)?;
    let path: Vec<u8> = percent_decode_str(path).collect();
    if path.contains(&0) {
        return Err(Status::BadRequest);
    }
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(Status::Forbidden);
    }
    if path.is_empty() {
        return Err(Status::NotFound);
    }
    // NONBLOCK: opening a named pipe must not wait for its other end. BENEATH: the kernel itself refuses every way
    // out, also by symbolic links that somebody changes meanwhile.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(
        directory.as_fd(),
        OsStr::from_bytes(&path),
        flags,
        Mode::empty(),
        resolve,
    );
    let file = File::from(file.map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => Status::NotFound,
        Errno::XDEV | Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::NXIO => Status::Forbidden,
        _ => Status::ServerError,
    })?);
    let metadata = file.metadata().map_err(|_| Status::ServerError)?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(Status::Forbidden),
    }
}
