//! Shared memory as sealed memfds, one for each writing side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::Errno;

use crate::address::Access;
use crate::mapped::Mapped;
use crate::mapping::map;
use crate::window::Window;

/// What `fstatfs` says of a memfd of ordinary pages (`TMPFS_MAGIC` of Linux's `magic.h`). Huge pages are another file
/// system; there, a hole that the peer punches is a SIGBUS once the pool is empty.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Who may write to a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Only the process that creates it: nobody else ever gets a writable mapping, whatever he does to his descriptor.
    Creator,
    /// Whoever gets the descriptor.
    Everybody,
}

/// Why a memory could not be created or was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The operating system refused something.
    #[error("cannot {doing} a shared memory of {bytes} bytes")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// How large the memory is, or was to be.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// No memory can have this size.
    #[error("{bytes} bytes are no size for a shared memory")]
    Size {
        /// The size that was asked for or announced.
        bytes: u64,
    },
    /// The descriptor is no memfd of ordinary pages.
    #[error("the descriptor is not a memfd of ordinary pages")]
    NotMemfd,
    /// The memfd is not sealed as it must be.
    #[error("the memfd is not sealed against {against} ({seal})")]
    Unsealed {
        /// What its owner could still do.
        against: &'static str,
        /// The seal's name in `fcntl(2)`.
        seal: &'static str,
    },
    /// The memfd does not have the size that its owner announced.
    #[error("the memfd has {found} bytes; {expected} were announced")]
    WrongSize {
        /// What was announced, in bytes.
        expected: u64,
        /// What was found, in bytes.
        found: u64,
    },
}

/// A memory that several processes map, and the descriptor that it is passed on with.
///
/// It cannot shrink, so no access to its window is ever a SIGBUS. Windows cloned from it keep it mapped after it is
/// dropped.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    window: Mapped,
}

impl SharedMemory {
    /// Creates a zeroed memory of `bytes` bytes, mapped for reading and writing. `name` is what `/proc` shows.
    ///
    /// Its size is sealed at once. With [`Writers::Creator`] writing is sealed too, once our own mapping is there.
    /// The seals are then sealed themselves.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Size`] and [`MemoryError::System`].
    pub fn create(name: &str, bytes: u64, writers: Writers) -> Result<Self, MemoryError> {
        let len = mappable(bytes)?;
        let failed = |doing| {
            move |error: Errno| MemoryError::System {
                doing,
                bytes,
                source: error.into(),
            }
        };
        let fd = create_sealable(name).map_err(failed("create"))?;
        ftruncate(&fd, bytes).map_err(failed("size"))?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(failed("seal"))?;
        let window = map_memory(&fd, len, true)?;
        // F_SEAL_FUTURE_WRITE leaves the mapping that exists alone; F_SEAL_WRITE would refuse to be set.
        let seals = match writers {
            Writers::Creator => SealFlags::FUTURE_WRITE | SealFlags::SEAL,
            Writers::Everybody => SealFlags::SEAL,
        };
        fcntl_add_seals(&fd, seals).map_err(failed("seal"))?;
        Ok(Self { fd, window })
    }

    /// Takes in a memory that a peer created and announced with `bytes` bytes, and maps it.
    ///
    /// The descriptor must be a memfd of ordinary pages that its owner cannot shrink. One that is taken in for reading
    /// must also be sealed against further writers: a section has one writing side, and the descriptor may be passed
    /// on to third parties. Check `bytes` against a quota first.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] for whatever does not hold.
    pub fn from_peer(fd: OwnedFd, bytes: u64, access: Access) -> Result<Self, MemoryError> {
        let len = mappable(bytes)?;
        let status = fstatfs(&fd).map_err(|_| MemoryError::NotMemfd)?;
        if status.f_type as u64 != TMPFS_MAGIC {
            return Err(MemoryError::NotMemfd);
        }
        // Files of a mounted tmpfs have this call too, but cannot be sealed against anything.
        let seals = fcntl_get_seals(&fd).map_err(|_| MemoryError::NotMemfd)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MemoryError::Unsealed {
                against: "shrinking",
                seal: "F_SEAL_SHRINK",
            });
        }
        if !access.writes() && !seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE) {
            return Err(MemoryError::Unsealed {
                against: "other writers",
                seal: "F_SEAL_FUTURE_WRITE",
            });
        }
        // Read after the seal was seen: from then on the size can only grow.
        let found = fstat(&fd).map_err(|_| MemoryError::NotMemfd)?.st_size as u64;
        if found != bytes {
            return Err(MemoryError::WrongSize {
                expected: bytes,
                found,
            });
        }
        let window = map_memory(&fd, len, access.writes())?;
        Ok(Self { fd, window })
    }

    /// The whole memory.
    pub fn window(&self) -> &Mapped {
        &self.window
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.window.len() as u64
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `bytes` as a length that can be mapped: not zero, and not more than a pointer can be offset by.
fn mappable(bytes: u64) -> Result<usize, MemoryError> {
    isize::try_from(bytes)
        .ok()
        .filter(|len| *len > 0)
        .map(isize::cast_unsigned)
        .ok_or(MemoryError::Size { bytes })
}

fn map_memory(fd: &OwnedFd, len: usize, writable: bool) -> Result<Mapped, MemoryError> {
    map(fd.as_fd(), len, writable).map_err(|source| MemoryError::System {
        doing: if writable {
            "map for writing"
        } else {
            "map for reading"
        },
        bytes: len as u64,
        source,
    })
}

/// A memfd that cannot be executed either, where the kernel knows how (6.3): some systems insist on it.
fn create_sealable(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        result => result,
    }
}

#[cfg(test)]
#[cfg(not(miri))] // Miri has no memfds
mod tests {
    use super::*;
    use crate::Field;
    use core::sync::atomic::Ordering::Relaxed;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::os::fd::AsRawFd;

