//! Our driver for network cards, in real guests, over QEMU's own virtio-net-pci: a file over TCP in and out, SHA-256
//! compared, with whatever the card and the driver can be told to do or to leave.

mod queues;
mod web;

use std::time::{Duration, Instant};

use shmbus_vm::{Error, Guest, Interop, Kernel, Machine, Parts, Qemu, matrix};

use web::{Web, noise, sha256};

/// Where QEMU's own network has this machine, and the guest.
const HOST: &str = "10.0.2.2";
const GUEST: &str = "10.0.2.15/24";

/// Bytes of a file.
const FILE_BYTES: usize = 3 << 20;

/// How long a transfer may take: a guest without hardware support is slow, and may share its processor.
const TRANSFER: Duration = Duration::from_secs(100);

/// What the program in a guest says that it has done.
#[derive(Debug)]
struct Told {
    text: String,
}

impl Told {
    /// The number before words that stand in a line which begins with `line`.
    fn number(&self, line: &str, words: &str) -> u64 {
        let found = self.text.lines().find_map(|text| {
            let (_, text) = text.split_once(line)?;
            let (before, _) = text.split_once(words)?;
            before.rsplit(' ').next()?.parse().ok()
        });
        found.unwrap_or_else(|| panic!("no {words:?} of {line:?} in\n{}", self.text))
    }

    fn interrupts(&self, of: &str) -> u64 {
        self.number("interrupts:", &format!(" {of}"))
    }

    /// Frames that came, that came merged, and that went, through a pair.
    fn pair(&self, number: u16) -> [u64; 3] {
        let line = format!("queue pair {number}:");
        [" frames received", " of them merged", " sent"].map(|words| self.number(&line, words))
    }

    fn has(&self, feature: &str) -> bool {
        let line = self.text.lines().find(|line| line.contains(" rings: "));
        let names = line.and_then(|line| line.split_once(" rings: "));
        names.is_some_and(|(_, names)| names.trim().split(',').any(|name| name == feature))
    }
}

const PEER: &str = "QEMU's virtio-net-pci";

/// Bytes in a time, as a figure.
fn speed(bytes: usize, time: Duration) -> String {
    format!("{:.1} MB/s", bytes as f64 / 1e6 / time.as_secs_f64())
}

/// Has the guest fetch the file, and checks what every fetch must show.
fn fetch(guest: &Guest, slot: u8, options: &str, web: &Web) -> Result<Told, Error> {
    let row = Interop::new(PEER, guest.name()).feature(options);
    let began = Instant::now();
    let text = guest.succeed_within(
        TRANSFER,
        &format!(
            "shmbus guest --pci 0000:00:{slot:02x}.0 net --address {GUEST} --gateway {HOST} {options} \
             fetch {HOST}:{}/file --sink discard --sha256 {}",
            web.port(),
            sha256(web.file())
        ),
    )?;
    let time = began.elapsed();
    let told = Told { text };
    let [received, merged, sent] = told.pair(1);
    assert!(told.interrupts("receive") > 0, "{}", told.text);
    assert_eq!(told.interrupts("shared"), 0, "{}", told.text);
    row.figure("in", speed(web.file().len(), time))
        .figure("frames received", received)
        .figure("of them merged", merged)
        .figure("frames sent", sent)
        .figure("interrupts for frames received", told.interrupts("receive"))
        .figure("notifications", told.interrupts("notifications"))
        .passed();
    Ok(told)
}

/// What a card is, and how it is driven: options of the device, of the program, and features that must be there or not.
struct Case {
    slot: u8,
    options: &'static str,
    has: &'static [&'static str],
    lacks: &'static [&'static str],
    merges: bool,
}

