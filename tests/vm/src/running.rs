//! A command in a guest.

use std::time::Duration;

use crate::error::Error;
use crate::guest::{COMMAND, Guest};
use crate::process::{contains, said};
use crate::wire::Frame;

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit status; 128 more than the number of the signal that ended it.
    pub status: i32,
    /// What it wrote to its standard output and error.
    pub output: Vec<u8>,
}

impl Finished {
    /// What it wrote, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// A command that goes on in a guest.
pub struct Running<'a> {
    guest: &'a Guest,
    id: u32,
    command: String,
}

impl<'a> Running<'a> {
    pub(crate) fn new(guest: &'a Guest, id: u32, command: String) -> Self {
        Self { guest, id, command }
    }

    /// Waits until it has written a text.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if it ends before; [`Error::Hung`], [`Error::Ended`].
    pub fn wait_for(&self, text: &str) -> Result<(), Error> {
        self.wait_for_within(COMMAND, text)
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// As for [`Running::wait_for`].
    pub fn wait_for_within(&self, limit: Duration, text: &str) -> Result<(), Error> {
        let during = format!("{text:?} from `{}`", self.command);
        let ended = self.guest.wait(limit, &during, Some(self.id), |known| {
            let progress = known.commands.get(&self.id)?;
            if contains(&progress.output, text) {
                return Some(None);
            }
            let status = progress.status?;
            Some(Some((status, progress.output.clone(), said(known))))
        })?;
        match ended {
            None => Ok(()),
            Some((status, output, said)) => Err(Error::Command {
                command: self.command.clone(),
                status,
                output: String::from_utf8_lossy(&output).into_owned(),
                said,
            }),
        }
    }

    /// What it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        let known = self.guest.known();
        let output = known.commands.get(&self.id).map(|p| p.output.as_slice());
        String::from_utf8_lossy(output.unwrap_or_default()).into_owned()
    }

    /// Sends a signal to it and to its children; `SIGTERM` is 15.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`].
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.guest
            .send(&Frame::Signal(self.id, signal), &self.command)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// [`Error::Hung`], [`Error::Ended`].
    pub fn wait(self) -> Result<Finished, Error> {
        self.wait_within(COMMAND)
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// As for [`Running::wait`].
    pub fn wait_within(self, limit: Duration) -> Result<Finished, Error> {
        let during = format!("`{}`", self.command);
        self.guest.wait(limit, &during, Some(self.id), |known| {
            let status = known.commands.get(&self.id)?.status?;
            let progress = known.commands.remove(&self.id)?;
            Some(Finished {
                status,
                output: progress.output,
            })
        })
    }

    /// Waits for its end, which must be an exit with 0; gives what it wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Command`], [`Error::Hung`], [`Error::Ended`].
    pub fn succeed_within(self, limit: Duration) -> Result<String, Error> {
        let (guest, command) = (self.guest, self.command.clone());
        let finished = self.wait_within(limit)?;
        if finished.status == 0 {
            return Ok(finished.text());
        }
        Err(Error::Command {
            command,
            status: finished.status,
            output: finished.text(),
            said: said(&guest.known()),
        })
    }
}
