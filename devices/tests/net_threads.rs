//! A host and two guests, each in its own thread: they sleep whenever there is nothing to do, and wake each other only
//! by what `Notify` decides, or by the stack's own deadlines.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use shmbus_devices::net::addresses::Sources;
use shmbus_devices::net::app::fetch::{Fetch, FetchConfig, Fetched};
use shmbus_devices::net::app::serve::{Server, ServerConfig};
use shmbus_devices::net::app::{Application, turn};
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::host::GuestPort;
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory};
use shmbus_devices::net::stack::{Stack, StackConfig};
use shmbus_devices::net::switch::{Switch, SwitchLimits};
use shmbus_ring::any::DriverRing;
use shmbus_ring::{RingFeatures, RingKind};
use shmbus_shm::Mapped;

type Driver = NetDriver<DriverRing<Mapped>, Mapped>;

const BUDGET: u32 = 64;

fn address(guest: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, guest)
}

fn stack(
    guest: u8,
    regions: &DeviceRegions<Mapped>,
    memory: QueueMemory,
    features: RingFeatures,
) -> Stack<Driver> {
    let driver = NetDriver::over_rings(regions, memory, features).unwrap();
    let config = StackConfig::new(MacAddress::local(guest.into()), address(guest), 24, memory);
    Stack::new(driver, &config, Duration::ZERO).unwrap()
}

/// Takes turns until `done`.
fn run<A: Application<Driver>>(
    stack: &mut Stack<Driver>,
    application: &mut A,
    host: &Thread,
    mut done: impl FnMut(&mut A) -> bool,
) {
    let start = Instant::now();
    while !done(application) {
        let turn = turn(stack, application, start.elapsed(), BUDGET);
        assert!(stack.fault().is_none(), "{:?}", stack.fault());
        if turn.notifications.any() {
            host.unpark();
        }
        if !turn.more && !done(application) {
            let now = start.elapsed();
            let pause = turn
                .deadline
                .map_or(Duration::from_secs(1), |at| at.saturating_sub(now));
            thread::park_timeout(pause.min(Duration::from_secs(1)));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "uses files")]
fn a_file_goes_from_thread_to_thread() {
    let directory = tempfile::tempdir().unwrap();
    let file: Vec<u8> = (0..6_000_000_u32).map(|n| (n ^ (n >> 11)) as u8).collect();
    std::fs::write(directory.path().join("file"), &file).unwrap();
    let geometries = [(256, 1500), (256, 65_521), (16, 1500)];
    for (rings, (size, mtu)) in RingKind::ALL
        .into_iter()
        .flat_map(|rings| geometries.map(|geometry| (rings, geometry)))
    {
        let memory = QueueMemory::in_format(rings.format, size, mtu).unwrap();
        let began = Instant::now();
        let features = RingFeatures::from(DRIVER_FEATURES | rings.features())
            .with_private(rings.private_features());
        let (fetched, dropped) = transfer(directory.path(), memory, features);
        assert_eq!(
            (fetched.bytes, fetched.sha256),
            (6_000_000, Sha256::digest(&file).into())
        );
        eprintln!(
            "{rings}, {size} entries, MTU {mtu}: {:?}, {dropped} frames dropped",
            began.elapsed()
        );
    }
}

fn transfer(
    directory: &std::path::Path,
    memory: QueueMemory,
    features: RingFeatures,
) -> (Fetched, u64) {
    let regions = [
        DeviceRegions::on_heap(memory),
        DeviceRegions::on_heap(memory),
    ];
    let mut server_stack = stack(1, &regions[0], memory, features);
    let mut client_stack = stack(2, &regions[1], memory, features);
    let mut switch = Switch::new(SwitchLimits::default());
    let ports = [1, 2].map(|guest: u8| {
        let port =
            GuestPort::over_rings(&regions[usize::from(guest) - 1], memory, features).unwrap();
        switch
            .attach(port, Sources::Only(MacAddress::local(guest.into())))
            .unwrap()
    });
    let (host, over) = (thread::current(), AtomicBool::new(false));
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let config = ServerConfig::default();
            let mut server = Server::new(&mut server_stack, directory, config).unwrap();
            run(&mut server_stack, &mut server, &host, |_| {
                over.load(Ordering::Relaxed)
            });
        });
        let client = scope.spawn(|| {
            let config = FetchConfig::new(address(1), 80, "file");
            let mut fetch = Fetch::new(&mut client_stack, config, std::io::sink(), Duration::ZERO);
            let mut outcome = None;
            run(&mut client_stack, &mut fetch, &host, |fetch| {
                outcome = fetch.outcome().or(outcome.take());
                outcome.is_some()
            });
            over.store(true, Ordering::Relaxed);
            host.unpark();
            outcome.unwrap().unwrap()
        });
        let threads = [server.thread().clone(), client.thread().clone()];
        let start = Instant::now();
        while !over.load(Ordering::Relaxed) {
            let more = ports.map(|port| switch.poll(port, BUDGET, start.elapsed()).more);
            switch.flush(|port, _, notifications| {
                if notifications.any() {
                    threads[port.index()].unpark();
                }
            });
            if let Some((port, error)) = switch.next_fault() {
                panic!("{port}: {error}");
            }
            if more == [false; 2] {
                thread::park_timeout(Duration::from_secs(1));
            }
        }
        threads[0].unpark();
        let dropped = ports
            .iter()
            .map(|port| switch.counters(*port).unwrap().dropped())
            .sum();
        (client.join().unwrap(), dropped)
    })
}
