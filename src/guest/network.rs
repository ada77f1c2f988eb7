//! A guest's network: TCP/IP over the bus's net device, in the bus's time, with the bus's timer.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::time::Duration;

use shmbus_devices::clock::{ClockKind, ClockReader, Reading};
use shmbus_devices::lane::OutletError;
use shmbus_devices::net::app::{self, Application};
use shmbus_devices::net::config::{ConfigError, NetConfig};
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::port::Notifications;
use shmbus_devices::net::queues::{self, QueueMemory};
use shmbus_devices::net::stack::{Stack, StackConfig, StackConfigError, StackCounters};
use shmbus_devices::timer::{DriverCounters, TimerDriver, TimerFault};
use shmbus_devices::{net, timer};
use shmbus_ring::any::DriverRing;
use shmbus_shm::{Mapped, Notify};
use shmbus_signal::os::Token;
use shmbus_signal::suppress::SenderCounts;
use shmbus_virtio::{DeviceId, DeviceStatus};

use super::{Guest, GuestClock, GuestError, GuestEvent};

/// Frames that one turn receives and sends, before signals are looked at.
const BUDGET: u32 = 256;

/// The timer that the stack uses.
const STACK_TIMER: u32 = 0;

/// The timer that [`Network::wake_at`] uses.
const OWNER_TIMER: u32 = 1;

/// The network of the bus has 24 bits of prefix.
const PREFIX: u8 = 24;

/// A bus's time that is less sure is of no use to TCP.
const MAX_CLOCK_ERROR_NS: u64 = 20_000_000;

/// The driver under the stack.
pub type BusPort = NetDriver<DriverRing<Mapped>, Mapped>;

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

/// What a network has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkCounters {
    /// Frames and their bytes.
    pub stack: StackCounters,
    /// Deadlines.
    pub timer: DriverCounters,
    /// Signals to the host.
    pub signals: SenderCounts,
    /// Values read from tables: times and expirations.
    pub table_reads: u64,
}

/// TCP/IP for a guest: smoltcp on the net device's rings. Its time is the bus's clock, read without a system call; its
/// next deadline *is* the deadline of a timer of the bus, superseded whenever it changes.
pub struct Network {
    guest: Guest,
    net: u32,
    timer_device: u32,
    config: NetConfig,
    stack: Stack<BusPort>,
    address: Ipv4Addr,
    clock: GuestClock,
    timer: TimerDriver<Mapped>,
    table_reads: u64,
    /// What earlier sessions of this network counted.
    before: NetworkCounters,
}

/// The devices of one session, set up.
struct Attached {
    net: u32,
    timer_device: u32,
    config: NetConfig,
    port: BusPort,
    memory: QueueMemory,
    clock: GuestClock,
    timer: TimerDriver<Mapped>,
}

