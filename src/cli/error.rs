//! Errors that the user sees: each says what was wrong and what to do.

use std::io;
use std::path::PathBuf;

use shmbus::devices::ActivateError;
use shmbus::devices::clock::twin::TwinClockError;
use shmbus::devices::clock::{CalibrationError, ClockError};
use shmbus::devices::intc::IntcError;
use shmbus::devices::lane::OutletError;
use shmbus::devices::net::app::fetch::FetchError;
use shmbus::devices::net::app::serve::ServerError;
use shmbus::devices::net::pcap::CaptureError;
use shmbus::devices::net::tap::TapError;
use shmbus::devices::timer::TimerFault;
use shmbus::ring::RingKind;
use shmbus::transports::pci::{Address, FunctionError, Identity};
use shmbus::transports::vfio::OpenError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("cannot find this program's own executable: {0}")]
    OwnExecutable(io::Error),
    #[error("cannot start or wait for {what}: {error}")]
    Spawn { what: String, error: io::Error },
    #[error("cannot read {}: {error}", path.display())]
    ReadFile { path: PathBuf, error: io::Error },
    #[error("{} is empty: give --file a file with something in it", path.display())]
    EmptyFile { path: PathBuf },
    #[error(
        "cannot make a directory for the demo's socket and file: {0} (set TMPDIR to a place where you may write)"
    )]
    Scratch(io::Error),
    #[error("{what} ended before its work was done ({how}); its last words:\n{log}")]
    ChildFailed {
        what: String,
        how: String,
        log: String,
    },
    #[error("the demo made no progress for {seconds} s; what its processes said last:\n{log}")]
    Stuck { seconds: u64, log: String },
    #[error("the file that arrived is not the file that was sent")]
    ChecksumDiffers,
    #[error("expected a SHA-256 of 64 hexadecimal digits, found {found:?}")]
    BadChecksum { found: String },
    #[error("the bus has no {kind} device: start the host with --device {kind}")]
    NoDevice { kind: &'static str },
    #[error(
        "the bus's time was outside the bound that it claimed in {outside} of {readings} readings"
    )]
    OutsideBound { outside: u64, readings: u64 },
    #[error("the command says neither --socket nor --pci")]
    NoPlace,
    #[error("there is no PCI function {address}: {error} (`lspci -D` lists them)")]
    NoFunction { address: Address, error: io::Error },
    #[error("no bus is behind the PCI function {address}, which is {found}")]
    NoBusBehind { address: Address, found: Identity },
    #[error(
        "the driver {driver} has the PCI function {address}: give it to VFIO, by `shmbus pci bind {address}`"
    )]
    OtherDriver { address: Address, driver: String },
    #[error(transparent)]
    Function(FunctionError),
    #[error(transparent)]
    Vfio(#[from] OpenError),
    #[error(
        "the host is gone; QEMU connects to a host once, so this virtual machine is to be started again"
    )]
    HostGoneForGood,
    #[error("what the host's clock showed in an exchange cannot be told: {0}")]
    HostsTime(String),
    #[error("options for a network card, or a prefix, were given for a bus")]
    ForCards,
    #[error("a network card needs an address: `--address ADDRESS/PREFIX`")]
    NoAddress,
    #[error("virtio devices have no {ring} rings")]
    NotVirtio { ring: RingKind },
    #[error("cannot write the result: {0}")]
    Output(io::Error),
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    #[error("the timer did not fire within {seconds} s after its deadline")]
    TimerSilent { seconds: u64 },
    #[error("the counter cannot be calibrated: {0}")]
    Calibration(CalibrationError),
    #[error("a device cannot be made: {0}")]
    Device(Box<dyn std::error::Error>),
    #[error(transparent)]
    Tap(TapError),
    #[error("the switch: {0}")]
    Uplink(ActivateError),
    #[error(transparent)]
    Capture(CaptureError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Serve(#[from] ServerError),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error("the clock's twin: {0}")]
    TwinClock(#[from] TwinClockError),
    #[error("the timer: {0}")]
    Deadline(#[from] OutletError),
    #[error("the timer device: {0}")]
    Timer(#[from] TimerFault),
    #[error("the interrupt controller has {lines} lines; there is no line {line}")]
    NoLine { line: u32, lines: u32 },
    #[error("the interrupt controller: {0}")]
    Interrupts(#[from] IntcError),
    #[error(transparent)]
    Network(Box<shmbus::NetworkError>),
    #[error("{address} did not answer: is that guest on the bus, and is it {address}?")]
    NoAnswer { address: String },
    #[error(transparent)]
    Host(#[from] shmbus::HostError),
    #[error(transparent)]
    Guest(#[from] shmbus::GuestError),
    #[error(transparent)]
    Pci(#[from] shmbus::transports::pci::SysfsError),
    #[error(transparent)]
    Inspect(#[from] shmbus::InspectError),
}

impl From<shmbus::NetworkError> for CliError {
    fn from(error: shmbus::NetworkError) -> Self {
        Self::Network(Box::new(error))
    }
}

impl CliError {
    /// Whether nobody reads any more what is written: `shmbus inspect | head` has seen enough.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// A device's own error, of whatever type.
    pub(crate) fn device(error: impl std::error::Error + 'static) -> Self {
        Self::Device(Box::new(error))
    }
}
