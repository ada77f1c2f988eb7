//! TCP/IP over the bus's net device, in the bus's time, with the bus's timer.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use shmbus_devices::clock::{ClockKind, ClockReader, Reading};
use shmbus_devices::lane::OutletError;
use shmbus_devices::net::config::NetConfig;
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::port::Notifications;
use shmbus_devices::net::queues::{self, QueueMemory};
use shmbus_devices::net::stack::{Stack, StackConfig, StackCounters};
use shmbus_devices::timer::{DriverCounters, TimerDriver};
use shmbus_devices::{net, timer};
use shmbus_ring::any::DriverRing;
use shmbus_shm::{Mapped, Notify};
use shmbus_signal::Priority;
use shmbus_signal::os::Token;
use shmbus_signal::suppress::SenderCounts;
use shmbus_virtio::{DeviceId, DeviceStatus};

use super::{Ended, Environment, Network, NetworkError};
use crate::guest::{Guest, GuestClock, GuestError, GuestEvent, timer_driver};

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

/// The bus as what a stack lives in. Its time is the bus's clock, read without a system call; its next deadline *is* the
/// deadline of a timer of the bus, superseded whenever it changes.
pub struct OnBus {
    guest: Guest,
    net: u32,
    timer_device: u32,
    config: NetConfig,
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

impl Network<OnBus> {
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
        let stack = Stack::new(attached.port, &config, Duration::from_nanos(now))?;
        let environment = OnBus {
            guest,
            net: attached.net,
            timer_device: attached.timer_device,
            config: attached.config,
            clock: attached.clock,
            timer: attached.timer,
            table_reads: 1,
            before: NetworkCounters::default(),
        };
        Ok(Self::in_environment(environment, stack, address))
    }

    /// Goes on in a new session, after the host restarted. Connections survive: the guest keeps its IP address.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn move_to(&mut self, mut guest: Guest) -> Result<(), NetworkError> {
        let attached = attach(&mut guest)?;
        let before = self.counters();
        let bus = &mut self.environment;
        // Who comes back first may get another's station address: only ours, the IP address, must stay.
        let expected = NetConfig {
            mac: attached.config.mac,
            ..bus.config
        };
        if attached.config != expected {
            return Err(NetworkError::Changed {
                expected: bus.config,
                found: attached.config,
            });
        }
        self.stack.move_to(attached.port, attached.config.mac)?;
        *bus = OnBus {
            guest,
            net: attached.net,
            timer_device: attached.timer_device,
            config: attached.config,
            clock: attached.clock,
            timer: attached.timer,
            table_reads: 0,
            before,
        };
        Ok(())
    }

    /// The guest, to add descriptors to.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.environment.guest
    }

    /// The bus's monotonic time, with what is known of its error.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Guest`].
    pub fn reading(&mut self) -> Result<Reading, NetworkError> {
        self.environment.reading()
    }

    /// Reads the clock device otherwise than by [`Network::reading`].
    pub fn with_clock<T>(&mut self, read: impl FnOnce(&mut ClockReader<Mapped>) -> T) -> T {
        self.environment.table_reads += 1;
        read(self.environment.clock.reader())
    }

    /// What was done so far.
    pub fn counters(&self) -> NetworkCounters {
        let bus = &self.environment;
        let (mut timer, now) = (bus.before.timer, bus.timer.counters());
        timer.set += now.set;
        timer.superseded += now.superseded;
        timer.unchanged += now.unchanged;
        timer.cancelled += now.cancelled;
        timer.fired += now.fired;
        timer.discarded += now.discarded;
        let signals = bus.guest.counts();
        NetworkCounters {
            stack: self.stack.counters(),
            timer,
            signals: SenderCounts {
                sent: bus.before.signals.sent + signals.sent,
                suppressed: bus.before.signals.suppressed + signals.suppressed,
            },
            table_reads: bus.before.table_reads + bus.table_reads + now.fired + now.discarded,
        }
    }

    /// Has a turn taken at a time of the bus's clock, instead of the one that was asked for before.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Deadline`].
    pub fn wake_at(&mut self, at: Duration) -> Result<(), NetworkError> {
        self.environment.set_timer(OWNER_TIMER, Some(at))
    }

    /// Leaves the bus.
    pub fn leave(self) {
        self.environment.guest.leave();
    }
}

impl OnBus {
    fn reading(&mut self) -> Result<Reading, NetworkError> {
        self.table_reads += 1;
        Ok(self.clock.now(&mut self.guest, ClockKind::Monotonic)?)
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
}

impl Environment for OnBus {
    type Port = BusPort;

    fn now(&mut self) -> Result<Duration, NetworkError> {
        Ok(Duration::from_nanos(self.reading()?.time_ns))
    }

    fn notify(
        &mut self,
        _port: &mut BusPort,
        notifications: Notifications,
    ) -> Result<(), NetworkError> {
        use net::device::role::{RECEIVEQ1_DRIVER, TRANSMITQ1_DRIVER};
        self.guest
            .signal(self.net, RECEIVEQ1_DRIVER, notifications.receiveq);
        self.guest
            .signal(self.net, TRANSMITQ1_DRIVER, notifications.transmitq);
        Ok(())
    }

    fn look(&mut self) -> Result<(), NetworkError> {
        self.guest.wait(Some(Duration::ZERO))?;
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Duration>) -> Result<(), NetworkError> {
        self.set_timer(STACK_TIMER, deadline)?;
        self.guest.wait(None)?;
        Ok(())
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

    fn add_fd(&mut self, fd: impl AsFd, priority: Priority) -> Result<Token, NetworkError> {
        Ok(self.guest.add_fd(fd, priority)?)
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
    let timer = timer_driver(guest, timer_device)?;

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
