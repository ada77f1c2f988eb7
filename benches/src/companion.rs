//! A second process on a processor of its own, for peers that share memory and not an address space.

use std::env;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::partner::pin;
use crate::{Comparison, SetUpError, two_processors};

/// How a program is told that it is a companion.
const COMPANION: &str = "--companion";

/// Descriptors that a companion can be given.
const DESCRIPTORS: usize = 4;

/// A process of this program that works beside the one that measures, as [`Partner`](crate::Partner) is a thread. It
/// sleeps in between, and ends with the one that measures.
pub struct Companion {
    child: Child,
    socket: UnixStream,
}

impl Companion {
    /// Starts this program again, on the second processor, as the companion of `contender` in the comparison `bench`; the
    /// calling thread is kept on the first. It is given `note` and the descriptors.
    ///
    /// # Errors
    ///
    /// [`TooFewProcessors`](crate::TooFewProcessors), what the system calls say, or that the companion could not set
    /// itself up.
    pub fn spawn(
        bench: &str,
        contender: &str,
        note: &str,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self, SetUpError> {
        let [first, second] = two_processors()?;
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new(env::current_exe()?)
            .args([COMPANION, bench, contender, &second.to_string()])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let mut companion = Self { child, socket };
        pin(first)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(format!("a companion gets at most {DESCRIPTORS} descriptors").into());
        }
        // Descriptors travel with at least one byte.
        let note = format!("{note}\n");
        let note = IoSlice::new(note.as_bytes());
        sendmsg(
            &companion.socket,
            &[note],
            &mut ancillary,
            SendFlags::empty(),
        )?;
        companion
            .answer()
            .map_err(|_| format!("the companion of {contender} in {bench} is not ready"))?;
        Ok(companion)
    }

    /// Lets the companion do its part of `operations` while `mine` runs here; how long `mine` took.
    ///
    /// # Panics
    ///
    /// If the companion is gone.
    pub fn beside(&mut self, operations: u64, mine: impl FnOnce()) -> Duration {
        self.socket
            .write_all(&operations.to_ne_bytes())
            .expect(ALIVE);
        self.answer().expect(ALIVE);
        let start = Instant::now();
        mine();
        let took = start.elapsed();
        self.answer().expect(ALIVE);
        took
    }

    fn answer(&mut self) -> io::Result<()> {
        self.socket.read_exact(&mut [0])
    }
}

const ALIVE: &str = "the companion lives as long as the one that measures";

impl Drop for Companion {
    fn drop(&mut self) {
        // It ends when its orders do, and cleans up.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// What a companion was given, and its end of the connection.
pub struct Session {
    /// Whose companion it is.
    pub contender: String,
    /// What [`Companion::spawn`] was told.
    pub note: String,
    descriptors: Vec<OwnedFd>,
    socket: UnixStream,
}

impl Session {
    fn accept(contender: String, processor: &str) -> Result<Self, SetUpError> {
        // The one that measures may be pinned already, and this process like it.
        pin(processor.parse()?)?;
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut note = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut note)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        note.truncate(received.bytes.saturating_sub(1));
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok(Self {
            contender,
            note: String::from_utf8(note)?,
            descriptors,
            socket,
        })
    }

    /// One of the descriptors, in the order in which they were given.
    ///
    /// # Errors
    ///
    /// That there are fewer; or of `fcntl(2)`.
    pub fn descriptor(&self, index: usize) -> Result<OwnedFd, SetUpError> {
        let descriptor = self.descriptors.get(index);
        let descriptor = descriptor.ok_or("the companion was given fewer descriptors")?;
        Ok(descriptor.try_clone()?)
    }

    /// Does its part of as many operations as it is told, again and again, until the one that measures is gone.
    ///
    /// # Errors
    ///
    /// Of the connection.
    pub fn serve(mut self, mut work: impl FnMut(u64)) -> Result<(), SetUpError> {
        self.socket.write_all(&[0])?;
        let mut operations = [0; 8];
        while self.socket.read_exact(&mut operations).is_ok() {
            self.socket.write_all(&[0])?;
            work(u64::from_ne_bytes(operations));
            self.socket.write_all(&[0])?;
        }
        Ok(())
    }
}

/// If this program was started as a companion: what came of it. First of all in `main`.
///
/// # Errors
///
/// That there is no such comparison, or why its companion could not do its part.
pub fn companion_of(all: impl FnOnce() -> Vec<Comparison>) -> Option<Result<(), SetUpError>> {
    let mut arguments = env::args().skip(1);
    if arguments.next()? != COMPANION {
        return None;
    }
    let (bench, contender) = (arguments.next()?, arguments.next()?);
    let processor = arguments.next()?;
    let all = all();
    let comparison = all.iter().find(|one| one.name == bench);
    let Some(work) = comparison.and_then(|one| one.companion.as_ref()) else {
        return Some(Err(format!("{bench} has no companions").into()));
    };
    Some(Session::accept(contender, &processor).and_then(work))
}
