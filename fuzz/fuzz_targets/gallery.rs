//! A gallery that somebody damaged, who can write the file or the memory that inspectors are given: a view or a typed
//! error, after work that the memory's size bounds.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use shmbus::devices::intc::device::{IntcDevice, IntcOptions};
use shmbus::devices::lane::Carrier;
use shmbus::devices::net::device::NetDevice;
use shmbus::devices::timer::device::TimerDevice;
use shmbus::ring::RingKind;
use shmbus::shm::RingFormat;
use shmbus::{Bus, Guest, inspect};
use shmbus_fuzz::tamper;
use shmbus_shm::{Bytes, heap};

/// The bytes of a gallery in which one session is shown.
fn honest() -> &'static [u8] {
    static HONEST: OnceLock<Vec<u8>> = OnceLock::new();
    HONEST.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("shmbus-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        let (socket, file) = (directory.join("bus"), directory.join("gallery"));
        let lines = IntcOptions {
            lines: 3,
            carrier: Carrier::Table,
        };
        let mut bus = Bus::builder()
            .device(NetDevice::with_rings(RingKind::plain(RingFormat::Split), 1500).expect("net"))
            .device(TimerDevice::new(2).expect("a timer"))
            .device(IntcDevice::with(lines).expect("an interrupt controller"))
            .max_guests(2)
            .inspect_file(&file, 0o600)
            .listen(&socket)
            .expect("a bus can be served");
        let (end, ender) = std::io::pipe().expect("a pipe");
        let host = std::thread::spawn(move || bus.run(end));
        let guest = Guest::connect(&socket, "shown", Duration::from_secs(20)).expect("a guest");
        let bytes = loop {
            let bytes = std::fs::read(&file).expect("the file is there");
            if bytes.windows(5).any(|window| window == b"shown") {
                break bytes;
            }
        };
        guest.leave();
        drop(ender);
        host.join().expect("the host ends").expect("by itself");
        let _ = std::fs::remove_dir(&directory);
        bytes
    })
}

fuzz_target!(|input: (u8, Vec<(u16, u16)>)| {
    let (blocks, damage) = input;
    let honest = honest();
    let memory = heap(honest.len());
    let bytes = Bytes::new(&memory, 0, honest.len()).expect("it is as long");
    bytes.copy_from(0, honest);
    // Of a memory that is longer than words have numbers here, one part or another.
    let part = usize::from(blocks) * 65536 % honest.len();
    let window = shmbus_shm::Window::narrow(&memory, part, honest.len() - part);
    tamper(&window.expect("it lies inside"), &damage);
    if let Ok(view) = inspect::look_into(memory) {
        // No area is smaller than the smallest directory.
        assert!(view.guests.len() <= honest.len() / 512);
    }
});
