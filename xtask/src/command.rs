//! Runs a program: its output is shown as it comes, and the test results in it are counted.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// A program with its arguments and environment.
pub(crate) struct Command {
    inner: process::Command,
    /// The variables that are set, as a shell would be told.
    variables: String,
    /// The program and its arguments.
    words: String,
    /// What it prints goes to standard error.
    aside: bool,
}

impl Command {
    /// `program`, run in the project's root.
    pub(crate) fn new(project: &Project, program: &str) -> Self {
        let mut inner = process::Command::new(program);
        inner.current_dir(&project.root).stdin(Stdio::null());
        Self {
            inner,
            variables: String::new(),
            words: program.to_owned(),
            aside: project.prints_figures,
        }
    }

    /// Run in `directory` instead.
    pub(crate) fn within(mut self, directory: &Path) -> Self {
        self.inner.current_dir(directory);
        self
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
            self.words.push(' ');
            self.words.push_str(&quoted(arg.as_ref()));
            self.inner.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push_str(&format!("{name}={} ", quoted(value.as_ref())));
        self.inner.env(name, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] when it cannot be started or does not exit with 0.
    pub(crate) fn run(self, tally: &mut Tally) -> Result<(), Stop> {
        self.run_reading(tally, |_| true)
    }

    /// Runs it to its end; `read` looks at each line, and says whether it is shown.
    ///
    /// # Errors
    ///
    /// As for [`Command::run`].
    pub(crate) fn run_reading(
        self,
        tally: &mut Tally,
        read: impl FnMut(&str) -> bool,
    ) -> Result<(), Stop> {
        let words = self.words.clone();
        match self.stream(tally, read) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Stop::Failed(format!("`{words}`: {status}"))),
            Err(error) => Err(Stop::Failed(format!("`{words}` cannot run: {error}"))),
        }
    }

    /// Runs it to its end, with this program's own streams.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn hand_over(mut self) -> io::Result<process::ExitStatus> {
        eprintln!("$ {}{}", self.variables, self.words);
        self.inner.status()
    }

    /// Runs it, with its standard output in a file.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn hand_over_to(mut self, file: fs::File) -> io::Result<process::ExitStatus> {
        eprintln!("$ {}{}", self.variables, self.words);
        self.inner.stdout(file).status()
    }

    /// What it writes to standard output, when it can be started and exits with 0.
    pub(crate) fn read(mut self) -> Option<String> {
        let output = self.inner.stderr(Stdio::null()).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it to its end, and keeps what it writes to either stream.
    pub(crate) fn output(mut self) -> io::Result<(process::ExitStatus, String)> {
        let (mut reader, writer) = io::pipe()?;
        self.inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.inner.spawn()?;
        // As in `stream`.
        drop(self);
        let mut output = Vec::new();
        reader.read_to_end(&mut output)?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok((child.wait()?, output))
    }

    fn stream(
        mut self,
        tally: &mut Tally,
        mut read: impl FnMut(&str) -> bool,
    ) -> io::Result<process::ExitStatus> {
        // One pipe for both streams keeps their lines in order.
        let (reader, writer) = io::pipe()?;
        let out: &mut dyn Write = if self.aside {
            &mut io::stderr().lock()
        } else {
            &mut io::stdout().lock()
        };
        writeln!(out, "$ {}{}", self.variables, self.words)?;
        self.inner.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.inner.spawn()?;
        // The command holds the pipe's writing ends; the reader would wait for them for ever.
        drop(self);
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            if read(text.trim_end()) {
                out.write_all(&line)?;
            }
            tally.read_line(&text);
            line.clear();
        }
        child.wait()
    }
}

/// Runs all of them, also after a failure.
///
/// # Errors
///
/// The first one's that failed.
pub(crate) fn run_all(
    commands: impl IntoIterator<Item = Command>,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let mut first = Ok(());
    for command in commands {
        let result = command.run(tally);
        first = first.and(result);
    }
    first
}

/// Runs all of them, also after a failure, two at a time: for programs that keep one processor busy. What one writes is
/// shown when it ends.
///
/// # Errors
///
/// The first one's that failed.
pub(crate) fn run_two_at_a_time(
    commands: impl IntoIterator<Item = Command>,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let waiting: Mutex<VecDeque<Command>> = Mutex::new(commands.into_iter().collect());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    let (ended, ends) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..2 {
            let ended = ended.clone();
            scope.spawn(move || {
                while let Some(command) = next() {
                    let (variables, words) = (command.variables.clone(), command.words.clone());
                    let result = command.output();
                    if ended.send((variables, words, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(ended);
        let mut first = Ok(());
        for (variables, words, result) in ends {
            println!("$ {variables}{words}");
            let result = match result {
                Ok((status, output)) => {
                    print!("{output}");
                    output.lines().for_each(|line| tally.read_line(line));
                    if status.success() {
                        Ok(())
                    } else {
                        Err(Stop::Failed(format!("`{words}`: {status}")))
                    }
                }
                Err(error) => Err(Stop::Failed(format!("`{words}` cannot run: {error}"))),
            };
            first = first.and(result);
        }
        first
    })
}

/// As it would be typed.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains([' ', '(', '*']) {
        format!("'{word}'")
    } else {
        word.into_owned()
    }
}
