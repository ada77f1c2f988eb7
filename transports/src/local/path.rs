//! The place in the file system where a host listens: taken over from a dead host, never from a live one.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, Stat, chmodat, flock, fstat, lstat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// How many connections the kernel keeps waiting for us.
const BACKLOG: i32 = 128;

/// Why a host cannot listen at a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another host is alive there.
    #[error(
        "another host is listening at {}: stop it, or choose another path",
        .path.display()
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something is there that is no socket.
    #[error(
        "{} exists and is not a socket: remove it, or choose another path",
        .path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The path does not fit a socket address.
    #[error("{} is too long for a socket, whose path has at most 107 bytes", .path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A listening socket's path. The socket file and the lock beside it are removed on drop.
///
/// The lock (`PATH.lock`) says whether the host that made the socket is alive: the kernel releases it when the host dies, however
/// it dies. Two hosts that start at once cannot both take over.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    identity: Identity,
    lock_path: PathBuf,
    lock: OwnedFd,
}

/// Which file it is, whatever its name.
type Identity = (u64, u64);

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

impl SocketPath {
    /// Listens at `path`; `mode` is the socket file's permissions.
    pub(crate) fn listen(path: &Path, mode: u32) -> Result<(OwnedFd, Self), BindError> {
        let failed = |step: &'static str, errno: Errno| BindError::Io {
            step,
            path: path.to_owned(),
            source: errno.into(),
        };
        let address = address(path)?;
        let mut lock_path = OsString::from(path);
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = lock(&lock_path, path)?;

        match lstat(path) {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("look at", errno)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
                return Err(BindError::NotASocket {
                    path: path.to_owned(),
                });
            }
            // The lock is ours, so no host of ours lives here; some other program might.
            Ok(_) if answers(&address).map_err(|errno| failed("make a socket for", errno))? => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                });
            }
            Ok(_) => rustix::fs::unlink(path).map_err(|errno| failed("replace", errno))?,
        }

        let listener = new_socket(SocketFlags::NONBLOCK)
            .map_err(|errno| failed("make a socket for", errno))?;
        bind(&listener, &address).map_err(|errno| failed("create", errno))?;
        let stat = lstat(path).map_err(|errno| failed("look at", errno))?;
        let taken = Self {
            path: path.to_owned(),
            identity: identity(&stat),
            lock_path,
            lock,
        };
        // Nobody can connect before `listen`, so that the permissions hold from the first connection.
        chmodat(
            CWD,
            path,
            Mode::from_raw_mode(mode),
            rustix::fs::AtFlags::empty(),
        )
        .map_err(|errno| failed("set the permissions of", errno))?;
        listen(&listener, BACKLOG).map_err(|errno| failed("listen at", errno))?;
        Ok((listener, taken))
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Only what is still ours; the lock last, and while it is held: see `lock`.
        for (path, ours) in [
            (&self.path, Some(self.identity)),
            (
                &self.lock_path,
                fstat(&self.lock).ok().map(|s| identity(&s)),
            ),
        ] {
            if lstat(path).is_ok_and(|stat| Some(identity(&stat)) == ours) {
                let _ = rustix::fs::unlink(path);
            }
        }
    }
}

/// The address of a path, if it fits.
pub(crate) fn address(path: &Path) -> Result<SocketAddrUnix, BindError> {
    SocketAddrUnix::new(path).map_err(|errno| match errno {
        Errno::NAMETOOLONG => BindError::TooLong {
            path: path.to_owned(),
        },
        errno => BindError::Io {
            step: "use the path",
            path: path.to_owned(),
            source: errno.into(),
        },
    })
}

/// A stream socket that is not inherited by child processes.
pub(crate) fn new_socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn lock(lock_path: &Path, path: &Path) -> Result<OwnedFd, BindError> {
    let failed = |errno: Errno| BindError::Io {
        step: "lock",
        path: lock_path.to_owned(),
        source: errno.into(),
    };
    loop {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(lock_path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed(errno)),
        }
        // A host that left removed the file between our opening and our locking it: that lock locks nobody out.
        let held = fstat(&lock).map_err(failed)?;
        match lstat(lock_path) {
            Ok(stat) if identity(&stat) == identity(&held) => return Ok(lock),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// Whether some program listens at this address. A full backlog, or a socket of another type, is an answer too.
fn answers(address: &SocketAddrUnix) -> rustix::io::Result<bool> {
    let probe = new_socket(SocketFlags::NONBLOCK)?;
    Ok(!matches!(
        connect(&probe, address),
        Err(Errno::CONNREFUSED | Errno::NOENT)
    ))
}
