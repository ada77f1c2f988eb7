//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use shmbus::devices::clock::{ClockKind, EstimateLimits};
use shmbus::ring::RingKind;
use shmbus::transports::pci::Address;
use shmbus::virtio::Features;

use super::device_spec::DeviceSpec;
use super::guest::{LineSpec, StackAddress, feature};
use super::guest_counter::{GuestCounter, clock_kind, scale};
use super::ivshmem_spec::IvshmemSpec;
use super::pci::PciArgs;
use super::ring_format::ring_kind;
use super::url::Url;

/// A shared-memory bus for virtual machines: rings and latest-value tables between processes that do not trust each
/// other.
///
/// Start with `shmbus demo`. By hand, in three terminals: `shmbus host --socket /tmp/bus --device net --device clock
/// --device timer`, then `shmbus guest --socket /tmp/bus net serve .`, then `shmbus guest --socket /tmp/bus net fetch
/// 10.111.0.1:80/Cargo.toml`. `RUST_LOG=debug` shows what happens.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do the main job in one command: a host and some guests on one bus, a file over TCP between them, verified.
    Demo(DemoArgs),
    /// Serve devices on a bus, for guests that connect to a socket.
    Host(HostArgs),
    /// Be a guest: use the devices of a bus.
    Guest(GuestArgs),
    /// Look at a running bus from outside: its directory, ring positions and table values, all read-only.
    Inspect(InspectArgs),
    /// List and decode PCI functions; give them to vfio-pci, and back.
    Pci(PciArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The file that the guests transfer [default: this program's own executable].
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// How many guest processes: one serves the file, the others fetch it.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=32))]
    pub(crate) guests: u16,
    /// Fetch the file again and again for this many seconds; 0: once.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) seconds: u64,
    /// What the rings between host and guests are: split, split-inorder, packed, packed-inorder or tagged.
    #[arg(long, value_name = "FORMAT", default_value = "split", value_parser = ring_kind)]
    pub(crate) ring: RingKind,
    /// Give the bus a port on this TAP interface, so that the machine's own kernel is a peer too.
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
    /// Print the summary as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Where guests connect that are processes: the path of a UNIX socket, which is created.
    #[arg(long, value_name = "PATH", required_unless_present = "ivshmem")]
    pub(crate) socket: Option<PathBuf>,
    /// Where QEMU's ivshmem-doorbell connects (with `vectors=4`), for guests in virtual machines: a UNIX socket, which is
    /// created. It may be given several times. Each guest gets a memory of its own; with `shared` all have one, and reach
    /// each other's areas in it. A memory is as large as it needs to be, up to 256 MiB, or SIZE; 16 guests at a time, or
    /// max-guests.
    #[arg(long, value_name = "PATH[,shared][,size=MIB][,max-guests=N]")]
    pub(crate) ivshmem: Vec<IvshmemSpec>,
    /// A device to serve: net, clock, timer or intc; `KIND:COUNT` for several of a kind. Give it once for each kind. The net
    /// device's rings are split, split-inorder, packed, packed-inorder or tagged: `net,ring=FORMAT`. A timer has tables
    /// for each of a guest's virtual CPUs: `timer,vcpus=N`. For comparison clock, timer and intc also come over rings of
    /// which every element is acted on, or the last: `timer,over=ring-every` or `over=ring-last`, with
    /// `ring=FORMAT,size=ENTRIES`.
    /// An interrupt controller has 256 lines for each guest, or as many as `intc,lines=N` says.
    #[arg(
        long = "device",
        value_name = "KIND[:COUNT][,OPTION=VALUE]...",
        required = true
    )]
    pub(crate) devices: Vec<DeviceSpec>,
    /// Give the switch a port on this TAP interface (needs the right to use it).
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
    /// Record every frame that crosses the switch to this .pcap file.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Send the frames of this .pcap file into the switch, once, at their pace, when the first guest is on the network.
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    /// The largest packet, without the Ethernet header, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..=65521))]
    pub(crate) mtu: u16,
    /// How the guests' counters relate to the host's: `same`; `unknown`, and the guests estimate; or `SCALE:OFFSET`,
    /// the host's counter being SCALE times the guest's, plus OFFSET [default: same; unknown with --ivshmem].
    #[arg(long, value_name = "RELATION", allow_hyphen_values = true)]
    pub(crate) guest_counter: Option<GuestCounter>,
    /// Give each guest a VMClock page of this clock besides: utc, tai or monotonic.
    #[arg(long, value_name = "CLOCK", value_parser = clock_kind)]
    pub(crate) vmclock: Option<ClockKind>,
    /// Show the bus in this file too, for `inspect --file` and, as the memory of an ivshmem function, for `inspect --pci` in a
    /// virtual machine. A file in /dev/shm is memory; it is removed at the end.
    #[arg(long, value_name = "PATH")]
    pub(crate) inspect_file: Option<PathBuf>,
    /// That file's permissions. Whoever may write it can end the host.
    #[arg(long, value_name = "OCTAL", default_value = "600", value_parser = permissions)]
    pub(crate) inspect_mode: u32,
    /// How many guests may be on the bus at a time over --socket.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=250))]
    pub(crate) max_guests: u16,
    /// Stop when standard input closes: for a parent process that must not leave a host behind.
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