const CASES: [Case; 8] = [
    // A split card.
    Case {
        slot: 2,
        options: "--ring split",
        has: &["mrg-rxbuf", "indirect", "event-idx"],
        lacks: &["mq"],
        merges: false,
    },
    Case {
        slot: 2,
        options: "--without event-idx,indirect,mrg-rxbuf",
        has: &[],
        lacks: &["mrg-rxbuf", "indirect", "event-idx"],
        merges: false,
    },
    Case {
        slot: 2,
        options: "--receive-buffer 256 --require mrg-rxbuf",
        has: &["mrg-rxbuf", "indirect"],
        lacks: &[],
        merges: true,
    },
    Case {
        slot: 2,
        options: "--receive-buffer 1024 --without indirect,event-idx",
        has: &["mrg-rxbuf"],
        lacks: &["indirect", "event-idx"],
        merges: true,
    },
    // A packed one.
    Case {
        slot: 3,
        options: "--ring packed",
        has: &["mrg-rxbuf", "indirect", "event-idx"],
        lacks: &[],
        merges: false,
    },
    Case {
        slot: 3,
        options: "--ring packed --without indirect,event-idx,mrg-rxbuf",
        has: &[],
        lacks: &["indirect", "event-idx", "mrg-rxbuf"],
        merges: false,
    },
    Case {
        slot: 3,
        options: "--ring packed --receive-buffer 256",
        has: &["mrg-rxbuf", "event-idx"],
        lacks: &[],
        merges: true,
    },
    // The packed card, with the other format.
    Case {
        slot: 3,
        options: "--ring split",
        has: &["mrg-rxbuf"],
        lacks: &[],
        merges: false,
    },
];

fn machine(parts: &Parts, qemu: Qemu, kernel: Kernel) -> Machine {
    Machine::new(parts, qemu, kernel).vfio("1af4 1041")
}

const CARD: &str = "virtio-net-pci,disable-legacy=on,iommu_platform=on,romfile=";

#[test]
fn a_file_comes_into_the_guest() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let web = Web::serve("127.0.0.1", noise(FILE_BYTES));
    for (qemu, kernel) in matrix() {
        let guest = machine(&parts, qemu, kernel)
            .netdev("user,id=split")
            .netdev("user,id=packed")
            .device(&format!("{CARD},addr=2,netdev=split,packed=off"))
            .device(&format!("{CARD},addr=3,netdev=packed,packed=on"))
            .boot()?;
        for case in &CASES {
            let told = fetch(&guest, case.slot, case.options, &web)?;
            for (features, expected) in [(case.has, true), (case.lacks, false)] {
                for feature in features {
                    assert_eq!(told.has(feature), expected, "{feature}: {}", told.text);
                }
            }
            let [received, merged, _] = told.pair(1);
            // All but the smallest frames are longer than such a buffer.
            let expected = if case.merges {
                received / 2..=received
            } else {
                0..=0
            };
            assert!(expected.contains(&merged), "{}", told.text);
        }
    }
    Ok(())
}

/// Buffers used in order, which newer QEMUs offer when they are told to.
#[test]
fn a_file_comes_in_order() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let web = Web::serve("127.0.0.1", noise(FILE_BYTES));
    let guest = machine(&parts, Qemu::V11_1, Kernel::V7_2)
        .netdev("user,id=split")
        .netdev("user,id=packed")
        .device(&format!("{CARD},addr=2,netdev=split,in_order=on"))
        .device(&format!(
            "{CARD},addr=3,netdev=packed,in_order=on,packed=on"
        ))
        .boot()?;
    for (slot, options) in [
        (2, "--ring split-inorder"),
        (2, "--ring split-inorder --receive-buffer 256"),
        (3, "--ring packed-inorder"),
        (3, "--ring packed-inorder --receive-buffer 256"),
    ] {
        let told = fetch(&guest, slot, options, &web)?;
        assert!(told.has("in-order"), "{}", told.text);
        let [_, merged, _] = told.pair(1);
        assert_eq!(merged > 0, options.contains("buffer"), "{}", told.text);
    }
    Ok(())
}

