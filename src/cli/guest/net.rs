//! `guest net`: TCP/IP through the bus's network.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use shmbus::devices::clock::{ClockKind, monotonic_ns};
use shmbus::devices::net::app::Application;
use shmbus::devices::net::app::fetch::{Fetch, FetchConfig};
use shmbus::devices::net::app::ping::{Ping, PingConfig};
use shmbus::devices::net::app::serve::{Server, ServerConfig};
use shmbus::guest::{BusPort, Ended, Network};
use shmbus::signal::Priority;
use shmbus::signal::os::Token;

use super::{connect, reconnect, report};
use crate::cli::args::{GuestArgs, NetAction, Sink};
use crate::cli::error::CliError;
use crate::cli::hex;
use crate::cli::report::{GuestEvent, GuestReport};
use crate::cli::stop::Stop;
use crate::cli::url::Url;

/// How often progress is reported.
const REPORT_PERIOD: Duration = Duration::from_millis(50);

/// How often the clock is compared with the host's: a timer of the bus says when.
const WATCH_PERIOD: Duration = Duration::from_millis(10);

pub(super) fn run(
    args: &GuestArgs,
    address: Option<Ipv4Addr>,
    action: &NetAction,
) -> Result<(), CliError> {
    let network = Network::new(connect(args)?, address)?;
    let session = Session::new(args, network)?;
    match action {
        NetAction::Ping { address, count } => session.ping(*address, *count),
        NetAction::Fetch {
            url,
            seconds,
            sink,
            sha256,
        } => {
            let sha256 = sha256.as_deref().map(hex::decode_sha256).transpose()?;
            session.fetch(url, seconds.map(Duration::from_secs), *sink, sha256)
        }
        NetAction::Serve { directory, port } => session.serve(directory, *port),
    }
}

/// A network and what is watched while it runs.
struct Session<'a> {
    args: &'a GuestArgs,
    network: Network,
    stop: Stop,
    stop_token: Token,
    /// When progress was last reported: files may be smaller than what comes in a period.
    reported: Instant,
    watch: Watch,
}

/// The clock's errors, met on the way.
#[derive(Default)]
struct Watch {
    next: Duration,
    errors_ns: Vec<u64>,
    bound_ns: u64,
}

/// So many errors are kept, which is enough for a median: later ones take the place of earlier ones.
const ERRORS_KEPT: usize = 4096;

impl Watch {
    /// Compares the bus's clock with the host's own, which on this transport can be read here too.
    fn look(&mut self, network: &mut Network, now: Duration) -> Result<(), CliError> {
        if now < self.next {
            return Ok(());
        }
        self.next = now + WATCH_PERIOD;
        network.wake_at(self.next)?;
        let (error, reading) = network.with_clock(|clock| {
            super::clock::error_of(|| clock.now(ClockKind::Monotonic), monotonic_ns)
        })?;
        if self.errors_ns.len() == ERRORS_KEPT {
            self.errors_ns.swap_remove(0);
        }
        self.errors_ns.push(error.unsigned_abs());
        self.bound_ns = self.bound_ns.max(reading.error_ns);
        Ok(())
    }
}

impl<'a> Session<'a> {
    fn new(args: &'a GuestArgs, mut network: Network) -> Result<Self, CliError> {
        let mut stop = Stop::on_signals()?;
        if args.report {
            stop = stop.or_when_stdin_closes()?;
        }
        let stop_token = network.guest().add_fd(&stop, Priority::LOWEST)?;
        let address = network.address().to_string();
        report(args, &GuestEvent::Ready { address })?;
        Ok(Self {
            args,
            network,
            stop,
            stop_token,
            reported: Instant::now(),
            watch: Watch::default(),
        })
    }

