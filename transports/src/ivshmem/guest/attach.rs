//! From HELLO to READY.

use std::time::{Duration, Instant};

use shmbus_shm::{Mapped, Section, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use super::super::layout::{
    Answer, AnswerState, Attachment, GuestWords, HANDSHAKE_VECTOR, Introduction, LayoutError,
    Request, RequestState, Terms,
};
use super::device::Device;
use super::error::AttachError;
use super::link::GuestLink;
use super::sections::{SectionWindow, sections};
use crate::local::{GuestOptions, SessionId};
use crate::pci::Function;

/// How long an answer is slept for before the word is looked at again, where the host rings.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// The same where nothing rings.
const POLL_PERIOD: Duration = Duration::from_millis(1);

/// Attaches to the bus behind an `ivshmem-doorbell` function and takes what the host gives; whoever was attached through this
/// function before is not any more. The guest then formats its section and [completes](Invitation::complete) the handshake; all of that within
/// `timeout`. Blocks.
///
/// # Errors
///
/// [`AttachError`]; the function is let go.
pub fn attach<F: Function + 'static>(
    function: F,
    options: &GuestOptions,
    timeout: Duration,
) -> Result<Invitation, AttachError> {
    let deadline = Instant::now() + timeout;
    let device = Device::new(function, options.limits.memory_bytes)?;
    let area = device
        .memory
        .narrow(device.area.offset as usize, device.area.bytes as usize)
        .map_err(LayoutError::from)?;
    let words = GuestWords::new(&area)?;
    let attachment = match words.answer() {
        Ok(answer) => answer.attachment.next(),
        // Somebody has written over it: any other number will do.
        Err(LayoutError::Word { word, .. }) => Attachment::new(word >> 8).next(),
        Err(error) => return Err(error.into()),
    };
    words.introduce(&Introduction {
        name: options.name.clone(),
        features: options.features,
        private: options.private,
    })?;
    let line = Line {
        device,
        words,
        attachment,
        deadline,
    };
    line.request(RequestState::Hello)?;
    line.expect(AnswerState::Welcome, "WELCOME")?;
    let terms = line.words.terms(line.device.memory.len() as u64)?;
    check_terms(&terms, options)?;
    let sections = sections(&line.device.memory, line.device.area, &terms)?;
    Ok(Invitation {
        line,
        terms,
        sections,
    })
}

/// What a host offers a guest: format section GUEST, and [`complete`](Self::complete) the handshake.
#[derive(Debug)]
pub struct Invitation {
    line: Line,
    terms: Terms,
    sections: Vec<SectionWindow>,
}

impl Invitation {
    /// The number of this session on this host.
    pub fn session(&self) -> SessionId {
        // Checked with the terms.
        SessionId(self.terms.session as u32)
    }

    /// What both sides support.
    pub fn features(&self) -> Features {
        self.terms.features
    }

    /// What both sides support.
    pub fn private(&self) -> PrivateFeatures {
        self.terms.private
    }

    /// The sections, one of each: HOST, GUEST, COMMON, SHARED.
    pub fn sections(&self) -> &[SectionWindow] {
        &self.sections
    }

    /// The section that the guest is to format.
    pub fn guest_section(&self) -> &Mapped {
        &self.sections[Section::Guest as usize].window
    }

    /// Says that the guest's section is formatted, and waits until the host says READY.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    pub fn complete(self) -> Result<GuestLink, AttachError> {
        self.line.request(RequestState::Memory)?;
        self.line.expect(AnswerState::Ready, "READY")?;
        let Line {
            device,
            words,
            attachment,
            ..
        } = self.line;
        Ok(GuestLink::new(device, words, attachment)?)
    }
}

/// An attachment under way.
#[derive(Debug)]
struct Line {
    device: Device,
    words: GuestWords<Mapped>,
    attachment: Attachment,
    deadline: Instant,
}

impl Line {
    fn request(&self, state: RequestState) -> Result<(), AttachError> {
        let attachment = self.attachment;
        self.words.request(Request { attachment, state });
        Ok(self.device.handshake.wake()?)
    }

    /// Waits for an answer. Those to other attachments, and what is none, are not for this side; what came before on the way
    /// to `awaited` still stands there.
    fn expect(&self, awaited: AnswerState, name: &'static str) -> Result<(), AttachError> {
        loop {
            let answer = self.words.answer();
            if let Ok(Answer { attachment, state }) = answer
                && attachment == self.attachment
            {
                match state {
                    state if state == awaited => return Ok(()),
                    AnswerState::Refused => {
                        return Err(AttachError::Refused(self.words.refusal()?));
                    }
                    AnswerState::Closed => {
                        return Err(AttachError::Closed {
                            awaited: name,
                            reason: self.words.goodbye(),
                        });
                    }
                    AnswerState::Welcome if awaited == AnswerState::Ready => {}
                    found => {
                        return Err(AttachError::OutOfPlace {
                            expected: name,
                            found,
                        });
                    }
                }
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                answer?;
                return Err(AttachError::TimedOut { awaited: name });
            }
            match self.device.waiters.get(usize::from(HANDSHAKE_VECTOR)) {
                Some(waiter) => {
                    waiter.wait(Some(left.min(LOOK_PERIOD)))?;
                }
                None => std::thread::sleep(left.min(POLL_PERIOD)),
            }
        }
    }
}

/// Nothing may be switched on that this side did not offer.
fn check_terms(terms: &Terms, options: &GuestOptions) -> Result<(), AttachError> {
    let wrong = |expected: String, found: String| Err(AttachError::Terms { expected, found });
    if let Err(error) = options.features.accept(terms.features) {
        return wrong("features that this side supports".into(), error.to_string());
    }
    if !options.private.contains(terms.private) {
        return wrong(
            format!("private features within {:#x}", options.private.bits()),
            format!("{:#x}", terms.private.bits()),
        );
    }
    if terms.session == 0 || terms.session > u32::MAX.into() {
        let found = terms.session.to_string();
        return wrong("a session's number of 32 bits that is not 0".into(), found);
    }
    Ok(())
}
