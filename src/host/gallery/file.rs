//! A gallery's memory as a file, for who wants a path: QEMU's `memory-backend-file`.
//!
//! A file cannot be sealed. Its permissions say who may write it: this program's user, and nobody else. The host never
//! reads it; but whoever shortens it ends the host, by a SIGBUS.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, Stat, fallocate, flock, fstat,
    lstat, openat, unlink,
};
use rustix::io::Errno;
use shmbus_shm::{Mapped, map_file};

use crate::gallery::GALLERY_MAGIC;

/// A file for inspectors cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum InspectFileError {
    /// A host that lives has it.
    #[error("another host shows its bus in {}: choose another file", .path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is something that no host of ours made.
    #[error("{} exists and is no bus that a host showed: remove it, or choose another file", .path.display())]
    NotOurs {
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

/// A file that this host alone has, mapped. It is removed on drop.
///
/// It is locked as long as the host lives, however that ends: so a host that starts can tell a file that a dead one left.
#[derive(Debug)]
pub(crate) struct InspectFile {
    path: PathBuf,
    file: File,
    window: Mapped,
}

/// Which file it is, whatever its name.
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl InspectFile {
    /// Creates the file at `path`, of `bytes` zeroes, all of which are there: a file system that is full later does no harm. One
    /// that a dead host left is replaced.
    ///
    /// # Errors
    ///
    /// [`InspectFileError`].
    pub(crate) fn create(path: &Path, bytes: u64, mode: u32) -> Result<Self, InspectFileError> {
        let failed = |step| {
            move |errno: Errno| InspectFileError::Io {
                step,
                path: path.to_owned(),
                source: errno.into(),
            }
        };
        remove_stale(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(CWD, path, flags, Mode::from_raw_mode(mode)).map_err(failed("create"))?;
        let file = File::from(file);
        // Whatever fails from here on, the file is not left behind.
        let made = lock_new(path, &file).and_then(|()| {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
                .map_err(failed("set the permissions of"))?;
            fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(failed("make room in"))?;
            let len = usize::try_from(bytes).map_err(|_| failed("map")(Errno::OVERFLOW))?;
            map_file(file.as_fd(), len, true).map_err(|source| InspectFileError::Io {
                step: "map",
                path: path.to_owned(),
                source,
            })
        });
        match made {
            Ok(window) => Ok(Self {
                path: path.to_owned(),
                file,
                window,
            }),
            Err(error) => {
                remove_if_ours(path, &file);
                Err(error)
            }
        }
    }

    pub(crate) fn window(&self) -> &Mapped {
        &self.window
    }
}

impl Drop for InspectFile {
    fn drop(&mut self) {
        remove_if_ours(&self.path, &self.file);
    }
}

fn remove_if_ours(path: &Path, file: &File) {
    let ours = fstat(file).ok().map(|stat| identity(&stat));
    if lstat(path).is_ok_and(|stat| Some(identity(&stat)) == ours) {
        let _ = unlink(path);
    }
}

/// Locks a file that was just made; a host that starts at the same time may have taken it for one that was left.
fn lock_new(path: &Path, file: &File) -> Result<(), InspectFileError> {
    let in_use = || InspectFileError::InUse {
        path: path.to_owned(),
    };
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|_| in_use())?;
    let ours = fstat(file).ok().map(|stat| identity(&stat));
    match lstat(path) {
        Ok(stat) if Some(identity(&stat)) == ours => Ok(()),
        _ => Err(in_use()),
    }
}

/// Removes what a dead host left at `path`.
fn remove_stale(path: &Path) -> Result<(), InspectFileError> {
    let failed = |step| {
        move |errno: Errno| InspectFileError::Io {
            step,
            path: path.to_owned(),
            source: errno.into(),
        }
    };
    let not_ours = || InspectFileError::NotOurs {
        path: path.to_owned(),
    };
    let stat = match lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("look at")(errno)),
        Ok(stat) => stat,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_ours());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let old = openat(CWD, path, flags, Mode::empty()).map_err(failed("open"))?;
    match flock(&old, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(InspectFileError::InUse {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(failed("lock")(errno)),
    }
    let old = File::from(old);
    let mut first = [0; 8];
    let read = std::os::unix::fs::FileExt::read_exact_at(&old, &mut first, 0);
    if read.is_err() || u64::from_le_bytes(first) != GALLERY_MAGIC {
        return Err(not_ours());
    }
    // While it is locked: no other host takes it for its own, and what is removed is what was looked at.
    if lstat(path).is_ok_and(|now| identity(&now) == identity(&stat)) {
        unlink(path).map_err(failed("replace"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{metadata, write};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_file_of_a_dead_host_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let file = InspectFile::create(&path, 8192, 0o640).unwrap();
        let found = metadata(&path).unwrap();
        assert_eq!(
            (found.len(), found.permissions().mode() & 0o777),
            (8192, 0o640)
        );
        assert!(matches!(
            InspectFile::create(&path, 8192, 0o600),
            Err(InspectFileError::InUse { .. })
        ));
        drop(file);
        assert!(!path.exists());

        for contents in [&b"something"[..], b"short", b""] {
            write(&path, contents).unwrap();
            assert!(matches!(
                InspectFile::create(&path, 8192, 0o600),
                Err(InspectFileError::NotOurs { .. })
            ));
        }
        // As a dead host leaves it: not locked.
        write(&path, GALLERY_MAGIC.to_le_bytes()).unwrap();
        let old = File::open(&path).unwrap();
        let file = InspectFile::create(&path, 8192, 0o600).unwrap();
        let mut first = [1; 8];
        old.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(
            u64::from_le_bytes(first),
            GALLERY_MAGIC,
            "who has the old one keeps it"
        );
        File::open(&path)
            .unwrap()
            .read_exact_at(&mut first, 0)
            .unwrap();
        assert_eq!(first, [0; 8]);

        // What somebody else has put there stays.
        std::fs::remove_file(&path).unwrap();
        write(&path, "else").unwrap();
        drop(file);
        assert!(path.exists());

        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            InspectFile::create(&link, 8192, 0o600),
            Err(InspectFileError::NotOurs { .. })
        ));
    }
}
