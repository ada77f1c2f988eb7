//! `shmbus guest`: uses the devices of a bus.

mod bench;
mod clock;
mod clock_exchanges;
mod clock_twin;
mod intc;
mod net;
mod place;
mod timer;

use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use shmbus::Guest;
use shmbus::virtio::DeviceId;

use self::place::Place;
use super::args::{GuestAction, GuestArgs};
use super::error::CliError;
use super::report::GuestEvent;
use super::stop::Stop;

pub(crate) use self::intc::LineSpec;
pub(crate) use self::net::{StackAddress, feature};

/// How long a host may take to be there, and to let the guest in.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &GuestArgs) -> Result<(), CliError> {
    match &args.action {
        GuestAction::Clock {
            count,
            counter_scale,
            counter_offset,
            max_error,
        } => {
            let mut guest = connect(args)?;
            let injected = clock::Injected {
                scale: *counter_scale,
                offset: *counter_offset,
            };
            let standard = match args.place.pci {
                Some(_) => clock::Standard::Exchanges,
                None => clock::Standard::OwnClock,
            };
            clock::run(&mut guest, standard, *count, injected, *max_error)?;
            guest.leave();
            Ok(())
        }
        GuestAction::Timer { count, ahead } => {
            let mut guest = connect(args)?;
            timer::run(&mut guest, *count, *ahead)?;
            guest.leave();
            Ok(())
        }
        GuestAction::Bench { rounds, json } => {
            let mut guest = connect(args)?;
            bench::run(&mut guest, *rounds, *json)?;
            guest.leave();
            Ok(())
        }
        GuestAction::Intc { action } => intc::run(args, action),
        GuestAction::Net(net) => net::run(args, net),
    }
}

fn name(args: &GuestArgs) -> String {
    match &args.name {
        Some(name) => name.clone(),
        None => format!("guest-{}", std::process::id()),
    }
}

/// Connects; a host that is just starting is waited for.
fn connect(args: &GuestArgs) -> Result<Guest, CliError> {
    let until = Instant::now() + PATIENCE;
    let path = match Place::find(&args.place)? {
        Place::Socket(path) => path,
        Place::Ivshmem(address) => return place::attach(address, &name(args), until),
    };
    let guest = Guest::reconnect(path, &name(args), |_, wait| {
        if Instant::now() + wait < until {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(guest)
}

/// Connects again after the host restarted; waits as long as it takes, or until it is time to stop (none).
fn reconnect(args: &GuestArgs, stop: &Stop) -> Result<Option<Guest>, CliError> {
    let mut failures = 0_u32;
    let Place::Socket(path) = Place::find(&args.place)? else {
        return Err(CliError::HostGoneForGood);
    };
    let guest = Guest::reconnect(path, &name(args), |error, wait| {
        if stop.is_due() {
            return ControlFlow::Break(());
        }
        // The first failures are ordinary while a host restarts.
        failures += 1;
        if failures.is_power_of_two() {
            tracing::warn!(%error, ?wait, failures, "waiting for the host");
        }
        ControlFlow::Continue(())
    });
    if guest.is_err() && stop.is_due() {
        return Ok(None);
    }
    let guest = guest?;
    tracing::info!("on the bus again");
    Ok(Some(guest))
}

fn find(guest: &mut Guest, kind: DeviceId) -> Result<u32, CliError> {
    guest.find(kind).ok_or(CliError::NoDevice {
        kind: kind.name().unwrap_or("such"),
    })
}

/// Tells the parent process, if there is one that listens.
fn report(args: &GuestArgs, event: &GuestEvent) -> Result<(), CliError> {
    if !args.report {
        return Ok(());
    }
    let mut line = serde_json::to_string(event).map_err(|error| CliError::Output(error.into()))?;
    line.push('\n');
    std::io::stderr()
        .write_all(line.as_bytes())
        .map_err(CliError::Output)
}
