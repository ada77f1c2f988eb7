//! How fast TCP goes from guest to guest through drivers, rings and the switch, all in one thread:
//! `cargo run --release -p shmbus-devices --example net_throughput [MTU [MIB [QUEUE_SIZE [WINDOW_KIB]]]]`.
//!
//! One thread does the work of both guests and the host, so nothing here waits or signals.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use shmbus_devices::net::addresses::Sources;
use shmbus_devices::net::app::{Application, turn};
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::host::GuestPort;
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::port::Port;
use shmbus_devices::net::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory};
use shmbus_devices::net::stack::{SocketHandle, Stack, StackConfig};
use shmbus_devices::net::switch::{Switch, SwitchLimits};
use shmbus_ring::any::{DeviceRing, DriverRing};
use shmbus_shm::{Mapped, OffsetSpace};

type Driver = NetDriver<DriverRing<Mapped>, Mapped>;
type Host = GuestPort<DeviceRing<Mapped>, OffsetSpace<Mapped>>;

/// Sends zeroes as long as there is room.
struct Source(SocketHandle);

impl<P: Port> Application<P> for Source {
    fn advance(&mut self, stack: &mut Stack<P>, _: Duration) -> bool {
        stack
            .tcp(self.0)
            .send(|room| (room.len(), room.len()))
            .is_ok_and(|sent| sent > 0)
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }
}

/// Counts what arrives.
struct Sink(SocketHandle, u64);

impl<P: Port> Application<P> for Sink {
    fn advance(&mut self, stack: &mut Stack<P>, _: Duration) -> bool {
        let taken = stack
            .tcp(self.0)
            .recv(|data| (data.len(), data.len()))
            .unwrap_or(0);
        self.1 += taken as u64;
        taken > 0
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }
}

fn guest(number: u8, memory: QueueMemory) -> Result<(Stack<Driver>, Host), Box<dyn Error>> {
    let regions = DeviceRegions::on_heap(memory);
    let driver = NetDriver::over_rings(&regions, memory, DRIVER_FEATURES)?;
    let host = GuestPort::over_rings(&regions, memory, DRIVER_FEATURES)?;
    let address = Ipv4Addr::new(10, 0, 0, number);
    let config = StackConfig::new(MacAddress::local(number.into()), address, 24, memory);
    Ok((Stack::new(driver, &config, Duration::ZERO)?, host))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mtu = arguments.next().map_or(Ok(9000), |text| text.parse())?;
    let mebibytes: u64 = arguments.next().map_or(Ok(4096), |text| text.parse())?;
    let size = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let window = arguments
        .next()
        .map(|text| text.parse::<usize>())
        .transpose()?;

    let memory = QueueMemory::new(size, mtu)?;
    let window = window.map_or(memory.tcp_window_bytes(), |kibibytes| kibibytes << 10);
    let (mut client, client_port) = guest(1, memory)?;
    let (mut server, server_port) = guest(2, memory)?;
    let mut switch = Switch::new(SwitchLimits::default());
    let ports = [
        switch.attach(client_port, Sources::Only(MacAddress::local(1)))?,
        switch.attach(server_port, Sources::Only(MacAddress::local(2)))?,
    ];

    let mut sink = Sink(server.add_tcp(window, 4096), 0);
    server.tcp(sink.0).listen(80)?;
    let mut source = Source(client.add_tcp(4096, window));
    client.connect(source.0, (Ipv4Addr::new(10, 0, 0, 2), 80))?;

    let start = Instant::now();
    while sink.1 < mebibytes << 20 {
        let _ = turn(&mut client, &mut source, start.elapsed(), 256);
        let _ = switch.poll(ports[0], 256, start.elapsed());
        switch.flush(|_, _, _| {});
        let _ = turn(&mut server, &mut sink, start.elapsed(), 256);
        let _ = switch.poll(ports[1], 256, start.elapsed());
        switch.flush(|_, _, _| {});
        if let Some((port, error)) = switch.next_fault() {
            return Err(format!("{port}: {error}").into());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let counters = switch.counters(ports[0]).ok_or("the port is gone")?;
    let frames = counters.received_frames + counters.sent_frames;
    println!(
        "MTU {mtu}, window {} KiB: {:.0} MiB/s, {frames} frames, {:.0} ns a frame, {} dropped",
        window >> 10,
        sink.1 as f64 / f64::from(1 << 20) / seconds,
        seconds * 1e9 / frames as f64,
        counters.dropped(),
    );
    Ok(())
}