impl Network {
    /// Sets up the drivers of the bus's first net, clock and timer devices, and a stack. Without an `address` the guest
    /// gets 10.111.0.N, N the number of its port.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn new(mut guest: Guest, address: Option<Ipv4Addr>) -> Result<Self, NetworkError> {
        let mut attached = attach(&mut guest)?;
        let [.., low] = attached.config.mac.0;
        let address = address.unwrap_or(Ipv4Addr::new(10, 111, 0, low));
        let clock = &mut attached.clock;
        let now = clock.now(&mut guest, ClockKind::Monotonic)?.time_ns;
        let mut config = StackConfig::new(attached.config.mac, address, PREFIX, attached.memory);
        config.random_seed = now;
        Ok(Self {
            guest,
            net: attached.net,
            timer_device: attached.timer_device,
            config: attached.config,
            stack: Stack::new(attached.port, &config, Duration::from_nanos(now))?,
            address,
            clock: attached.clock,
            timer: attached.timer,
            table_reads: 1,
            before: NetworkCounters::default(),
        })
    }

    /// Goes on in a new session, after the host restarted. Connections survive: the guest keeps its IP address.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn move_to(&mut self, mut guest: Guest) -> Result<(), NetworkError> {
        let attached = attach(&mut guest)?;
        // Who comes back first may get another's station address: only ours, the IP address, must stay.
        let expected = NetConfig {
            mac: attached.config.mac,
            ..self.config
        };
        if attached.config != expected {
            return Err(NetworkError::Changed {
                expected: self.config,
                found: attached.config,
            });
        }
        self.before = self.counters();
        self.table_reads = 0;
        self.net = attached.net;
        self.timer_device = attached.timer_device;
        self.config = attached.config;
        self.stack.move_to(attached.port, attached.config.mac)?;
        self.clock = attached.clock;
        self.timer = attached.timer;
        self.guest = guest;
        Ok(())
    }

    /// The guest's IP address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The stack, to open sockets on.
    pub fn stack(&mut self) -> &mut Stack<BusPort> {
        &mut self.stack
    }

    /// The guest, to add descriptors to.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// The bus's monotonic time, with what is known of its error.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Guest`].
    pub fn now(&mut self) -> Result<Reading, NetworkError> {
        self.table_reads += 1;
        Ok(self.clock.now(&mut self.guest, ClockKind::Monotonic)?)
    }

    /// Reads the clock device otherwise than by [`Network::now`].
    pub fn with_clock<T>(&mut self, read: impl FnOnce(&mut ClockReader<Mapped>) -> T) -> T {
        self.table_reads += 1;
        read(self.clock.reader())
    }

    /// What was done so far.
    pub fn counters(&self) -> NetworkCounters {
        let (mut timer, now) = (self.before.timer, self.timer.counters());
        timer.set += now.set;
        timer.superseded += now.superseded;
        timer.unchanged += now.unchanged;
        timer.cancelled += now.cancelled;
        timer.fired += now.fired;
        timer.discarded += now.discarded;
        let signals = self.guest.counts();
        NetworkCounters {
            stack: self.stack.counters(),
            timer,
            signals: SenderCounts {
                sent: self.before.signals.sent + signals.sent,
                suppressed: self.before.signals.suppressed + signals.suppressed,
            },
            table_reads: self.before.table_reads + self.table_reads + now.fired + now.discarded,
        }
    }

    /// Runs an application until `watch`, which is called after each turn, breaks off, or something else ends it.
    /// Blocks while there is nothing to do.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn run<A: Application<BusPort>>(
        &mut self,
        application: &mut A,
        mut watch: impl FnMut(&mut Self, &mut A, Duration) -> ControlFlow<()>,
    ) -> Result<Ended, NetworkError> {
        loop {
            let now = Duration::from_nanos(self.now()?.time_ns);
            let turn = app::turn(&mut self.stack, application, now, BUDGET);
            self.signal_net(turn.notifications);
            if let Some(fault) = self.stack.fault() {
                return Err(NetworkError::Net(fault.to_string()));
            }
            if watch(self, application, now).is_break() {
                return Ok(Ended::Done);
            }
            if turn.more {
                // Others' signals are looked at, but not waited for.
                self.guest.wait(Some(Duration::ZERO))?;
            } else {
                self.set_timer(STACK_TIMER, turn.deadline)?;
                self.guest.wait(None)?;
            }
            if let Some(ended) = self.take_events()? {
                return Ok(ended);
            }
        }
    }

    fn signal_net(&mut self, notifications: Notifications) {
        use net::device::role::{RECEIVEQ1_DRIVER, TRANSMITQ1_DRIVER};
        self.guest
            .signal(self.net, RECEIVEQ1_DRIVER, notifications.receiveq);
        self.guest
            .signal(self.net, TRANSMITQ1_DRIVER, notifications.transmitq);
    }

    /// Has a turn taken at a time of the bus's clock, instead of the one that was asked for before.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Deadline`].
    pub fn wake_at(&mut self, at: Duration) -> Result<(), NetworkError> {
        self.set_timer(OWNER_TIMER, Some(at))
    }

    /// The stack's next poll time is the deadline: it supersedes what was set before, and costs nothing if it is that.
    fn set_timer(&mut self, slot: u32, deadline: Option<Duration>) -> Result<(), NetworkError> {
        let outcome = match deadline {
            Some(at) => {
                let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
                self.timer.set(slot, at_ns)
            }
            None => self.timer.cancel(slot),
        };
        match outcome {
            Ok(notify) => self.signal_timer(notify),
            // A twin's: the host signals when there is room, and the turn after that sets the timer again.
            Err(OutletError::Full) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn signal_timer(&mut self, notify: Notify) {
        self.guest
            .signal(self.timer_device, timer::device::role::DEADLINES, notify);
    }

    fn take_events(&mut self) -> Result<Option<Ended>, NetworkError> {
        while let Some(event) = self.guest.next_event() {
            match event {
                GuestEvent::Signalled { device, .. } if device == self.timer_device => {
                    // That the stack's time has come is all there is to know: the next turn looks at the clock.
                    let notify = self.timer.poll(|_| {})?;
                    self.signal_timer(notify);
                }
                // The next turn polls the queues.
                GuestEvent::Signalled { .. } => {}
                GuestEvent::DeviceChanged => {
                    let status = self.guest.offer(self.net)?.status;
                    if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) {
                        return Err(NetworkError::Net(format!("its status is {status:?}")));
                    }
                }
                GuestEvent::Ready(token) => return Ok(Some(Ended::Ready(token))),
                GuestEvent::HostGone(reason) => {
                    tracing::warn!(%reason, "the host is gone");
                    return Ok(Some(Ended::HostGone));
                }
            }
        }
        Ok(None)
    }

    /// Leaves the bus.
    pub fn leave(self) {
        self.guest.leave();
    }
}

/// Sets up the drivers of a session.
fn attach(guest: &mut Guest) -> Result<Attached, NetworkError> {
    let mut find = |kind| guest.find(kind).ok_or(NetworkError::NoDevice(kind));
    let (net, clock, timer_device) = (
        find(DeviceId::NET)?,
        find(DeviceId::CLOCK)?,
        find(DeviceId::TIMER)?,
    );
    let clock = GuestClock::new(guest, clock, MAX_CLOCK_ERROR_NS)?;
    let timer = super::timer_driver(guest, timer_device)?;

    let offer = guest.offer(net)?;
    let mut words = [0; NetConfig::WORDS];
    words.copy_from_slice(&offer.config[..NetConfig::WORDS]);
    let config = NetConfig::decode_words(&words)?;
    let features = queues::choose(offer.offered());
    let driver = net::device::attach(&guest.regions(net), &config, features);
    let (port, memory) = driver.map_err(|source| GuestError::Driver {
        device: net,
        source,
    })?;
    guest.activate(net, features)?;
    Ok(Attached {
        net,
        timer_device,
        config,
        port,
        memory,
        clock,
        timer,
    })
}
