//! A virtual machine as an inspector: the file in which a host shows its bus is the memory of its ivshmem function, which it can
//! read and not write.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use shmbus_vm::{Error, Interop, Machine, Parts, build_programs, matrix};

/// The ivshmem function.
const FUNCTION: &str = "0000:00:01.0";

/// What the guest tries to write, and nobody else writes.
const CANARY: u64 = 0xdead_beef_cafe_f00d;

/// Traffic that stands still for so long has stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program on the host, which goes with its test.
struct Process(Child);

impl Process {
    /// Starts it, and waits until it says something on standard error.
    fn start(program: &Path, arguments: &[&str], says: &str) -> Result<(Self, String), Error> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        let command = command.args(arguments).env_remove("RUST_LOG");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::Start)?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let process = Self(child);
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains(says)));
        let line = line.unwrap_or_else(|| panic!("{arguments:?} ended without {says:?}"));
        // Somebody must read what else it says.
        std::thread::spawn(move || lines.count());
        Ok((process, line))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inspect(program: &Path, place: &str, path: &Path) -> Value {
    let mut command = Command::new(program);
    command.args(["inspect", "--json", place]).arg(path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn frames(bus: &Value) -> u64 {
    let counters = bus["devices"][0]["counters"].as_array().unwrap();
    let frames = counters
        .iter()
        .find(|counter| counter[0] == "frames")
        .unwrap();
    frames[1].as_u64().unwrap()
}

/// What lies still while guests stay: who they are, and where everything is.
fn still(bus: &Value) -> Vec<Value> {
    let guests = bus["guests"].as_array().unwrap().iter();
    let parts = ["session", "name", "devices", "regions"];
    guests
        .map(|guest| parts.iter().map(|part| guest[part].clone()).collect())
        .collect()
}

/// A directory in memory for the file.
fn scratch() -> Result<tempfile::TempDir, Error> {
    let builder = || tempfile::Builder::new().prefix("shmbus-").to_owned();
    let memory = builder().tempdir_in("/dev/shm");
    memory
        .or_else(|_| builder().tempdir())
        .map_err(Error::Start)
}

#[test]
fn a_virtual_machine_sees_the_bus_and_cannot_write_what_it_sees() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let (_, program): (String, PathBuf) = build_programs()?.remove(0);
    let scratch = scratch()?;
    let place = |name: &str| scratch.path().join(name);
    let [socket, file] = [place("bus"), place("gallery")];
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let arguments = [
        "host",
        "--socket",
        &text(&socket),
        "--inspect-file",
        &text(&file),
    ];
    let devices = ["--device", "net", "--device", "clock", "--device", "timer"];
    let (_host, _) = Process::start(&program, &[&arguments[..], &devices].concat(), "serving")?;

    let served = place("served");
    fs::create_dir(&served).map_err(Error::Start)?;
    fs::write(served.join("file"), vec![b'x'; 1 << 20]).map_err(Error::Start)?;
    let guest = ["guest", "--socket", &text(&socket)];
    let serve = ["--name", "server", "net", "serve", &text(&served)];
    let (_server, line) = Process::start(&program, &[&guest[..], &serve].concat(), "http://")?;
    let (_, address) = line.split_once("http://").unwrap();
    let url = format!("{}/file", address.split_once('/').unwrap().0);
    let fetch = ["--name", "client", "--report", "net", "fetch", &url];
    let endless = ["--sink", "discard", "--seconds", "3600"];
    let fetch = [&guest[..], &fetch, &endless].concat();
    let (_client, _) = Process::start(&program, &fetch, "progress")?;

    let bytes = fs::metadata(&file).map_err(Error::Start)?.len();
    let backend = format!(
        "memory-backend-file,id=shown,mem-path={},size={bytes},share=on,readonly=on",
        file.display()
    );
    for (qemu, kernel) in matrix() {
        let inspector = Machine::new(&parts, qemu, kernel)
            .without_iommu()
            .arguments(["-object", &backend])
            .device("ivshmem-plain,memdev=shown")
            .boot()?;
        let row = Interop::new("ivshmem-plain", inspector.name()).feature("readonly=on");
        let look = format!("shmbus inspect --json --pci {FUNCTION}");
        let seen = || -> Result<Value, Error> {
            Ok(serde_json::from_str(&inspector.succeed(&look)?).unwrap())
        };

        let before = inspect(&program, "--socket", &socket);
        let first = seen()?;
        let after = inspect(&program, "--socket", &socket);
        assert_eq!(still(&first), still(&before));
        assert_eq!(still(&first).len(), 2);
        assert_eq!(first["devices"][1]["clocks"].as_array().unwrap().len(), 2);
        // It is seen as it goes on, a counters' period late at most.
        assert!(frames(&first) <= frames(&after));
        assert!(
            frames(&first) * 2 > frames(&before),
            "{first} is older than {before}"
        );
        // A frame lost costs TCP a second.
        let patience = Instant::now() + PATIENCE;
        while frames(&seen()?) <= frames(&first) {
            assert!(Instant::now() < patience, "the view stands still: {first}");
        }

        // Every page's first word, and a word inside each.
        let stable = fs::read(&file).map_err(Error::Start)?[..4096].to_vec();
        let write = format!(
            "base=$(sed -n 3p /sys/bus/pci/devices/{FUNCTION}/resource | cut -d' ' -f1); \
             i=0; while [ $i -lt {bytes} ]; do \
             for at in 0 8 1032; do devmem $((base + i + at)) 64 {CANARY:#x} || exit 1; done; \
             i=$((i + {step})); done; devmem $base 64",
            step = (bytes / 32).max(4096),
        );
        let found = inspector.succeed(&write)?;
        let magic = u64::from_le_bytes(*b"shmbusgl");
        let found = found.trim().trim_start_matches("0x");
        assert_eq!(u64::from_str_radix(found, 16), Ok(magic), "{found}");
        let contents = fs::read(&file).map_err(Error::Start)?;
        assert_eq!(&contents[..4096], &stable[..]);
        let canary = CANARY.to_le_bytes();
        assert!(contents.chunks(8).all(|word| word != canary));

        // Neither the host nor the view has noticed.
        let last = seen()?;
        assert_eq!(still(&last), still(&inspect(&program, "--file", &file)));
        assert_eq!(still(&last), still(&before));
        while frames(&inspect(&program, "--socket", &socket)) <= frames(&after) {
            assert!(
                Instant::now() < patience,
                "the traffic stands still: {after}"
            );
        }
        assert!(inspector.shut_down()?.success());
        row.passed();
    }
    Ok(())
}
