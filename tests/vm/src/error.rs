//! What can go wrong with a guest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why a guest, or a command in it, did not do what it should.
///
/// Its `Debug` is its `Display`: a test that returns it shows the guest's console as lines.
#[derive(thiserror::Error)]
pub enum Error {
    /// A file of the host's.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The programs for the guest do not build.
    #[error("the guest's programs do not build:\n{output}")]
    Build {
        /// What cargo said.
        output: String,
    },
    /// The host of a bus does not start.
    #[error("the host of a bus does not start:\n{said}")]
    Bus {
        /// What it said.
        said: String,
    },
    /// A kernel has no such module, nor is it built in as far as is known.
    #[error("module {name} is not among the parts of {kernel}: {}", modules.display())]
    NoModule {
        /// The module's name.
        name: String,
        /// The kernel.
        kernel: &'static str,
        /// Where it was looked for.
        modules: PathBuf,
    },
    /// QEMU cannot be started.
    #[error("cannot start QEMU: {0}")]
    Start(io::Error),
    /// The guest ended too early: it crashed, or QEMU did.
    #[error("the guest ended ({status}) during: {during}\n{said}")]
    Ended {
        /// How QEMU ended.
        status: ExitStatus,
        /// What the test was waiting for.
        during: String,
        /// The console, and what QEMU said.
        said: Said,
    },
    /// The guest did not do in time what was waited for, and was killed.
    #[error("nothing within {limit:?} during: {during}\noutput so far:\n{output}\n{said}")]
    Hung {
        /// How long was waited.
        limit: Duration,
        /// What for.
        during: String,
        /// What the command had written.
        output: String,
        /// The console, and what QEMU said.
        said: Said,
    },
    /// A command in the guest failed.
    #[error("`{command}` exited with {status}:\n{output}\n{said}")]
    Command {
        /// The command.
        command: String,
        /// Its exit status, 128 more than the number of the signal that ended it.
        status: i32,
        /// What it wrote.
        output: String,
        /// The console, and what QEMU said.
        said: Said,
    },
}

impl Error {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// All that a guest's console showed, and QEMU's own messages.
pub struct Said(pub(crate) String);

impl Said {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---- the guest's console ----")?;
        for line in self.0.lines() {
            writeln!(f, "  {line}")?;
        }
        write!(f, "---- end of the guest's console ----")
    }
}
