//! When to stop: a descriptor that becomes readable on SIGINT or SIGTERM, or when the parent goes away.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::error::CliError;

/// Readable once it is time to stop.
pub(crate) struct Stop {
    readable: UnixStream,
    writable: UnixStream,
}

impl Stop {
    /// Watches for SIGINT and SIGTERM.
    pub(crate) fn on_signals() -> Result<Self, CliError> {
        let (readable, writable) = UnixStream::pair().map_err(CliError::Signals)?;
        for signal in [SIGINT, SIGTERM] {
            let end = writable.try_clone().map_err(CliError::Signals)?;
            signal_hook::low_level::pipe::register(signal, end).map_err(CliError::Signals)?;
        }
        Ok(Self { readable, writable })
    }

    /// Stops also when standard input closes, as it does when the parent process ends for any reason.
    pub(crate) fn or_when_stdin_closes(self) -> Result<Self, CliError> {
        let mut end = self.writable.try_clone().map_err(CliError::Signals)?;
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let mut sink = [0; 256];
                while matches!(std::io::stdin().read(&mut sink), Ok(read) if read > 0) {}
                // The other end is in this process: the write can only fail when nobody waits any more.
                let _ = end.write_all(&[0]);
            })
            .map_err(CliError::Signals)?;
        Ok(self)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
