//! When to stop: a descriptor that becomes readable on SIGINT or SIGTERM, or when the parent goes away.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::error::CliError;

/// Readable once it is time to stop.
pub(crate) struct Stop {
    readable: UnixStream,
    writable: UnixStream,
    is_due: Arc<AtomicBool>,
}

impl Stop {
    /// Watches for SIGINT and SIGTERM.
    pub(crate) fn on_signals() -> Result<Self, CliError> {
        let (readable, writable) = UnixStream::pair().map_err(CliError::Signals)?;
        let is_due = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // First: whoever is woken by the descriptor finds it due.
            signal_hook::flag::register(signal, Arc::clone(&is_due)).map_err(CliError::Signals)?;
            let end = writable.try_clone().map_err(CliError::Signals)?;
            signal_hook::low_level::pipe::register(signal, end).map_err(CliError::Signals)?;
        }
        Ok(Self {
            readable,
            writable,
            is_due,
        })
    }

    /// Stops also when standard input closes, as it does when the parent process ends for any reason.
    pub(crate) fn or_when_stdin_closes(self) -> Result<Self, CliError> {
        let mut end = self.writable.try_clone().map_err(CliError::Signals)?;
        let is_due = Arc::clone(&self.is_due);
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let mut sink = [0; 256];
                while matches!(std::io::stdin().read(&mut sink), Ok(read) if read > 0) {}
                is_due.store(true, Relaxed);
                // The other end is in this process: the write can only fail when nobody waits any more.
                let _ = end.write_all(&[0]);
            })
            .map_err(CliError::Signals)?;
        Ok(self)
    }

    /// Whether it is time to stop.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due.load(Relaxed)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
