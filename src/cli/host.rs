//! `shmbus host`: serves devices until it is told to stop.

use shmbus::Bus;
use shmbus::devices::clock::device::ClockDevice;
use shmbus::devices::clock::twin::ClockTwin;
use shmbus::devices::clock::{Counter, DisciplineLimits, HostClocks, Ticks};
use shmbus::devices::intc::device::{IntcDevice, IntcOptions};
use shmbus::devices::lane::Carrier;
use shmbus::devices::net::device::NetDevice;
use shmbus::devices::net::pcap::{Pace, Recorder, Replay};
use shmbus::devices::net::tap::Tap;
use shmbus::devices::timer::device::{TimerDevice, TimerOptions};
use shmbus::ring::RingKind;
use shmbus::virtio::DeviceId;

use super::args::HostArgs;
use super::error::CliError;
use super::guest_counter::GuestCounter;
use super::stop::Stop;

/// Timers of each timer device, for each virtual CPU of each guest.
const TIMERS: u32 = 16;

pub(super) fn run(args: &HostArgs) -> Result<(), CliError> {
    let mut stop = Stop::on_signals()?;
    if args.until_stdin_closes {
        stop = stop.or_when_stdin_closes()?;
    }
    let mut builder = Bus::builder().max_guests(args.max_guests.into());
    for spec in &args.devices {
        match spec.kind {
            DeviceId::CLOCK => {
                let clocks = HostClocks::calibrate(Counter::detect(), DisciplineLimits::default())
                    .map_err(CliError::Calibration)?;
                for _ in 0..spec.count {
                    let clocks = clocks.clone();
                    builder = match spec.carrier {
                        Carrier::Table => builder.device(clock(args, clocks)?),
                        Carrier::Ring(rings) => {
                            let twin = ClockTwin::new(clocks, rings).map_err(CliError::device)?;
                            builder.device(twin)
                        }
                    };
                }
            }
            DeviceId::TIMER => {
                for _ in 0..spec.count {
                    let timer = TimerDevice::with(TimerOptions {
                        vcpus: spec.vcpus,
                        timers: TIMERS,
                        carrier: spec.carrier,
                    });
                    builder = builder.device(timer.map_err(CliError::device)?);
                }
            }
            DeviceId::INTC => {
                for _ in 0..spec.count {
                    let intc = IntcDevice::with(IntcOptions {
                        lines: spec.lines,
                        carrier: spec.carrier,
                    });
                    builder = builder.device(intc.map_err(CliError::device)?);
                }
            }
            _ => builder = builder.device(net(args, spec.rings)?),
        }
    }
    if let Some(path) = &args.inspect_file {
        builder = builder.inspect_file(path, args.inspect_mode);
    }
    for spec in &args.ivshmem {
        builder = builder.ivshmem(&spec.path, spec.options());
    }
    let mut bus = match &args.socket {
        Some(socket) => builder.listen(socket)?,
        None => builder.serve()?,
    };
    for spec in &args.ivshmem {
        tracing::info!(ivshmem = %spec.path.display(), "serving QEMU");
    }
    if let Some(socket) = &args.socket {
        tracing::info!(socket = %socket.display(), "serving");
    }
    bus.run(&stop)?;
    tracing::info!("stopped");
    Ok(())
}

fn clock(args: &HostArgs, clocks: HostClocks<Counter>) -> Result<ClockDevice, CliError> {
    // A virtual machine's counter is its own.
    let unsaid = match args.ivshmem.is_empty() {
        true => GuestCounter::Same,
        false => GuestCounter::Unknown,
    };
    let relation = args.guest_counter.unwrap_or(unsaid);
    let transform = relation.transform(clocks.counter().domain());
    let device = ClockDevice::new(clocks).map_err(CliError::device)?;
    let device = device.guest_counters(move |_| transform);
    Ok(match args.vmclock {
        Some(kind) => device.with_vmclock(kind),
        None => device,
    })
}

fn net(args: &HostArgs, rings: RingKind) -> Result<NetDevice, CliError> {
    let mut net = NetDevice::with_rings(rings, args.mtu).map_err(CliError::device)?;
    if let Some(name) = &args.tap {
        net.add_tap(Tap::open(name).map_err(CliError::Tap)?)
            .map_err(CliError::Uplink)?;
    }
    if let Some(path) = &args.replay {
        let replay = Replay::open(path, Pace::AsRecorded).map_err(CliError::Capture)?;
        net.add_replay(replay).map_err(CliError::Uplink)?;
    }
    if let Some(path) = &args.record {
        net.record(Recorder::create(path).map_err(CliError::Capture)?);
    }
    Ok(net)
}
