//! `shmbus demo`: a host and some guests as processes of their own, a file between the guests, the figures.

mod process;
mod summary;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use shmbus::devices::net::app::fetch::hex;

use self::process::{Message, Process, Said};
use super::args::DemoArgs;
use super::error::CliError;
use super::report::{GuestEvent, GuestReport};

/// The host's number among the children; guests count from 1, the first one serves.
const HOST: u16 = 0;
const SERVER: u16 = 1;
/// How often one guest is replaced before the demo gives up.
const LIVES: u16 = 5;
/// How long the demo waits without any progress.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest packet between guests: without a TAP nothing on the way needs Ethernet's 1500. Larger ones still fall
/// out of the caches on their way.
const MTU: &str = "9000";

pub(super) fn run(args: &DemoArgs) -> Result<(), CliError> {
    let scratch = tempfile::Builder::new()
        .prefix("shmbus-")
        .tempdir()
        .map_err(CliError::Scratch)?;
    let file = match &args.file {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(CliError::OwnExecutable)?,
    };
    let (size, sha256) = checksum(&file)?;
    let directory = scratch.path().join("files");
    offer(&file, &directory)?;

    let mut demo = Demo::new(args, scratch.path().join("bus"), directory, size, &sha256);
    if !args.json {
        writeln!(
            io::stdout(),
            "{} ({size} bytes) to {} guest(s); the bus is at {}",
            file.display(),
            args.guests - 1,
            demo.socket.display()
        )
        .map_err(CliError::Output)?;
    }
    demo.start_host(args)?;
    demo.start_guest(SERVER, 0)?;
    demo.run_until_fetched()?;
    demo.finish_server()?;
    // The host publishes them anew when a guest has left.
    let counters = shmbus::inspect::counters(&demo.socket)?;
    demo.bar.finish_and_clear();

    let reports: Vec<GuestReport> = demo
        .guests
        .iter()
        .filter_map(|guest| guest.report.clone())
        .collect();
    let summary = summary::summarize(&reports, &counters, demo.replaced);
    let mut out = io::stdout();
    if args.json {
        serde_json::to_string(&summary)
            .map_err(io::Error::from)
            .and_then(|text| writeln!(out, "{text}"))
    } else {
        summary::print(&mut out, &summary)
    }
    .map_err(CliError::Output)?;
    if summary.sha256_ok {
        Ok(())
    } else {
        Err(CliError::ChecksumDiffers)
    }
}

/// Size and SHA-256 of the file.
fn checksum(path: &Path) -> Result<(u64, String), CliError> {
    let failed = |error| CliError::ReadFile {
        path: path.to_owned(),
        error,
    };
    let mut file = fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
    if size == 0 {
        return Err(CliError::EmptyFile {
            path: path.to_owned(),
        });
    }
    Ok((size, hex(&hasher.finalize())))
}

/// Puts the file, and nothing else, into a directory to be served.
fn offer(file: &Path, directory: &Path) -> Result<(), CliError> {
    fs::create_dir(directory).map_err(CliError::Scratch)?;
    let offered = directory.join("file");
    if fs::hard_link(file, &offered).is_err() {
        fs::copy(file, &offered).map_err(|error| CliError::ReadFile {
            path: file.to_owned(),
            error,
        })?;
    }
    Ok(())
}

/// One guest over all its lives.
#[derive(Default)]
struct Guest {
    process: Option<Process>,
    life: u16,
    /// Bytes fetched in this life.
    bytes: u64,
    report: Option<GuestReport>,
}

struct Demo {
    socket: PathBuf,
    directory: PathBuf,
    sha256: String,
    seconds: String,
    host: Option<Process>,
    /// Guest `n` is at `n - 1`.
    guests: Vec<Guest>,
    replaced: u16,
    /// Where the server is, once it is ready.
    server_address: Option<String>,
    to: Sender<Message>,
    from: Receiver<Message>,
    /// The children's last log lines, for an error's text.
    log: VecDeque<String>,
    bar: ProgressBar,
}

impl Demo {
    fn new(args: &DemoArgs, socket: PathBuf, directory: PathBuf, size: u64, sha256: &str) -> Self {
        let (to, from) = channel();
        Self {
            socket,
            directory,
            sha256: sha256.to_owned(),
            seconds: args.seconds.to_string(),
            host: None,
            guests: (0..args.guests).map(|_| Guest::default()).collect(),
            replaced: 0,
            server_address: None,
            to,
            from,
            log: VecDeque::new(),
            bar: progress_bar(args, size * u64::from(args.guests - 1)),
        }
    }

    fn start_host(&mut self, args: &DemoArgs) -> Result<(), CliError> {
        let mut arguments = vec!["host", "--until-stdin-closes"];
        let net = format!("net,ring={}", args.ring);
        for device in [&net, "clock", "timer"] {
            arguments.extend(["--device", device]);
        }
        match &args.tap {
            Some(tap) => arguments.extend(["--tap", tap]),
            None => arguments.extend(["--mtu", MTU]),
        }
        self.host = Some(Process::start(
            "the host",
            &arguments,
            &self.socket,
            HOST,
            0,
            self.to.clone(),
        )?);
        Ok(())
    }

