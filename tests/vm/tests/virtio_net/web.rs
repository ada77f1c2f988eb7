//! A file over HTTP: a server for it, a client, and the file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// Serves one file to whoever asks, until the process ends.
pub(crate) struct Web {
    port: u16,
    file: Arc<Vec<u8>>,
}

impl Web {
    /// Listens at an address, at a port that is free.
    pub(crate) fn serve(address: &str, file: Vec<u8>) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let (port, file) = (listener.local_addr().unwrap().port(), Arc::new(file));
        let served = Arc::clone(&file);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let file = Arc::clone(&served);
                // A client that goes away is no matter of the others.
                thread::spawn(move || answer(stream, &file).ok());
            }
        });
        Self { port, file }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn file(&self) -> &[u8] {
        &self.file
    }
}

fn answer(mut stream: TcpStream, file: &[u8]) -> std::io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
        file.len()
    )?;
    stream.write_all(file)
}

/// Fetches a file; one who listens may not answer yet, so it is tried again.
pub(crate) fn get(from: impl ToSocketAddrs + Copy, path: &str, limit: Duration) -> Vec<u8> {
    let until = Instant::now() + limit;
    loop {
        match try_get(from, path, limit) {
            Ok(file) => return file,
            Err(error) => assert!(Instant::now() < until, "{path}: {error}"),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn try_get(from: impl ToSocketAddrs, path: &str, limit: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    match head {
        Some(end) if answer.starts_with(b"HTTP/1.") => Ok(answer.split_off(end + 4)),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Bytes that do not repeat.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