/// Where the bus is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// The host's socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// In a virtual machine, the PCI function that leads to the host, such as 0000:00:03.0.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) pci: Option<Address>,
}

#[derive(Debug, Args)]
pub(crate) struct GuestArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The name by which inspectors know this guest [default: guest-PID].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Report progress and the result as JSON lines on standard error: for a parent process.
    #[arg(long, hide = true)]
    pub(crate) report: bool,
    #[command(subcommand)]
    pub(crate) action: GuestAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GuestAction {
    /// Show the bus's time, extrapolated without a system call, beside this machine's own clock, or, in a virtual machine,
    /// beside the host's. Fails if it ever lies outside the bound that it claims.
    Clock {
        /// How many readings to show, one a second.
        #[arg(long, value_name = "N", default_value_t = 5)]
        count: u32,
        /// Count with another counter, as in a virtual machine: so many of its ticks for each of this machine's.
        #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = scale)]
        counter_scale: f64,
        /// The same, from another start: so many ticks are added.
        #[arg(
            long,
            value_name = "N",
            default_value_t = 0,
            allow_hyphen_values = true
        )]
        counter_offset: i64,
        /// The largest bound on an estimate of the counter that is accepted, in nanoseconds.
        #[arg(long, value_name = "NS", default_value_t = EstimateLimits::default().max_error_ns)]
        max_error: u64,
    },
    /// Set deadlines, supersede them, and show how late they fire.
    Timer {
        /// How many deadlines to let fire.
        #[arg(long, value_name = "N", default_value_t = 100)]
        count: u32,
        /// How far ahead each deadline is, in microseconds.
        #[arg(long, value_name = "US", default_value_t = 1000)]
        ahead: u64,
    },
    /// Measure the way to the host: doorbells there and back, an answer in memory, a reading of the clock.
    Bench {
        /// How often each is measured.
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rounds: u32,
        /// Print one JSON object, in nanoseconds.
        #[arg(long)]
        json: bool,
    },
    /// Take interrupts, or raise them at the other guests.
    Intc {
        #[command(subcommand)]
        action: IntcAction,
    },
    /// Talk TCP/IP through the bus's network, or through a virtio network card behind --pci.
    Net(NetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NetArgs {
    /// This guest's address [default on a bus: 10.111.0.N, N the number of its port]. A card needs one; without a prefix,
    /// 24 bits of it name the network.
    #[arg(long, value_name = "ADDRESS[/PREFIX]")]
    pub(crate) address: Option<StackAddress>,
    #[command(flatten)]
    pub(crate) card: CardArgs,
    #[command(subcommand)]
    pub(crate) action: NetAction,
}

/// How a network card is driven.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a network card")]
pub(crate) struct CardArgs {
    /// Where packets to other networks go.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<Ipv4Addr>,
    /// How many queue pairs to use [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) queue_pairs: Option<u16>,
    /// What the rings must be: split, split-inorder, packed or packed-inorder [default: what the card has].
    #[arg(long, value_name = "FORMAT", value_parser = ring_kind)]
    pub(crate) ring: Option<RingKind>,
    /// Features that are not accepted, by name: csum, guest-csum, mtu, mac, mrg-rxbuf, status, mq, indirect, event-idx,
    /// in-order.
    #[arg(long, value_name = "FEATURE,...", value_delimiter = ',', value_parser = feature)]
    pub(crate) without: Vec<Features>,
    /// Features that must be negotiated.
    #[arg(long, value_name = "FEATURE,...", value_delimiter = ',', value_parser = feature)]
    pub(crate) require: Vec<Features>,
    /// Bytes of a receive buffer, a multiple of 64. Frames that are longer need the feature mrg-rxbuf [default: as long as
    /// a frame].
    #[arg(long, value_name = "BYTES")]
    pub(crate) receive_buffer: Option<u32>,
}

impl CardArgs {
    /// Whether any of them was given.
    pub(crate) fn is_given(&self) -> bool {
        self.gateway.is_some()
            || self.queue_pairs.is_some()
            || self.ring.is_some()
            || !self.without.is_empty()
            || !self.require.is_empty()
            || self.receive_buffer.is_some()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum IntcAction {
    /// Unmask lines, and show each interrupt: how many edges it stands for, and whether the level is up.
    Watch {
        /// The lines, each with its priority from 0 (most urgent) to 31 [default: all lines, with priority 31].
        #[arg(value_name = "LINE[:PRIORITY]")]
        lines: Vec<LineSpec>,
        /// Stop after so many interrupts [default: on Ctrl-C].
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Raise edges of a line at all other guests.
    Raise {
        /// The line.
        line: u32,
        /// How many edges, one right after the other.
        #[arg(long, value_name = "N", default_value_t = 1)]
        edges: u32,
    },
    /// Assert the level of a line at all other guests for a while.
    Hold {
        /// The line.
        line: u32,
        /// How long.
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        seconds: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetAction {
    /// Send ICMP echo requests.
    Ping {
        /// Whom to ask.
        address: Ipv4Addr,
        /// How many requests, one every 200 ms.
        #[arg(long, value_name = "N", default_value_t = 5)]
        count: u16,
    },
    /// Fetch a file over HTTP, to standard output.
    Fetch {
        /// HOST[:PORT]/PATH, HOST an IPv4 address.
        url: Url,
        /// Fetch it again and again for this many seconds.
        #[arg(long, value_name = "S", hide = true)]
        seconds: Option<u64>,
        /// Where the file goes.
        #[arg(long, value_enum, default_value_t = Sink::Stdout, hide = true)]
        sink: Sink,
        /// The SHA-256 that the file must have, in hexadecimal.
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
    },
    /// Serve the files of a directory over HTTP.
    Serve {
        /// The directory.
        directory: PathBuf,
        /// The TCP port.
        #[arg(long, value_name = "PORT", default_value_t = 80)]
        port: u16,
    },
}

/// Where a fetched file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sink {
    /// Standard output.
    Stdout,
    /// Nowhere: only its checksum matters.
    Discard,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) place: InspectPlace,
    /// Print one JSON object; with --watch one a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Look again every so many seconds, in place on a terminal; without --json, only at what moves.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
}

/// Where the bus is looked at.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct InspectPlace {
    /// The host's socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The file that the host was given as --inspect-file.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// In a virtual machine, the ivshmem function whose memory that file is, such as 0000:00:03.0.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) pci: Option<Address>,
}

/// A file's permissions, as chmod takes them.
fn permissions(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "expected octal digits, 777 at most".to_owned())
}

/// A period, in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (0.01..=3600.0).contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds from 0.01 to 3600".to_owned())
}
