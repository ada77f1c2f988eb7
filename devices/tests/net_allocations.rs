//! Nothing is allocated for a frame: not by drivers and ports, not by the switch, not by the stack.

use std::net::Ipv4Addr;
use std::time::Duration;

use shmbus_devices::net::addresses::Sources;
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::host::GuestPort;
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::port::{Checksum, Port};
use shmbus_devices::net::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory};
use shmbus_devices::net::stack::{Stack, StackConfig};
use shmbus_devices::net::switch::{PortId, Switch, SwitchLimits};
use shmbus_ring::any::{DeviceRing, DriverRing};
use shmbus_shm::{Mapped, OffsetSpace};

type Driver = NetDriver<DriverRing<Mapped>, Mapped>;
type Host = GuestPort<DeviceRing<Mapped>, OffsetSpace<Mapped>>;

fn memory() -> QueueMemory {
    QueueMemory::new(64, 1500).unwrap()
}

fn guest(switch: &mut Switch<Host>, sources: Sources) -> (Driver, PortId) {
    let memory = memory();
    let regions = DeviceRegions::on_heap(memory);
    let driver = NetDriver::over_rings(&regions, memory, DRIVER_FEATURES).unwrap();
    let host = GuestPort::over_rings(&regions, memory, DRIVER_FEATURES).unwrap();
    (driver, switch.attach(host, sources).unwrap())
}

#[test]
#[cfg_attr(miri, ignore = "counts through the system's allocator")]
fn new_addresses_and_full_queues_allocate_nothing() {
    let mut switch = Switch::new(SwitchLimits::default());
    let (mut sender, from) = guest(&mut switch, Sources::Learned { at_most: 16 });
    let (mut receiver, _) = guest(&mut switch, Sources::Only(MacAddress::local(1)));
    let _ = receiver.flush();
    let (mut frame, mut buffer) = ([0; 1000], [0; 2000]);
    frame[..6].copy_from_slice(&MacAddress::local(1).0);
    let mut forward = |frames: u32| {
        for number in 0..frames {
            // Each frame from another station, most of them twice as many as are taken out.
            frame[6..12].copy_from_slice(&MacAddress::local(100 + number).0);
            let _ = sender.send(&frame, Checksum::InFrame);
            let _ = sender.flush();
            switch.poll(from, 8, Duration::from_millis(number.into()));
            switch.flush(|_, _, _| {});
            if number % 128 < 64 {
                let _ = receiver.receive(&mut buffer);
                let _ = receiver.flush();
            }
        }
        switch.counters(from).unwrap().received_frames
    };
    forward(100);
    let mut received = 0;
    let allocations = allocation_counter::measure(|| received = forward(20_000));
    assert_eq!(received, 20_100);
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

#[test]
#[cfg_attr(miri, ignore = "counts through the system's allocator")]
fn a_tcp_stream_allocates_nothing() {
    let mut switch = Switch::new(SwitchLimits::default());
    let address = |number: u8| Ipv4Addr::new(10, 0, 0, number);
    let [(mut client, client_port), (mut server, server_port)] = [1, 2].map(|number: u8| {
        let mac = MacAddress::local(number.into());
        let (driver, port) = guest(&mut switch, Sources::Only(mac));
        let config = StackConfig::new(mac, address(number), 24, memory());
        (Stack::new(driver, &config, Duration::ZERO).unwrap(), port)
    });
    let (from, to) = (client.add_tcp(4096, 40_000), server.add_tcp(40_000, 4096));
    server.tcp(to).listen(80).unwrap();
    client.connect(from, (address(2), 80)).unwrap();
    let mut now = Duration::ZERO;
    let mut stream = |bytes: usize| {
        let mut received = 0;
        while received < bytes {
            now += Duration::from_micros(50);
            let _ = client.tcp(from).send(|room| (room.len(), ()));
            let _ = client.poll(now, 64);
            let _ = switch.poll(client_port, 64, now);
            switch.flush(|_, _, _| {});
            let _ = server.poll(now, 64);
            received += server
                .tcp(to)
                .recv(|data| (data.len(), data.len()))
                .unwrap_or(0);
            let _ = switch.poll(server_port, 64, now);
            switch.flush(|_, _, _| {});
        }
    };
    stream(100_000);
    let allocations = allocation_counter::measure(|| stream(10_000_000));
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
