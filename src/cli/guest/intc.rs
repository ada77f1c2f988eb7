//! `guest intc`: interrupts that other guests or the host raise, and raising them.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::{Duration, Instant};

use shmbus::Guest;
use shmbus::devices::clock::monotonic_ns;
use shmbus::devices::intc::device::role;
use shmbus::devices::intc::{Delivery, IntcDriver, IntcError, LinePriority};
use shmbus::devices::lane::OutletError;
use shmbus::guest::{GuestError, GuestEvent, HostGone, intc_driver, move_intc_driver};
use shmbus::shm::Mapped;
use shmbus::signal::Priority;
use shmbus::signal::os::Token;

use shmbus::virtio::DeviceId;

use super::{PATIENCE, connect, find, reconnect};
use crate::cli::args::{GuestArgs, IntcAction};
use crate::cli::error::CliError;
use crate::cli::stop::Stop;

/// A line, and how urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineSpec {
    line: u32,
    priority: LinePriority,
}

impl FromStr for LineSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (line, priority) = match text.split_once(':') {
            Some((line, priority)) => (line, priority.parse().ok().and_then(LinePriority::new)),
            None => (text, Some(LinePriority::LOWEST)),
        };
        match (line.parse(), priority) {
            (Ok(line), Some(priority)) => Ok(Self { line, priority }),
            _ => Err(format!(
                "expected LINE or LINE:PRIORITY, a priority from 0 (most urgent) to {}, found {text:?}",
                LinePriority::LOWEST
            )),
        }
    }
}

pub(super) fn run(args: &GuestArgs, action: &IntcAction) -> Result<(), CliError> {
    let mut guest = connect(args)?;
    let device = find(&mut guest, DeviceId::INTC)?;
    let driver = intc_driver(&mut guest, device)?;
    let mut wired = Wired {
        guest,
        device,
        driver,
        stop: None,
        due: false,
        host_gone: None,
    };
    match action {
        IntcAction::Watch { lines, count } => wired.watch(args, lines, *count)?,
        IntcAction::Raise { line, edges } => wired.raise(*line, *edges)?,
        IntcAction::Hold { line, seconds } => wired.hold(*line, *seconds)?,
    }
    wired.guest.leave();
    Ok(())
}

/// A guest with its interrupt controller.
struct Wired {
    guest: Guest,
    device: u32,
    driver: IntcDriver<Mapped>,
    /// What becomes ready when it is time to stop, and whether it is.
    stop: Option<Token>,
    due: bool,
    host_gone: Option<HostGone>,
}

impl Wired {
    fn check(&self, line: u32) -> Result<u32, CliError> {
        let lines = self.driver.lines();
        if line < lines {
            Ok(line)
        } else {
            Err(CliError::NoLine { line, lines })
        }
    }

    fn raise(&mut self, line: u32, edges: u32) -> Result<(), CliError> {
        let line = self.check(line)?;
        for _ in 0..edges {
            let notify = self.insist(|driver| Ok(driver.raise(line)?))?;
            self.guest.signal(self.device, role::REQUESTS, notify);
        }
        self.get_through()
    }

