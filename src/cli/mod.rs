//! The program: what each command does.

mod args;
mod demo;
mod device_spec;
mod error;
mod guest;
mod guest_counter;
mod hex;
mod host;
mod inspect;
mod ivshmem_spec;
mod pci;
mod report;
mod ring_format;
mod stop;
mod url;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::args::{Cli, Command};
pub(crate) use self::error::CliError;

/// Does what the command line says.
pub(crate) fn run() -> Result<(), CliError> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        // Also where another crate of the build has asked for colours.
        .with_ansi(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Host(args) => host::run(&args),
        Command::Guest(args) => guest::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Pci(args) => pci::run(&args),
    }
}
