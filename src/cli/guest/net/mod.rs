//! `guest net`: TCP/IP through the bus's network, or through a network card.

mod bus;
mod card;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use shmbus::devices::net::app::Application;
use shmbus::devices::net::app::fetch::{Fetch, FetchConfig, Fetched};
use shmbus::devices::net::app::ping::{Ping, PingConfig};
use shmbus::devices::net::app::serve::{Server, ServerConfig};
use shmbus::guest::{Ended, Environment, Network};
use shmbus::signal::Priority;
use shmbus::signal::os::Token;

use super::report;
use crate::cli::args::{GuestArgs, NetAction, NetArgs, Sink};
use crate::cli::error::CliError;
use crate::cli::hex;
use crate::cli::report::{GuestEvent, GuestReport};
use crate::cli::stop::Stop;
use crate::cli::url::Url;

pub(crate) use self::card::{StackAddress, feature};

/// How often progress is reported.
const REPORT_PERIOD: Duration = Duration::from_millis(50);

pub(super) fn run(args: &GuestArgs, net: &NetArgs) -> Result<(), CliError> {
    match card::find(args)? {
        Some(address) => Session::new(args, card::OnCard::connect(address, net)?)?.act(&net.action),
        None => Session::new(args, bus::OnBus::connect(args, net)?)?.act(&net.action),
    }
}

/// What frames go over, as the command needs to know it.
trait Carrier: Sized {
    /// What the stack lives in.
    type Environment: Environment;

    /// The network.
    fn network(&mut self) -> &mut Network<Self::Environment>;

    /// Runs an application until `watch` has enough, or something else ends it.
    fn run<A: Application<<Self::Environment as Environment>::Port>>(
        &mut self,
        application: &mut A,
        watch: impl FnMut(&mut Network<Self::Environment>, &mut A) -> ControlFlow<()>,
    ) -> Result<Ended, CliError>;

    /// Goes on after the host is gone; false if this process is to stop.
    fn recover(&mut self, stop: &Stop) -> Result<bool, CliError>;

    /// Ends it; adds what it counted to the report.
    fn finish(self, report: &mut GuestReport) -> Result<(), CliError>;
}

/// A network and what is watched while it runs.
struct Session<'a, C> {
    args: &'a GuestArgs,
    carrier: C,
    stop: Stop,
    stop_token: Token,
    /// When progress was last reported: files may be smaller than what comes in a period.
    reported: Instant,
}

impl<'a, C: Carrier> Session<'a, C> {
    fn new(args: &'a GuestArgs, mut carrier: C) -> Result<Self, CliError> {
        let mut stop = Stop::on_signals()?;
        if args.report {
            stop = stop.or_when_stdin_closes()?;
        }
        let stop_token = carrier.network().add_fd(&stop, Priority::LOWEST)?;
        let address = carrier.network().address().to_string();
        report(args, &GuestEvent::Ready { address })?;
        Ok(Self {
            args,
            carrier,
            stop,
            stop_token,
            reported: Instant::now(),
        })
    }

    fn act(self, action: &NetAction) -> Result<(), CliError> {
        match action {
            NetAction::Ping { address, count } => self.ping(*address, *count),
            NetAction::Fetch {
                url,
                seconds,
                sink,
                sha256,
            } => {
                let sha256 = sha256.as_deref().map(hex::decode_sha256).transpose()?;
                self.fetch(url, seconds.map(Duration::from_secs), *sink, sha256)
            }
            NetAction::Serve { directory, port } => self.serve(directory, *port),
        }
    }

    /// Runs an application until `watch` has enough (true) or this process is to stop (false). A host that restarts
    /// is waited for.
    fn run<A: Application<<C::Environment as Environment>::Port>>(
        &mut self,
        application: &mut A,
        mut watch: impl FnMut(&mut Network<C::Environment>, &mut A) -> Result<ControlFlow<()>, CliError>,
    ) -> Result<bool, CliError> {
        loop {
            let mut failed = None;
            let ended = self.carrier.run(application, |network, application| {
                watch(network, application).unwrap_or_else(|error| {
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
                    if !self.carrier.recover(&self.stop)? {
                        return Ok(false);
                    }
                    let network = self.carrier.network();
                    self.stop_token = network.add_fd(&self.stop, Priority::LOWEST)?;
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
        let mut ping = Ping::new(self.carrier.network().stack(), config);
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
        let mut server = Server::new(self.carrier.network().stack(), directory, config)?;
        tracing::info!(
            "serving {} at http://{}:{port}/",
            directory.display(),
            self.carrier.network().address()
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
    ) -> Result<Option<Fetched>, CliError> {
        let now = self.carrier.network().now()?;
        let config = FetchConfig::new(url.host, url.port, url.path.clone());
        let mut fetch = Fetch::new(self.carrier.network().stack(), config, writer, now);
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
        let mut writer = fetch.finish(self.carrier.network().stack());
        writer.flush().map_err(CliError::Output)?;
        Ok(outcome.transpose()?)
    }

    /// Ends the network and tells the parent what was done.
    fn finish(self, mut done: GuestReport) -> Result<(), CliError> {
        self.carrier.finish(&mut done)?;
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