    fn start_guest(&mut self, number: u16, life: u16) -> Result<(), CliError> {
        let name = format!("demo-guest-{number}");
        let directory = self.directory.to_string_lossy().into_owned();
        let mut arguments = vec!["guest", "--report", "--name", &name, "net"];
        let url;
        if number == SERVER {
            // A server that is replaced keeps its address, so that the others find it again.
            if let Some(address) = &self.server_address {
                arguments.extend(["--address", address]);
            }
            arguments.extend(["serve", &directory]);
        } else {
            url = format!(
                "{}/file",
                self.server_address.as_deref().unwrap_or_default()
            );
            arguments.extend(["fetch", &url, "--sink", "discard", "--sha256", &self.sha256]);
            arguments.extend(["--seconds", &self.seconds]);
        }
        let process = Process::start(
            &format!("guest {number}"),
            &arguments,
            &self.socket,
            number,
            life,
            self.to.clone(),
        )?;
        tracing::debug!(number, life, pid = process.id(), "guest started");
        let guest = &mut self.guests[usize::from(number) - 1];
        *guest = Guest {
            process: Some(process),
            life,
            ..Guest::default()
        };
        Ok(())
    }

    /// Listens to the children until every fetching guest has reported.
    fn run_until_fetched(&mut self) -> Result<(), CliError> {
        let mut progress = Instant::now();
        while self.guests[1..].iter().any(|guest| guest.report.is_none()) {
            let message = match self
                .from
                .recv_timeout(PATIENCE.saturating_sub(progress.elapsed()))
            {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(CliError::Stuck {
                        seconds: PATIENCE.as_secs(),
                        log: self.last_words(),
                    });
                }
            };
            if matches!(message.what, Said::Event(_)) {
                progress = Instant::now();
            }
            self.hear(message)?;
        }
        Ok(())
    }

    fn hear(&mut self, message: Message) -> Result<(), CliError> {
        let Message { from, life, what } = message;
        if let Said::Log(line) = what {
            self.remember(from, line);
            return Ok(());
        }
        if from == HOST {
            return self.host_ended();
        }
        let guest = &mut self.guests[usize::from(from) - 1];
        if guest.life != life {
            return Ok(());
        }
        match what {
            Said::Event(GuestEvent::Ready { address }) if from == SERVER => {
                let first = self.server_address.replace(address).is_none();
                if first {
                    for number in SERVER + 1..=self.guests.len() as u16 {
                        self.start_guest(number, 0)?;
                    }
                }
            }
            Said::Event(GuestEvent::Progress { bytes }) => {
                guest.bytes = bytes;
                self.bar
                    .set_position(self.guests.iter().map(|guest| guest.bytes).sum());
            }
            Said::Event(GuestEvent::Done(report)) => guest.report = Some(report),
            Said::Ended if guest.report.is_none() => self.replace(from)?,
            Said::Event(GuestEvent::Ready { .. }) | Said::Ended | Said::Log(_) => {}
        }
        Ok(())
    }

    /// A guest died: the bus goes on, and so does the demo, with another one in its place.
    fn replace(&mut self, number: u16) -> Result<(), CliError> {
        let guest = &mut self.guests[usize::from(number) - 1];
        let life = guest.life + 1;
        let (what, how) = match &mut guest.process {
            Some(process) => (process.name().to_owned(), process.wait()?.to_string()),
            None => (format!("guest {number}"), "not started".to_owned()),
        };
        if life >= LIVES {
            return Err(CliError::ChildFailed {
                what,
                how,
                log: self.last_words(),
            });
        }
        self.bar
            .suspend(|| eprintln!("{what} died ({how}); starting another in its place"));
        self.replaced += 1;
        self.start_guest(number, life)
    }

    fn host_ended(&mut self) -> Result<(), CliError> {
        let how = match &mut self.host {
            Some(host) => host.wait()?.to_string(),
            None => "not started".to_owned(),
        };
        Err(CliError::ChildFailed {
            what: "the host".to_owned(),
            how,
            log: self.last_words(),
        })
    }

    /// Ends the serving guest and waits for its report.
    fn finish_server(&mut self) -> Result<(), CliError> {
        let server = &mut self.guests[usize::from(SERVER) - 1];
        if let Some(process) = &mut server.process {
            process.finish();
        }
        while self.guests[usize::from(SERVER) - 1].report.is_none() {
            match self.from.recv_timeout(PATIENCE) {
                Ok(Message {
                    from: SERVER,
                    what: Said::Event(GuestEvent::Done(report)),
                    ..
                }) => {
                    self.guests[usize::from(SERVER) - 1].report = Some(report);
                }
                Ok(Message {
                    from: SERVER,
                    what: Said::Ended,
                    ..
                })
                | Err(_) => {
                    return Err(CliError::ChildFailed {
                        what: "the serving guest".to_owned(),
                        how: "at the end".to_owned(),
                        log: self.last_words(),
                    });
                }
                Ok(Message {
                    from,
                    what: Said::Log(line),
                    ..
                }) => self.remember(from, line),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn remember(&mut self, from: u16, line: String) {
        const LINES: usize = 30;
        tracing::debug!(from, line, "child");
        if self.log.len() == LINES {
            self.log.pop_front();
        }
        let who = if from == HOST {
            "host".to_owned()
        } else {
            format!("guest {from}")
        };
        self.log.push_back(format!("  {who}: {line}"));
    }

    fn last_words(&self) -> String {
        self.log
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// A live bar on a terminal; elsewhere nothing.
fn progress_bar(args: &DemoArgs, size: u64) -> ProgressBar {
    if args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    }
    let style = if args.seconds > 0 {
        "{spinner} {bytes} {binary_bytes_per_sec} {elapsed}"
    } else {
        "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}"
    };
    let bar = ProgressBar::new(size);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