    /// Runs an application until `watch` has enough (true) or this process is to stop (false). A host that restarts
    /// is waited for.
    fn run<A: Application<BusPort>>(
        &mut self,
        application: &mut A,
        mut watch: impl FnMut(&mut Network, &mut A) -> Result<ControlFlow<()>, CliError>,
    ) -> Result<bool, CliError> {
        loop {
            let mut failed = None;
            // Only a parent process wants to know how good the clock is.
            let mut clock_watch = self.args.report.then_some(&mut self.watch);
            let ended = self.network.run(application, |network, application, now| {
                let looked = match &mut clock_watch {
                    Some(clock_watch) => clock_watch.look(network, now),
                    None => Ok(()),
                };
                let outcome = looked.and_then(|()| watch(network, application));
                outcome.unwrap_or_else(|error| {
                    failed = Some(error);
                    ControlFlow::Break(())
                })
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            match ended {
                Ended::Done => return Ok(true),
                Ended::Ready(token) if token == self.stop_token => return Ok(false),
                Ended::Ready(_) => {}
                Ended::HostGone => {
                    let Some(guest) = reconnect(self.args, &self.stop)? else {
                        return Ok(false);
                    };
                    self.network.move_to(guest)?;
                    self.stop_token = self.network.guest().add_fd(&self.stop, Priority::LOWEST)?;
                    // The new session's timers are all off.
                    self.watch.next = Duration::ZERO;
                }
            }
        }
    }

    fn ping(mut self, target: Ipv4Addr, count: u16) -> Result<(), CliError> {
        let config = PingConfig {
            count: count.into(),
            interval: Duration::from_millis(200),
            ..PingConfig::new(target)
        };
        let mut ping = Ping::new(self.network.stack(), config);
        let mut answers = 0;
        let mut out = io::stdout();
        self.run(&mut ping, |_, ping| {
            while let Some(echo) = ping.next_echo() {
                match echo.round_trip {
                    Some(time) => {
                        answers += 1;
                        writeln!(
                            out,
                            "answer from {target}: seq={} time={:.1} us",
                            echo.sequence,
                            time.as_nanos() as f64 / 1000.0
                        )
                    }
                    None => writeln!(out, "no answer from {target}: seq={}", echo.sequence),
                }
                .map_err(CliError::Output)?;
            }
            Ok(done_if(ping.is_done()))
        })?;
        writeln!(out, "{count} asked, {answers} answered").map_err(CliError::Output)?;
        self.finish(GuestReport::default())?;
        if answers == 0 {
            return Err(CliError::NoAnswer {
                address: target.to_string(),
            });
        }
        Ok(())
    }

    fn serve(mut self, directory: &Path, port: u16) -> Result<(), CliError> {
        let config = ServerConfig {
            port,
            ..ServerConfig::default()
        };
        let mut server = Server::new(self.network.stack(), directory, config)?;
        tracing::info!(
            "serving {} at http://{}:{port}/",
            directory.display(),
            self.network.address()
        );
        self.run(&mut server, |_, _| Ok(ControlFlow::Continue(())))?;
        let served = server.counters();
        tracing::info!(files = served.files, bytes = served.bytes, "served");
        self.finish(GuestReport::default())
    }

    fn fetch(
        mut self,
        url: &Url,
        again_for: Option<Duration>,
        sink: Sink,
        sha256: Option<[u8; 32]>,
    ) -> Result<(), CliError> {
        let started = Instant::now();
        let mut total = GuestReport {
            sha256_ok: true,
            ..GuestReport::default()
        };
        loop {
            let writer: Box<dyn Write> = match sink {
                Sink::Stdout => Box::new(io::stdout().lock()),
                Sink::Discard => Box::new(io::sink()),
            };
            let Some(fetched) = self.fetch_once(url, writer, total.bytes)? else {
                break;
            };
            total.bytes += fetched.bytes;
            total.files += 1;
            total.sha256_ok &= sha256.is_none_or(|expected| expected == fetched.sha256);
            if again_for.is_none_or(|time| started.elapsed() >= time) {
                break;
            }
        }
        total.seconds = started.elapsed().as_secs_f64();
        let sha256_ok = total.sha256_ok;
        self.finish(total)?;
        if sha256_ok {
            Ok(())
        } else {
            Err(CliError::ChecksumDiffers)
        }
    }

    /// One file, or none if this process is to stop.
    fn fetch_once(
        &mut self,
        url: &Url,
        writer: Box<dyn Write>,
        bytes_before: u64,
    ) -> Result<Option<shmbus::devices::net::app::fetch::Fetched>, CliError> {
        let now = Duration::from_nanos(self.network.now()?.time_ns);
        let config = FetchConfig::new(url.host, url.port, url.path.clone());
        let mut fetch = Fetch::new(self.network.stack(), config, writer, now);
        let mut outcome = None;
        let args = self.args;
        let mut reported = self.reported;
        self.run(&mut fetch, |network, fetch| {
            if args.report && reported.elapsed() >= REPORT_PERIOD {
                reported = Instant::now();
                let bytes = bytes_before + fetch.progress().0;
                report(args, &GuestEvent::Progress { bytes })?;
            }
            outcome = outcome.take().or_else(|| fetch.outcome());
            // A clean end: the server must see the connection closed.
            let failed = matches!(outcome, Some(Err(_)));
            let closed = outcome.is_some() && fetch.has_closed(network.stack());
            Ok(done_if(failed || closed))
        })?;
        self.reported = reported;
        let mut writer = fetch.finish(self.network.stack());
        writer.flush().map_err(CliError::Output)?;
        Ok(outcome.transpose()?)
    }

    /// Leaves the bus and tells the parent what was done.
    fn finish(self, report_so_far: GuestReport) -> Result<(), CliError> {
        let counters = self.network.counters();
        let mut errors = self.watch.errors_ns;
        errors.sort_unstable();
        let done = GuestReport {
            clock_error_max_ns: errors.last().copied().unwrap_or(0),
            clock_error_median_ns: errors.get(errors.len() / 2).copied().unwrap_or(0),
            clock_bound_ns: self.watch.bound_ns,
            signals_sent: counters.signals.sent,
            signals_suppressed: counters.signals.suppressed,
            table_reads: counters.table_reads,
            timer_set: counters.timer.set,
            timer_discarded: counters.timer.discarded,
            ..report_so_far
        };
        self.network.leave();
        report(self.args, &GuestEvent::Done(done))
    }
}

fn done_if(done: bool) -> ControlFlow<()> {
    if done {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}
