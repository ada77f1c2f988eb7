//! A guest's network: TCP/IP over a net device, in whatever environment that stands.

mod bus;
mod card;

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use shmbus_devices::lane::OutletError;
use shmbus_devices::net::app::{self, Application};
use shmbus_devices::net::config::{ConfigError, NetConfig};
use shmbus_devices::net::port::{Notifications, Port};
use shmbus_devices::net::stack::{Stack, StackConfigError};
use shmbus_devices::timer::TimerFault;
use shmbus_signal::Priority;
use shmbus_signal::os::Token;
use shmbus_virtio::DeviceId;

pub use self::bus::{BusPort, NetworkCounters, OnBus};
pub use self::card::{Card, CardCounters, CardError, CardOptions, CardPort, Interrupts};
use super::GuestError;

/// Frames that one turn receives and sends, before signals are looked at.
const BUDGET: u32 = 256;

/// A guest's network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The bus.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The bus lacks a device.
    #[error("the bus has no {0} device: start the host with --device {0}")]
    NoDevice(DeviceId),
    /// The net device's configuration cannot be used.
    #[error("the net device's configuration: {0}")]
    Config(#[from] ConfigError),
    /// The stack's configuration cannot be used.
    #[error(transparent)]
    Stack(#[from] StackConfigError),
    /// A deadline cannot be set.
    #[error("the timer: {0}")]
    Deadline(#[from] OutletError),
    /// The timer device broke the rules.
    #[error("the timer device: {0}")]
    Timer(#[from] TimerFault),
    /// The net device broke the rules.
    #[error("the net device: {0}")]
    Net(String),
    /// A network card that is no device of the bus.
    #[error("the network card: {0}")]
    Card(#[from] Box<CardError>),
    /// The host came back with another MTU: connections cannot go on.
    #[error(
        "the restarted host has another configuration for this guest: {found:?}, not {expected:?}"
    )]
    Changed {
        /// What it was.
        expected: NetConfig,
        /// What it is.
        found: NetConfig,
    },
}

/// How [`Network::run`] ended.
#[derive(Debug)]
pub enum Ended {
    /// The caller's `watch` had enough.
    Done,
    /// A descriptor that was added is ready.
    Ready(Token),
    /// The host is gone: connect again, and [`Network::move_to`] the new session.
    HostGone,
}

/// What a stack lives in: how it learns the time, tells its device of frames, and waits.
pub trait Environment {
    /// What the stack is over.
    type Port: Port;

    /// The time since any fixed moment.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    fn now(&mut self) -> Result<Duration, NetworkError>;

    /// Tells the device of what a turn did, which decided upon `notifications`.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    fn notify(
        &mut self,
        port: &mut Self::Port,
        notifications: Notifications,
    ) -> Result<(), NetworkError>;

    /// Looks what has happened, without waiting.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    fn look(&mut self) -> Result<(), NetworkError>;

    /// Waits until something happens, or the deadline has come.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    fn wait(&mut self, deadline: Option<Duration>) -> Result<(), NetworkError>;

    /// Acts on what has happened; says what the caller has to act on.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    fn take_events(&mut self) -> Result<Option<Ended>, NetworkError>;

    /// Has a descriptor waited for besides.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    fn add_fd(&mut self, fd: impl AsFd, priority: Priority) -> Result<Token, NetworkError>;
}

/// TCP/IP for a guest: smoltcp on a net device's rings; on the bus, unless said otherwise.
pub struct Network<E: Environment = OnBus> {
    environment: E,
    stack: Stack<E::Port>,
    address: Ipv4Addr,
}

impl<E: Environment> Network<E> {
    fn in_environment(environment: E, stack: Stack<E::Port>, address: Ipv4Addr) -> Self {
        Self {
            environment,
            stack,
            address,
        }
    }

    /// The guest's IP address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The stack, to open sockets on.
    pub fn stack(&mut self) -> &mut Stack<E::Port> {
        &mut self.stack
    }

    /// The network's time.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn now(&mut self) -> Result<Duration, NetworkError> {
        self.environment.now()
    }

    /// Has a descriptor waited for while the network runs.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn add_fd(&mut self, fd: impl AsFd, priority: Priority) -> Result<Token, NetworkError> {
        self.environment.add_fd(fd, priority)
    }

    /// Runs an application until `watch`, which is called after each turn, breaks off, or something else ends it.
    /// Blocks while there is nothing to do.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn run<A: Application<E::Port>>(
        &mut self,
        application: &mut A,
        mut watch: impl FnMut(&mut Self, &mut A, Duration) -> ControlFlow<()>,
    ) -> Result<Ended, NetworkError> {
        loop {
            let now = self.environment.now()?;
            let turn = app::turn(&mut self.stack, application, now, BUDGET);
            self.environment
                .notify(self.stack.port_mut(), turn.notifications)?;
            if let Some(fault) = self.stack.fault() {
                return Err(NetworkError::Net(fault.to_string()));
            }
            if watch(self, application, now).is_break() {
                return Ok(Ended::Done);
            }
            if turn.more {
                // Others' signals are looked at, but not waited for.
                self.environment.look()?;
            } else {
                self.environment.wait(turn.deadline)?;
            }
            if let Some(ended) = self.environment.take_events()? {
                return Ok(ended);
            }
        }
    }
}
