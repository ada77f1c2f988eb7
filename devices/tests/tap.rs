//! The machine's own network stack as a station on the bus, in a network namespace of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use shmbus_devices::net::addresses::Sources;
use shmbus_devices::net::app::ping::{Echo, Ping, PingConfig};
use shmbus_devices::net::app::serve::{Server, ServerConfig};
use shmbus_devices::net::app::turn;
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::host::GuestPort;
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::port::Port;
use shmbus_devices::net::queues::{DRIVER_FEATURES, DeviceRegions, QueueMemory};
use shmbus_devices::net::stack::{Stack, StackConfig};
use shmbus_devices::net::switch::{PortId, Switch, SwitchLimits};
use shmbus_devices::net::tap::Tap;
use shmbus_ring::any::DriverRing;
use shmbus_shm::Mapped;

const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const INSIDE: &str = "SHMBUS_TEST_INSIDE_NAMESPACE";

type Driver = NetDriver<DriverRing<Mapped>, Mapped>;

/// Runs this test again in fresh user and network namespaces, where it may make interfaces.
#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn the_kernel_talks_to_a_guest() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let works = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !works("unshare", &["-rn", "true"]) {
        eprintln!("SKIPPED: `unshare -rn` does not work here: no user namespaces");
        return;
    }
    if !works(
        "unshare",
        &["-rn", "ip", "tuntap", "add", "dev", "probe", "mode", "tap"],
    ) {
        eprintln!(
            "SKIPPED: `ip tuntap` does not work here: no iproute2, or no access to /dev/net/tun"
        );
        return;
    }
    let mut again = Command::new("unshare");
    again.arg("-rn").arg(std::env::current_exe().unwrap());
    again
        .args(["--exact", "the_kernel_talks_to_a_guest", "--nocapture"])
        .env(INSIDE, "1");
    assert!(again.process_group(0).status().unwrap().success());
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn guest(switch: &mut Switch<Box<dyn Port>>) -> (Stack<Driver>, PortId) {
    let memory = QueueMemory::new(256, 1500).unwrap();
    let mac = MacAddress::local(2);
    let regions = DeviceRegions::on_heap(memory);
    let driver = NetDriver::over_rings(&regions, memory, DRIVER_FEATURES).unwrap();
    let port = GuestPort::over_rings(&regions, memory, DRIVER_FEATURES).unwrap();
    let config = StackConfig::new(mac, GUEST, 24, memory);
    let stack = Stack::new(driver, &config, Duration::ZERO).unwrap();
    (
        stack,
        switch.attach(Box::new(port), Sources::Only(mac)).unwrap(),
    )
}

/// What `curl` would do.
fn get(path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect((GUEST, 80)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    response
}

fn inside() {
    let tap = Tap::open("shmbus0").unwrap();
    ip(&format!("address add {KERNEL}/24 dev shmbus0"));
    ip("link set shmbus0 up");

    let directory = tempfile::tempdir().unwrap();
    let file: Vec<u8> = (0..2_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    fs::write(directory.path().join("file"), &file).unwrap();

    let mut switch: Switch<Box<dyn Port>> = Switch::new(SwitchLimits::default());
    let tap = switch
        .attach(Box::new(tap), Sources::Learned { at_most: 64 })
        .unwrap();
    let (mut stack, port) = guest(&mut switch);
    let mut server = Server::new(&mut stack, directory.path(), ServerConfig::default()).unwrap();
    let mut ping = Ping::new(
        &mut stack,
        PingConfig {
            count: 1,
            ..PingConfig::new(KERNEL)
        },
    );
    let client = thread::spawn(|| (get("/file"), get("/../etc/passwd")));

    let start = Instant::now();
    let mut echo = None;
    while !(client.is_finished() && echo.is_some()) {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the kernel and the guest do not find each other"
        );
        let _ = turn(&mut stack, &mut server, start.elapsed(), 64);
        let _ = turn(&mut stack, &mut ping, start.elapsed(), 64);
        echo = ping.next_echo().or(echo);
        let moved = switch.poll(port, 64, start.elapsed()).frames
            + switch.poll(tap, 64, start.elapsed()).frames;
        switch.flush(|_, _, _| {});
        if let Some((port, error)) = switch.next_fault() {
            panic!("{port}: {error}");
        }
        if moved == 0 {
            thread::sleep(Duration::from_micros(100));
        }
    }
    let (response, refused) = client.join().unwrap();
    assert!(response.starts_with(b"HTTP/1.0 200 OK\r\n") && response.ends_with(&file));
    assert!(refused.starts_with(b"HTTP/1.0 403 "));
    assert!(
        matches!(
            echo,
            Some(Echo {
                sequence: 1,
                round_trip: Some(_)
            })
        ),
        "{echo:?}"
    );
}
