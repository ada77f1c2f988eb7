//! The bus's network, as the command runs it.

use std::ops::ControlFlow;
use std::time::Duration;

use shmbus::devices::clock::{ClockKind, monotonic_ns};
use shmbus::devices::net::app::Application;
use shmbus::guest::{BusPort, Ended, Network};

use super::Carrier;
use crate::cli::args::{GuestArgs, NetArgs};
use crate::cli::error::CliError;
use crate::cli::guest::{clock, connect, reconnect};
use crate::cli::report::GuestReport;
use crate::cli::stop::Stop;

/// How often the clock is compared with the host's: a timer of the bus says when.
const WATCH_PERIOD: Duration = Duration::from_millis(10);

/// So many errors are kept, which is enough for a median: later ones take the place of earlier ones.
const ERRORS_KEPT: usize = 4096;

/// A network on the bus, and its clock's errors.
pub(super) struct OnBus<'a> {
    args: &'a GuestArgs,
    network: Network,
    watch: Watch,
}

/// The clock's errors, met on the way.
#[derive(Default)]
struct Watch {
    next: Duration,
    errors_ns: Vec<u64>,
    bound_ns: u64,
}

impl Watch {
    /// Compares the bus's clock with the host's own, which can be read here too.
    fn look(&mut self, network: &mut Network, now: Duration) -> Result<(), CliError> {
        if now < self.next {
            return Ok(());
        }
        self.next = now + WATCH_PERIOD;
        network.wake_at(self.next)?;
        let (error, reading) = network.with_clock(|clock| {
            clock::error_of(|| clock.now(ClockKind::Monotonic), monotonic_ns)
        })?;
        if self.errors_ns.len() == ERRORS_KEPT {
            self.errors_ns.swap_remove(0);
        }
        self.errors_ns.push(error.unsigned_abs());
        self.bound_ns = self.bound_ns.max(reading.error_ns);
        Ok(())
    }
}

impl<'a> OnBus<'a> {
    pub(super) fn connect(args: &'a GuestArgs, net: &NetArgs) -> Result<Self, CliError> {
        if net.card.is_given()
            || net
                .address
                .is_some_and(|address| address.prefix_len.is_some())
        {
            return Err(CliError::ForCards);
        }
        let address = net.address.map(|address| address.address);
        Ok(Self {
            args,
            network: Network::new(connect(args)?, address)?,
            watch: Watch::default(),
        })
    }
}

impl Carrier for OnBus<'_> {
    type Environment = shmbus::guest::OnBus;

    fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    fn run<A: Application<BusPort>>(
        &mut self,
        application: &mut A,
        mut watch: impl FnMut(&mut Network, &mut A) -> ControlFlow<()>,
    ) -> Result<Ended, CliError> {
        let mut failed = None;
        // Only a parent process wants to know how good the clock is, and only beside the host its own clock can be read.
        let is_watched = self.args.report && self.args.place.socket.is_some();
        let mut clock_watch = is_watched.then_some(&mut self.watch);
        let ended = self.network.run(application, |network, application, now| {
            let looked = match &mut clock_watch {
                Some(clock_watch) => clock_watch.look(network, now),
                None => Ok(()),
            };
            if let Err(error) = looked {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            watch(network, application)
        })?;
        failed.map_or(Ok(ended), Err)
    }

    fn recover(&mut self, stop: &Stop) -> Result<bool, CliError> {
        let Some(guest) = reconnect(self.args, stop)? else {
            return Ok(false);
        };
        self.network.move_to(guest)?;
        // The new session's timers are all off.
        self.watch.next = Duration::ZERO;
        Ok(true)
    }

    fn finish(self, report: &mut GuestReport) -> Result<(), CliError> {
        let counters = self.network.counters();
        let mut errors = self.watch.errors_ns;
        errors.sort_unstable();
        report.clock_error_max_ns = errors.last().copied().unwrap_or(0);
        report.clock_error_median_ns = errors.get(errors.len() / 2).copied().unwrap_or(0);
        report.clock_bound_ns = self.watch.bound_ns;
        report.signals_sent = counters.signals.sent;
        report.signals_suppressed = counters.signals.suppressed;
        report.table_reads = counters.table_reads;
        report.timer_set = counters.timer.set;
        report.timer_discarded = counters.timer.discarded;
        self.network.leave();
        Ok(())
    }
}
