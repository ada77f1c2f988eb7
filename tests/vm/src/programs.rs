//! What runs in guests: static programs of this workspace, built where no other build is disturbed.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::error::Error;
use crate::parts::workspace;

/// It has the C library that Rust programs are linked with, also as a static one.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Those that every guest has.
const PROGRAMS: [&str; 2] = ["shmbus", "shmbus-in-guest"];

/// Builds them if they are missing or older than their source; cargo lets one process at a time do that.
///
/// Their names and where they are.
///
/// # Errors
///
/// [`Error::Build`] with what cargo says.
pub fn build() -> Result<Vec<(String, PathBuf)>, Error> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let directory = workspace().join("target/guest");
    let run = || {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(workspace())
            .args(["build", "--quiet", "--locked", "--profile", "checked"])
            .args(["--target", TARGET])
            .args(["--config", "profile.checked.strip=true"])
            .args(["--package", "shmbus", "--package", "shmbus-vm"])
            .args(PROGRAMS.map(|program| format!("--bin={program}")))
            .env("CARGO_TARGET_DIR", &directory)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let output = command
            .output()
            .map_err(|error| format!("cargo cannot run: {error}"))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    match BUILT.get_or_init(run) {
        Ok(()) => {
            let built = directory.join(TARGET).join("checked");
            let place = |name: &str| (name.to_owned(), built.join(name));
            Ok(PROGRAMS.map(place).to_vec())
        }
        Err(output) => Err(Error::Build {
            output: output.clone(),
        }),
    }
}