    /// Tries again when the host has made room, while a ring is full of which every element counts.
    fn insist<T>(
        &mut self,
        mut call: impl FnMut(&mut IntcDriver<Mapped>) -> Result<T, IntcError>,
    ) -> Result<T, CliError> {
        let overdue = Instant::now() + PATIENCE;
        loop {
            match call(&mut self.driver) {
                Err(IntcError::Outlet(OutletError::Full)) if Instant::now() < overdue => {
                    self.show_host()?;
                    self.await_room()?;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Waits until the host has room for all that was raised: what is kept back is lost with this guest.
    fn get_through(&mut self) -> Result<(), CliError> {
        let overdue = Instant::now() + PATIENCE;
        loop {
            self.show_host()?;
            if self.driver.waiting() == 0 {
                return Ok(());
            }
            if Instant::now() >= overdue {
                return Err(IntcError::Outlet(OutletError::Full).into());
            }
            self.await_room()?;
        }
    }

    /// Shows the host what it has not been shown. Over tables there is nothing.
    fn show_host(&mut self) -> Result<(), CliError> {
        let notify = self.driver.poll().map_err(IntcError::from)?;
        self.guest.signal(self.device, role::CONTROLS, notify);
        Ok(())
    }

    fn await_room(&mut self) -> Result<(), CliError> {
        self.guest.wait(Some(PATIENCE))?;
        self.heed();
        match self.host_gone.take() {
            Some(reason) => Err(GuestError::HostGone(reason).into()),
            None => Ok(()),
        }
    }

    /// Notes what has happened.
    fn heed(&mut self) {
        while let Some(event) = self.guest.next_event() {
            match event {
                GuestEvent::Ready(token) => self.due |= self.stop == Some(token),
                GuestEvent::HostGone(reason) => self.host_gone = Some(reason),
                GuestEvent::Signalled { .. } | GuestEvent::DeviceChanged => {}
            }
        }
    }

    fn hold(&mut self, line: u32, time: Duration) -> Result<(), CliError> {
        let line = self.check(line)?;
        // Whoever interrupts this takes the level down as well: it falls with its guest.
        self.drive(line, true)?;
        std::thread::sleep(time);
        self.drive(line, false)
    }

    fn drive(&mut self, line: u32, asserted: bool) -> Result<(), CliError> {
        let notify = self.insist(|driver| Ok(driver.set_level(line, asserted)?))?;
        self.guest.signal(self.device, role::REQUESTS, notify);
        self.get_through()
    }

    fn watch(
        &mut self,
        args: &GuestArgs,
        lines: &[LineSpec],
        count: Option<u64>,
    ) -> Result<(), CliError> {
        for LineSpec { line, priority } in lines {
            let line = self.check(*line)?;
            self.insist(|driver| Ok(driver.set_priority(line, *priority)?))?;
            self.insist(|driver| Ok(driver.unmask(line)?))?;
        }
        if lines.is_empty() {
            for line in 0..self.driver.lines() {
                self.insist(|driver| Ok(driver.unmask(line)?))?;
            }
        }
        let stop = Stop::on_signals()?;
        self.stop = Some(self.guest.add_fd(&stop, Priority::LOWEST)?);
        tracing::info!("taking interrupts");
        let mut up = Vec::new();
        // Once more when it is time to stop: what was raised before that is shown.
        while self.serve_or_miss(&mut up, count)?.is_continue() && !self.due {
            if self.host_gone.is_none() {
                self.guest.wait(None)?;
                self.heed();
            }
            if self.host_gone.is_some() && !self.due {
                let Some(guest) = reconnect(args, &stop)? else {
                    break;
                };
                self.move_to(guest)?;
                self.stop = Some(self.guest.add_fd(&stop, Priority::LOWEST)?);
            }
        }
        self.sum_up()
    }

    /// Serves, unless the host goes meanwhile: then that is noted.
    fn serve_or_miss(
        &mut self,
        up: &mut Vec<u32>,
        count: Option<u64>,
    ) -> Result<ControlFlow<()>, CliError> {
        match self.serve(up, count) {
            Err(CliError::Guest(GuestError::HostGone(reason))) => {
                self.host_gone = Some(reason);
                Ok(ControlFlow::Continue(()))
            }
            served => served,
        }
    }

    /// Takes what is pending, until it is enough. Lines of which the level is up are in `up`.
    fn serve(
        &mut self,
        up: &mut Vec<u32>,
        count: Option<u64>,
    ) -> Result<ControlFlow<()>, CliError> {
        let mut out = io::stdout();
        loop {
            while let Some(delivery) = self.insist(IntcDriver::claim)? {
                show(&mut out, &delivery).map_err(CliError::Output)?;
                if delivery.asserted {
                    // A driver would see to it that its device lets go of the line. This one only looks: it masks it.
                    self.insist(|driver| Ok(driver.mask(delivery.line)?))?;
                    up.push(delivery.line);
                }
                let notify = self.insist(|driver| driver.end(delivery.line))?;
                self.guest.signal(self.device, role::CONTROLS, notify);
                if count.is_some_and(|count| self.driver.counters().delivered >= count) {
                    self.show_host()?;
                    return Ok(ControlFlow::Break(()));
                }
            }
            self.show_host()?;
            let fallen = up.iter().position(|line| !self.driver.is_asserted(*line));
            let Some(fallen) = fallen else {
                return Ok(ControlFlow::Continue(()));
            };
            let line = up.swap_remove(fallen);
            writeln!(out, "line {line}: the level fell").map_err(CliError::Output)?;
            self.insist(|driver| Ok(driver.unmask(line)?))?;
        }
    }

    fn move_to(&mut self, mut guest: Guest) -> Result<(), CliError> {
        let device = find(&mut guest, DeviceId::INTC)?;
        move_intc_driver(&mut guest, device, &mut self.driver)?;
        (self.guest, self.device, self.host_gone) = (guest, device, None);
        Ok(())
    }

    fn sum_up(&self) -> Result<(), CliError> {
        let counters = self.driver.counters();
        writeln!(
            io::stdout(),
            "{} interrupts for {} edges, {} coalesced",
            counters.delivered,
            counters.edges,
            counters.coalesced
        )
        .map_err(CliError::Output)
    }
}

fn show(out: &mut impl Write, delivery: &Delivery) -> io::Result<()> {
    let level = if delivery.asserted { ", level up" } else { "" };
    // The host's own clock, which on this transport can be read here too.
    let age = monotonic_ns().saturating_sub(delivery.raised_ns);
    writeln!(
        out,
        "line {} (priority {}): {} edge(s){level}; {:.1} us after it was last raised",
        delivery.line,
        delivery.priority,
        delivery.edges,
        age as f64 / 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_have_a_priority() {
        let parsed = "7:3".parse::<LineSpec>().unwrap();
        assert_eq!((parsed.line, parsed.priority.number()), (7, 3));
        let parsed = "9".parse::<LineSpec>().unwrap();
        assert_eq!((parsed.line, parsed.priority), (9, LinePriority::LOWEST));
        for text in ["", "x", "7:", "7:32", ":3", "-1", "7:3:1"] {
            assert!(text.parse::<LineSpec>().is_err(), "{text}");
        }
    }
}
