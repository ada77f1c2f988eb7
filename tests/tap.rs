//! The machine's own kernel as a peer: a TAP interface in a network namespace of its own.
//!
//! The test runs itself again inside the namespace (`unshare`), so that nothing outside is touched: there it is the
//! kernel's root, whoever started it.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use support::{Bus, Process, contents, sha256};

/// Set inside the namespace.
const INSIDE: &str = "SHMBUS_TEST_IN_NAMESPACE";

const TAP: &str = "bus0";

/// The kernel's address on the bus's network.
const KERNEL: &str = "10.111.0.254";

/// Why the test cannot run here.
fn obstacle() -> Option<String> {
    for program in ["ip", "ping", "curl", "unshare"] {
        let found = Command::new(program)
            .arg("--help")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = found {
            return Some(format!("{program}: {error}"));
        }
    }
    let script = format!("ip tuntap add dev {TAP} mode tap && ip link set lo up");
    let tried = namespace().args(["sh", "-c", &script]).output().unwrap();
    let words = String::from_utf8_lossy(&tried.stderr);
    (!tried.status.success()).then(|| format!("no TAP interface in a namespace: {}", words.trim()))
}

/// A command that runs another in a network namespace of its own.
fn namespace() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--net").stdin(Stdio::null());
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

#[test]
fn the_kernel_reaches_guests_and_guests_reach_the_kernel() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if let Some(obstacle) = obstacle() {
        eprintln!("SKIPPED: {obstacle}");
        return;
    }
    let mut command = namespace();
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture"]);
    command.arg("the_kernel_reaches_guests_and_guests_reach_the_kernel");
    let finished = Process::start(command.env(INSIDE, "1")).finish();
    let finished = finished.expect_success();
    assert!(finished.text().contains("1 passed"), "{finished}");
    print!("{}", finished.text());
}

fn run(command: &str) -> support::Finished {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    Process::start(Command::new(program).args(words).stdin(Stdio::null())).finish()
}

fn inside() {
    for command in [
        format!("ip tuntap add dev {TAP} mode tap"),
        format!("ip address add {KERNEL}/24 dev {TAP}"),
        format!("ip link set {TAP} up"),
        "ip link set lo up".to_owned(),
    ] {
        run(&command).expect_success();
    }
    let bus = Bus::with(&["--tap", TAP]);
    let file = contents(3_000_000);
    let server = bus.serve(&bus.scratch.offer("file", &file));

    let ping = run(&format!("ping -c 3 -i 0.2 -W 20 {}", server.address)).expect_success();
    assert!(ping.text().contains(" 0% packet loss"), "{ping}");
    let curl = run(&format!(
        "curl --silent --show-error --fail http://{}",
        server.url("file")
    ));
    let curl = curl.expect_success();
    assert!(curl.stdout == file, "curl got another file: {curl}");
    let missing = run(&format!(
        "curl --silent --show-error --fail http://{}",
        server.url("none")
    ));
    assert!(
        !missing.status.success() && missing.stderr.contains("404"),
        "{missing}"
    );

    // The other way round.
    let ping = bus.guest(&["net", "ping", KERNEL, "--count", "3"]).finish();
    let ping = ping.expect_success();
    assert!(ping.text().contains("3 asked, 3 answered"), "{ping}");
    let port = serve_from_the_kernel(file.clone());
    let url = format!("{KERNEL}:{port}/file");
    let fetch = bus
        .guest(&["net", "fetch", &url, "--sha256", &sha256(&file)])
        .finish();
    let fetch = fetch.expect_success();
    assert!(fetch.stdout == file, "a guest got another file: {fetch}");

    // Guests among themselves go on beside that.
    bus.expect_fetch(&server, "file", &file);
    println!(
        "ping, curl and a fetch crossed {} frames",
        bus.counter("net", "frames")
    );
    bus.stop();
}

/// Answers one HTTP request on the kernel's TCP, at the port that is returned.
fn serve_from_the_kernel(file: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((KERNEL, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        assert!(request.starts_with(b"GET /file HTTP/1."));
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
            file.len()
        )
        .unwrap();
        stream.write_all(&file).unwrap();
    });
    port
}

#[test]
fn an_interface_that_may_not_be_used_says_what_helps() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may use every interface");
        return;
    }
    let scratch = support::Scratch::new();
    let mut command = support::program();
    command.arg("host").arg("--socket").arg(scratch.path("bus"));
    let host = Process::start(command.args(["--device", "net", "--tap", TAP]));
    host.finish().expect_error(&["tap"]);
}
