//! A child process whose output is kept, and which ends with its test.

use std::fmt;
use std::io::Read;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LIMIT;

/// A running child. It is killed when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// How a child ended, and all that it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    name: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// What a child has written so far.
#[derive(Default)]
struct Output {
    written: Mutex<Written>,
    more: Condvar,
}

#[derive(Default)]
struct Written {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How many of the two are at their end. Both are when the child is dead.
    ended: u8,
}

impl Process {
    /// Starts a command. Its standard input is empty, unless the command says otherwise before.
    pub(crate) fn start(command: &mut Command) -> Self {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let name = format!(
            "{} {}",
            command.get_program().to_string_lossy(),
            arguments.join(" ")
        );
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = Arc::new(Output::default());
        let stdout: ChildStdout = child.stdout.take().unwrap();
        collect(stdout, Arc::clone(&output), |written| &mut written.stdout);
        let stderr = child.stderr.take().unwrap();
        collect(stderr, Arc::clone(&output), |written| &mut written.stderr);
        Self {
            name,
            child,
            output,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the child has written something to standard error, and gives the line that has it.
    pub(crate) fn said(&self, text: &str) -> String {
        self.wait_for(&format!("line with {text:?}"), |stderr| {
            // A line is looked at when it is whole.
            let (lines, _) = stderr.rsplit_once('\n')?;
            let line = lines.lines().find(|line| line.contains(text))?;
            Some(line.to_owned())
        })
    }

    /// Waits until `look` finds something in what the child has written to standard error.
    pub(crate) fn wait_for<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        self.wait_until(what, |written| {
            look(&String::from_utf8_lossy(&written.stderr))
        })
    }

    /// Waits until the child has written this many bytes to standard output.
    pub(crate) fn has_written(&self, bytes: usize) {
        self.wait_until(&format!("{bytes} bytes"), |written| {
            (written.stdout.len() >= bytes).then_some(())
        });
    }

    /// Everything on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        Text::of(&self.output.written.lock().unwrap()).stderr
    }

    /// Bytes on standard output so far.
    pub(crate) fn stdout_bytes(&self) -> usize {
        self.output.written.lock().unwrap().stdout.len()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(self) -> Finished {
        self.signal(Signal::KILL);
        self.finish()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{self}: {error}"));
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.finish()
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Finished {
        self.wait()
    }

    /// Waits for the end, and takes what was written.
    pub(crate) fn wait(&mut self) -> Finished {
        let give_up = Instant::now() + LIMIT;
        let mut written = self.output.written.lock().unwrap();
        while written.ended < 2 {
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{self} did not end within {LIMIT:?}\n{}",
                Text::of(&written)
            );
            written = self.output.more.wait_timeout(written, left).unwrap().0;
        }
        let stdout = std::mem::take(&mut written.stdout);
        let stderr = String::from_utf8_lossy(&written.stderr).into_owned();
        drop(written);
        let status = self.child.wait().unwrap();
        Finished {
            name: std::mem::take(&mut self.name),
            status,
            stdout,
            stderr,
        }
    }

    fn wait_until<T>(&self, what: &str, look: impl Fn(&Written) -> Option<T>) -> T {
        let give_up = Instant::now() + LIMIT;
        let mut written = self.output.written.lock().unwrap();
        loop {
            if let Some(found) = look(&written) {
                return found;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(
                written.ended < 2 && !left.is_zero(),
                "{self} wrote no {what}\n{}",
                Text::of(&written)
            );
            written = self.output.more.wait_timeout(written, left).unwrap().0;
        }
    }

    /// Memory of its own that it occupies, in KiB: what is shared with others is not counted.
    pub(crate) fn private_kib(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// Memory that it occupies, in KiB, with what it has mapped of its guests'.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many file descriptors it has.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The name, in parentheses, may have spaces; user and system time are fields 14 and 15 (proc_pid_stat(5)).
        let (_, fields) = text.rsplit_once(')').unwrap();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(1000 * ticks / rustix::param::clock_ticks_per_second())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.name, self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, most of the time.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() && !self.name.is_empty() {
            let written = self.output.written.lock();
            let written = written.unwrap_or_else(|poisoned| poisoned.into_inner());
            eprintln!("{self} was running\n{}", Text::of(&written));
        }
    }
}

impl Finished {
    /// Fails the test unless the child ended well.
    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Fails the test unless the child ended with an error, of which standard error speaks in these words.
    #[track_caller]
    pub(crate) fn expect_error(self, texts: &[&str]) -> Self {
        assert!(!self.status.success(), "{self}");
        // By itself: neither a panic nor a signal.
        assert!(matches!(self.status.code(), Some(1 | 2)), "{self}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} from {self}");
        }
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Standard output as JSON: one value, and nothing else.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text {
            stdout: shown(&self.stdout),
            stderr: self.stderr.clone(),
        };
        write!(f, "`{}` ended: {}\n{text}", self.name, self.status)
    }
}

/// What a child wrote, for a person.
struct Text {
    stdout: String,
    stderr: String,
}

impl Text {
    fn of(written: &Written) -> Self {
        Self {
            stdout: shown(&written.stdout),
            stderr: String::from_utf8_lossy(&written.stderr).into_owned(),
        }
    }
}

/// Text as it is; a file by its length alone.
fn shown(stdout: &[u8]) -> String {
    match std::str::from_utf8(stdout) {
        Ok(text) if text.len() < 10_000 => text.to_owned(),
        _ => format!("({} bytes)", stdout.len()),
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--- standard output\n{}\n--- standard error\n{}\n---",
            self.stdout, self.stderr
        )
    }
}

fn collect(
    mut from: impl Read + Send + 'static,
    output: Arc<Output>,
    into: fn(&mut Written) -> &mut Vec<u8>,
) {
    std::thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        // An error is an end, too.
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            // Whoever waits for output that does not come fails while it holds the lock.
            let Ok(mut written) = output.written.lock() else {
                return;
            };
            into(&mut written).extend_from_slice(&buffer[..bytes]);
            output.more.notify_all();
        }
        if let Ok(mut written) = output.written.lock() {
            written.ended += 1;
            output.more.notify_all();
        }
    });
}
