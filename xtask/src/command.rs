//! Runs a program: its output is shown as it comes, and the test results in it are counted.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, Stdio};

use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// A program with its arguments and environment.
pub(crate) struct Command {
    inner: process::Command,
    /// What the reader sees: the variables set and the words.
    shown: String,
}

impl Command {
    /// `program`, run in the project's root.
    pub(crate) fn new(project: &Project, program: &str) -> Self {
        let mut inner = process::Command::new(program);
        inner.current_dir(&project.root).stdin(Stdio::null());
        Self {
            inner,
            shown: program.to_owned(),
        }
    }

    /// Cargo of the toolchain that runs this program.
    pub(crate) fn cargo(project: &Project) -> Self {
        Self::new(project, "cargo")
    }

    /// Cargo of the nightly toolchain.
    pub(crate) fn nightly_cargo(project: &Project) -> Self {
        Self::new(project, "rustup").args(["run", "nightly", "cargo"])
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(&arg.as_ref().to_string_lossy());
            self.inner.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!(
            "{name}={:?} {}",
            value.as_ref().to_string_lossy(),
            self.shown
        );
        self.inner.env(name, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] when it cannot be started or does not exit with 0.
    pub(crate) fn run(self, tally: &mut Tally) -> Result<(), Stop> {
        println!("$ {self}");
        let shown = self.to_string();
        match self.stream(tally) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Stop::Failed(format!("`{shown}`: {status}"))),
            Err(error) => Err(Stop::Failed(format!("`{shown}` cannot run: {error}"))),
        }
    }

    /// What it writes to standard output, when it can be started and exits with 0.
    pub(crate) fn read(mut self) -> Option<String> {
        let output = self.inner.stderr(Stdio::null()).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn stream(mut self, tally: &mut Tally) -> io::Result<process::ExitStatus> {
        // One pipe for both streams keeps their lines in order.
        let (reader, writer) = io::pipe()?;
        self.inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.inner.spawn()?;
        // The command holds the pipe's writing ends; the reader would wait for them for ever.
        drop(self);
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        let mut out = io::stdout().lock();
        while reader.read_until(b'\n', &mut line)? > 0 {
            out.write_all(&line)?;
            tally.read_line(&String::from_utf8_lossy(&line));
            line.clear();
        }
        child.wait()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