    const BYTES: u64 = 8192;

    fn shared(memory: &SharedMemory) -> OwnedFd {
        memory.as_fd().try_clone_to_owned().unwrap()
    }

    fn unsealed(seals: SealFlags) -> OwnedFd {
        let fd = create_sealable("test").unwrap();
        ftruncate(&fd, BYTES).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn what_the_writer_stores_its_reader_loads() {
        let own = SharedMemory::create("test", BYTES, Writers::Creator).unwrap();
        let peer = SharedMemory::from_peer(shared(&own), BYTES, Access::Read).unwrap();
        let written = Field::<u64, _>::new(own.window(), 4096).unwrap();
        let read = Field::<u64, _>::new(peer.window(), 4096).unwrap();
        written.store(42, Relaxed);
        drop((own, peer));
        assert_eq!(read.load(Relaxed), 42, "windows keep their mapping");
    }

    #[test]
    fn a_reader_gets_no_writable_mapping() {
        let own = SharedMemory::create("test", BYTES, Writers::Creator).unwrap();
        let reopened: OwnedFd = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{}", own.as_fd().as_raw_fd()))
            .expect(
                "an ordinary user may reopen a descriptor for writing: the seal is what stops him",
            )
            .into();
        for fd in [shared(&own), reopened] {
            let refused = map(fd.as_fd(), BYTES as usize, true).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::PERM.raw_os_error()));
            assert!(matches!(
                SharedMemory::from_peer(fd.try_clone().unwrap(), BYTES, Access::ReadWrite),
                Err(MemoryError::System { .. })
            ));
            let mut file = File::from(fd);
            let refused = file.write_all(b"x").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::PERM.raw_os_error()));
            assert_eq!(
                fcntl_add_seals(&file, SealFlags::WRITE),
                Err(Errno::PERM),
                "the seals are sealed"
            );
        }
        // The same steps do give a writable mapping where they should.
        let everybody = SharedMemory::create("test", BYTES, Writers::Everybody).unwrap();
        let peer = SharedMemory::from_peer(shared(&everybody), BYTES, Access::ReadWrite).unwrap();
        let field = Field::<u64, _>::new(peer.window(), 0).unwrap();
        field.store(7, Relaxed);
        let field = Field::<u64, _>::new(everybody.window(), 0).unwrap();
        assert_eq!(field.load(Relaxed), 7);
    }

    #[test]
    fn a_memory_cannot_be_truncated() {
        for writers in [Writers::Creator, Writers::Everybody] {
            let own = SharedMemory::create("test", BYTES, writers).unwrap();
            for bytes in [0, 4096, 2 * BYTES] {
                assert_eq!(ftruncate(own.as_fd(), bytes), Err(Errno::PERM));
            }
        }
    }

    #[test]
    fn a_peers_descriptor_that_can_shrink_is_refused() {
        for seals in [SealFlags::empty(), SealFlags::GROW, SealFlags::FUTURE_WRITE] {
            let refused = SharedMemory::from_peer(unsealed(seals), BYTES, Access::Read);
            assert!(matches!(
                refused,
                Err(MemoryError::Unsealed {
                    seal: "F_SEAL_SHRINK",
                    ..
                })
            ));
        }
        let refused = SharedMemory::from_peer(unsealed(SealFlags::SHRINK), BYTES, Access::Read);
        assert!(matches!(
            refused,
            Err(MemoryError::Unsealed {
                seal: "F_SEAL_FUTURE_WRITE",
                ..
            })
        ));
        let sealed = unsealed(SealFlags::SHRINK | SealFlags::FUTURE_WRITE);
        assert!(SharedMemory::from_peer(sealed, BYTES, Access::Read).is_ok());
    }

    #[test]
    fn what_is_no_memfd_or_has_another_size_is_refused() {
        let (pipe, _writer) = std::io::pipe().unwrap();
        let executable = File::open(std::env::current_exe().unwrap()).unwrap();
        for fd in [pipe.into(), executable.into()] {
            assert!(matches!(
                SharedMemory::from_peer(fd, BYTES, Access::Read),
                Err(MemoryError::NotMemfd)
            ));
        }
        let own = SharedMemory::create("test", BYTES, Writers::Creator).unwrap();
        for announced in [BYTES - 1, BYTES + 1, 4096, i64::MAX as u64] {
            assert!(matches!(
                SharedMemory::from_peer(shared(&own), announced, Access::Read),
                Err(MemoryError::WrongSize { found: BYTES, .. })
            ));
        }
        for announced in [0, u64::MAX, 1 << 63] {
            assert!(matches!(
                SharedMemory::from_peer(shared(&own), announced, Access::Read),
                Err(MemoryError::Size { .. })
            ));
        }
    }

    #[test]
    fn huge_pages_are_refused() {
        const HUGE: u64 = 2 << 20;
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let Ok(fd) = memfd_create("huge", flags) else {
            eprintln!("SKIPPED: the kernel has no huge pages of 2 MiB");
            return;
        };
        ftruncate(&fd, HUGE).unwrap();
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::FUTURE_WRITE).unwrap();
        assert!(matches!(
            SharedMemory::from_peer(fd, HUGE, Access::Read),
            Err(MemoryError::NotMemfd)
        ));
    }

    #[test]
    fn the_last_window_unmaps() {
        let mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.matches("/memfd:unmapped-at-last-drop").count()
        };
        let own = SharedMemory::create("unmapped-at-last-drop", BYTES, Writers::Creator).unwrap();
        let window = own.window().narrow(64, 64).unwrap();
        drop(own);
        assert_eq!(mapped(), 1);
        drop(window);
        assert_eq!(mapped(), 0);
    }
}
