//! The demo's child processes: started, listened to, replaced when they die, never left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use crate::cli::error::CliError;
use crate::cli::report::GuestEvent;

/// A child stops by itself when its standard input closes; dropping this closes it, and waits.
pub(super) struct Process {
    name: String,
    child: Child,
    /// Open as long as the child should run.
    stdin: Option<ChildStdin>,
}

/// What a child has to say.
#[derive(Debug)]
pub(super) struct Message {
    /// Which child: the number it was started with.
    pub(super) from: u16,
    /// How often that one had been replaced when this was sent.
    pub(super) life: u16,
    pub(super) what: Said,
}

#[derive(Debug)]
pub(super) enum Said {
    Event(GuestEvent),
    /// A line of its log.
    Log(String),
    /// Its standard error closed: it has ended, or is about to.
    Ended,
}

impl Process {
    /// Starts this program again with other arguments.
    pub(super) fn start(
        name: &str,
        arguments: &[&str],
        socket: &Path,
        from: u16,
        life: u16,
        to: Sender<Message>,
    ) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(CliError::OwnExecutable)?;
        let (role, rest) = arguments.split_first().unwrap_or((&"--help", &[]));
        let mut child = Command::new(program)
            .arg(role)
            .arg("--socket")
            .arg(socket)
            .args(rest)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| CliError::Spawn {
                what: name.to_owned(),
                error,
            })?;
        let stdin = child.stdin.take();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let what = match serde_json::from_str(&line) {
                        Ok(event) => Said::Event(event),
                        Err(_) => Said::Log(line),
                    };
                    if to.send(Message { from, life, what }).is_err() {
                        return;
                    }
                }
                // Nobody listens any more when the demo itself is ending.
                let _ = to.send(Message {
                    from,
                    life,
                    what: Said::Ended,
                });
            });
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            stdin,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the child to end.
    pub(super) fn finish(&mut self) {
        self.stdin = None;
    }

    /// Waits for the child's end.
    pub(super) fn wait(&mut self) -> Result<ExitStatus, CliError> {
        self.child.wait().map_err(|error| CliError::Spawn {
            what: self.name.clone(),
            error,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // On the way out after an error: do not wait for a child that hangs.
        self.stdin = None;
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
