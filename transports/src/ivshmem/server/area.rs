//! A guest's area, and how far its session has come.
//!
//! What the host remembers of it is here, in private memory. Of the words in the area it reads the guest's alone.

use shmbus_shm::{Bytes, Mapped, Section, Window};

use crate::ivshmem::geometry::Geometry;
use crate::ivshmem::layout::{
    AREA_PAGE_BYTES, Answer, AnswerState, Attachment, Header, HostWords, LayoutError, SectionPlace,
};
use crate::local::SessionId;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none.
    Free,
    /// HELLO has come; the owner of the server decides.
    Deciding(SessionId),
    /// WELCOME is said; the guest formats its section.
    Invited(SessionId),
    /// MEMORY has come; the owner of the server looks into it.
    Attaching(SessionId),
    /// READY is said.
    Running(SessionId),
}

impl Stage {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Free => "over",
            Self::Deciding(_) => "before the host has answered HELLO",
            Self::Invited(_) => "where MEMORY is expected",
            Self::Attaching(_) => "before the host has answered with READY",
            Self::Running(_) => "running",
        }
    }
}

/// An area of a memory.
#[derive(Debug)]
pub(super) struct Area {
    index: usize,
    pub(super) words: HostWords<Mapped>,
    /// Where the sections are, and their windows.
    sections: [(u64, Mapped); Section::ALL.len()],
    /// Counts up with each session.
    epoch: u64,
    pub(super) attachment: Attachment,
    pub(super) stage: Stage,
    /// What was answered last.
    answered: AnswerState,
}

impl Area {
    /// Area `index` of a memory.
    pub(super) fn new(
        index: usize,
        geometry: &Geometry,
        memory: &Mapped,
    ) -> Result<Self, LayoutError> {
        let places = geometry.sections(index);
        let window = |(offset, bytes): (u64, u64)| {
            let window = memory.narrow(offset as usize, bytes as usize)?;
            Ok::<_, LayoutError>((offset, window))
        };
        let [host, guest, common, shared] = places;
        let words = memory.narrow(geometry.area_at(index) as usize, AREA_PAGE_BYTES)?;
        Ok(Self {
            index,
            words: HostWords::new(&words)?,
            sections: [
                window(host)?,
                window(guest)?,
                window(common)?,
                window(shared)?,
            ],
            epoch: 0,
            attachment: Attachment::NONE,
            stage: Stage::Free,
            answered: AnswerState::Offered,
        })
    }

    /// The session that there is.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.stage {
            Stage::Free => None,
            Stage::Deciding(session)
            | Stage::Invited(session)
            | Stage::Attaching(session)
            | Stage::Running(session) => Some(session),
        }
    }

    /// Gives the area to a peer.
    pub(super) fn enter(&mut self, memory: &Mapped, peer: u16) -> Result<(), LayoutError> {
        self.words.forget_request();
        self.answer(AnswerState::Offered);
        Header::assign(memory, self.index, Some(peer))
    }

    /// Takes the area back. What is in it is cleared before it is used again.
    pub(super) fn leave(&mut self, memory: &Mapped) {
        self.stage = Stage::Free;
        // Where it could be given, it can be taken.
        let _ = Header::assign(memory, self.index, None);
    }

    pub(super) fn answer(&mut self, state: AnswerState) {
        self.answered = state;
        self.answer_again();
    }

    /// Makes good what the guest may have written over the last answer: it would not know how to go on.
    pub(super) fn answer_again(&self) {
        let attachment = self.attachment;
        let state = self.answered;
        self.words.answer(Answer { attachment, state });
    }

    /// Clears the sections for a session under the next epoch.
    pub(super) fn begin(&mut self) -> Result<u64, LayoutError> {
        self.epoch += 1;
        if self.epoch > 1 {
            for (_, section) in &self.sections {
                clear(section)?;
            }
        }
        Ok(self.epoch)
    }

    /// The sections' windows.
    pub(super) fn windows(&self) -> [Mapped; Section::ALL.len()] {
        self.sections.clone().map(|(_, window)| window)
    }

    /// The sections' places, for the guest.
    pub(super) fn places(&self) -> [SectionPlace; Section::ALL.len()] {
        let epoch = self.epoch;
        self.sections.clone().map(|(offset, window)| SectionPlace {
            offset,
            bytes: (window.len() as u64).next_multiple_of(4096),
            epoch,
        })
    }
}

fn clear(section: &Mapped) -> Result<(), LayoutError> {
    const ZEROS: [u8; 1 << 14] = [0; 1 << 14];
    let bytes = Bytes::new(section, 0, section.len())?;
    let mut cleared = 0;
    while cleared < bytes.len() {
        cleared += bytes.copy_from(cleared, &ZEROS);
    }
    Ok(())
}