#[test]
fn a_file_goes_out_of_the_guest() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let file = noise(FILE_BYTES);
    for (qemu, kernel) in matrix() {
        let ports = [web::free_port(), web::free_port()];
        let mut machine = machine(&parts, qemu, kernel).file("/srv/file", file.clone());
        for (port, (slot, packed)) in ports.iter().zip([(2, "off"), (3, "on")]) {
            machine = machine
                .netdev(&format!(
                    "user,id=net{port},hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:80"
                ))
                .device(&format!(
                    "{CARD},addr={slot},netdev=net{port},packed={packed}"
                ));
        }
        let guest = machine.boot()?;
        for (slot, port, options) in [
            (2, ports[0], "--require indirect,event-idx"),
            (
                2,
                ports[0],
                "--without indirect,event-idx --receive-buffer 128",
            ),
            (3, ports[1], "--ring packed --require indirect,event-idx"),
            (3, ports[1], "--ring packed --without indirect,event-idx"),
        ] {
            let row = Interop::new(PEER, guest.name()).feature(options);
            let server = guest.start_command(&format!(
                "shmbus guest --pci 0000:00:{slot:02x}.0 net --address {GUEST} --gateway {HOST} {options} serve /srv"
            ))?;
            server.wait_for("serving")?;
            let began = Instant::now();
            let fetched = web::get(("127.0.0.1", port), "/file", TRANSFER);
            let time = began.elapsed();
            assert_eq!(sha256(&fetched), sha256(&file), "{}", server.output());
            server.signal(15)?;
            let text = server.succeed_within(TRANSFER)?;
            let told = Told { text };
            let [received, _, sent] = told.pair(1);
            assert!(sent as usize > file.len() / 1460, "{}", told.text);
            row.figure("out", speed(file.len(), time))
                .figure("frames received", received)
                .figure("frames sent", sent)
                .figure("interrupts for frames received", told.interrupts("receive"))
                .figure("interrupts for frames sent", told.interrupts("transmit"))
                .figure("notifications", told.interrupts("notifications"))
                .passed();
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_had_is_said() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    let (qemu, kernel) = (Qemu::V11_1, Kernel::V7_2);
    let guest = machine(&parts, qemu, kernel)
        .netdev("user,id=net")
        .netdev("user,id=open")
        .device(&format!("{CARD},addr=2,netdev=net"))
        .device("virtio-net-pci,disable-legacy=on,romfile=,addr=3,netdev=open")
        .boot()?;
    let address = "--address 10.0.2.15/24";
    for (slot, options, reason) in [
        (2, "", "needs an address"),
        (2, "--address 10.0.2.15/24 --queue-pairs 2", "are required"),
        (2, "--address 10.0.2.15/24 --ring packed", "are required"),
        (2, "--address 10.0.2.15/24 --ring tagged", "no tagged rings"),
        (
            2,
            "--address 10.0.2.15/24 --receive-buffer 256 --without mrg-rxbuf",
            "VIRTIO_NET_F_MRG_RXBUF",
        ),
        (
            2,
            "--address 10.0.2.15/24 --receive-buffer 100",
            "multiple of 64",
        ),
        (2, "--address 224.0.0.1", "own IP address"),
        // It would take I/O virtual addresses for physical ones.
        (3, address, "ACCESS_PLATFORM"),
        (31, "", "no bus"),
        (30, address, "there is no PCI function"),
    ] {
        let command =
            format!("shmbus guest --pci 0000:00:{slot:02x}.0 net {options} ping 10.0.2.2");
        let finished = guest.run(&command)?;
        assert_ne!(finished.status, 0, "{command}: {}", finished.text());
        assert!(
            finished.text().contains(reason),
            "{command}: {}",
            finished.text()
        );
    }
    // The card is none the worse for it.
    let pinged = guest.succeed(&format!(
        "shmbus guest --pci 0000:00:02.0 net {address} ping --count 3 10.0.2.2"
    ))?;
    assert!(pinged.contains("3 asked, 3 answered"), "{pinged}");
    Ok(())
}
