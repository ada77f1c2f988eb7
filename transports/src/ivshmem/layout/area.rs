//! The words at the start of an area, as each side uses them.

use core::num::NonZeroUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::{Array, Bytes, Section, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use super::AREA_PAGE_BYTES;
use super::error::LayoutError;
use super::header::is_within;
use super::states::{Answer, Request};
use crate::local::{
    Explanation, GoodbyeReason, GuestName, MAX_EXPLANATION_BYTES, MAX_NAME_BYTES, Refusal,
    RefusalCode,
};

/// Offsets of the words in bytes. The two handshake words are on lines of their own.
mod at {
    pub(super) const ANSWER: usize = 0;
    pub(super) const SESSION: usize = 64;
    pub(super) const PRIVATE: usize = 72;
    pub(super) const FEATURES: usize = 80;
    pub(super) const SECTIONS: usize = 96;
    pub(super) const CODE: usize = 192;
    pub(super) const TEXT_BYTES: usize = 200;
    pub(super) const TEXT: usize = 208;
    pub(super) const REQUEST: usize = 1024;
    pub(super) const GUEST_PRIVATE: usize = 1088;
    pub(super) const GUEST_FEATURES: usize = 1096;
    pub(super) const GOODBYE: usize = 1112;
    pub(super) const NAME: usize = 1120;
}

/// From one section's place to the next, in bytes.
const SECTION_STRIDE: usize = 24;
const _: () = assert!(at::TEXT + MAX_EXPLANATION_BYTES <= at::REQUEST);

/// Where a section of a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionPlace {
    /// Where it starts in the memory (not in the area), in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The epoch of the memory that it stands for.
    pub epoch: u64,
}

/// What a guest is let in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The number of the session on this host.
    pub session: u64,
    /// What both sides support.
    pub features: Features,
    /// What both sides support.
    pub private: PrivateFeatures,
    /// The sections, by their numbers: HOST, GUEST, COMMON, SHARED.
    pub sections: [SectionPlace; Section::ALL.len()],
}

impl Terms {
    /// Where a section is.
    pub fn section(&self, section: Section) -> SectionPlace {
        self.sections[section as usize]
    }
}

/// Who a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// What it calls itself.
    pub name: GuestName,
    /// The features of the bus that it supports.
    pub features: Features,
    /// The private features that it supports.
    pub private: PrivateFeatures,
}

/// The words of an area.
#[derive(Clone, Debug)]
struct Words<W> {
    page: W,
    words: Array<u64, W>,
}

impl<W: Window> Words<W> {
    fn new(area: &W) -> Result<Self, LayoutError> {
        const WORDS: NonZeroUsize = NonZeroUsize::new(AREA_PAGE_BYTES / 8).unwrap();
        let page = area.narrow(0, AREA_PAGE_BYTES)?;
        let words = Array::new(&page, 0, WORDS)?;
        Ok(Self { page, words })
    }

    fn load(&self, offset: usize) -> u64 {
        self.words.load(offset / 8, Relaxed)
    }

    fn store(&self, offset: usize, value: u64) {
        self.words.store(offset / 8, value, Relaxed);
    }

    /// Loads a handshake word, and then nothing that is older than it.
    fn load_first(&self, offset: usize) -> u64 {
        let word = self.load(offset);
        self.words.fence(Acquire);
        word
    }

    fn features(&self, offset: usize) -> Features {
        Features::from_words([self.load(offset), self.load(offset + 8)])
    }

    fn store_features(&self, offset: usize, features: Features) {
        let [low, high] = features.to_words();
        self.store(offset, low);
        self.store(offset + 8, high);
    }

    fn bytes(&self, offset: usize, to: &mut [u8]) -> Result<(), LayoutError> {
        Bytes::new(&self.page, offset, to.len())?.copy_to(0, to);
        Ok(())
    }

    fn store_bytes(&self, offset: usize, from: &[u8]) -> Result<(), LayoutError> {
        Bytes::new(&self.page, offset, from.len())?.copy_from(0, from);
        Ok(())
    }
}

/// The words of an area, for the host: it writes its own, and reads the guest's alone.
#[derive(Clone, Debug)]
pub struct HostWords<W>(Words<W>);

impl<W: Window> HostWords<W> {
    /// The words at the start of `area`.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`].
    pub fn new(area: &W) -> Result<Self, LayoutError> {
        Words::new(area).map(Self)
    }

    /// Answers; what was told before is there for whoever sees the answer.
    pub fn answer(&self, answer: Answer) {
        self.0
            .words
            .store(at::ANSWER / 8, answer.to_word(), Release);
    }

    /// Tells the terms; WELCOME is to follow.
    pub fn tell_terms(&self, terms: &Terms) {
        self.0.store(at::SESSION, terms.session);
        self.0.store(at::PRIVATE, terms.private.bits());
        self.0.store_features(at::FEATURES, terms.features);
        for (index, place) in terms.sections.iter().enumerate() {
            let offset = at::SECTIONS + index * SECTION_STRIDE;
            self.0.store(offset, place.offset);
            self.0.store(offset + 8, place.bytes);
            self.0.store(offset + 16, place.epoch);
        }
    }

    /// Tells why a guest is not let in; REFUSED is to follow.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`]; not expected.
    pub fn tell_refusal(&self, refusal: &Refusal) -> Result<(), LayoutError> {
        let text = refusal.text.as_str();
        self.0.store(at::CODE, refusal.code.number().into());
        self.0.store(at::TEXT_BYTES, text.len() as u64);
        self.0.store_bytes(at::TEXT, text.as_bytes())
    }

    /// Tells why the session is over; CLOSED is to follow.
    pub fn tell_goodbye(&self, reason: GoodbyeReason) {
        self.0.store(at::CODE, reason.number().into());
    }

    /// What the guest requests, if it has requested anything.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Word`].
    pub fn request(&self) -> Result<Option<Request>, LayoutError> {
        Request::from_word(self.0.load_first(at::REQUEST))
    }

    /// Who the guest is, after its HELLO.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Name`].
    pub fn introduction(&self) -> Result<Introduction, LayoutError> {
        let mut name = [0; MAX_NAME_BYTES];
        self.0.bytes(at::NAME, &mut name)?;
        let end = name.iter().position(|byte| *byte == 0);
        // What is no text has no character that may stand in a name either.
        let name = String::from_utf8_lossy(&name[..end.unwrap_or(MAX_NAME_BYTES)]);
        Ok(Introduction {
            name: GuestName::new(&name)?,
            features: self.0.features(at::GUEST_FEATURES),
            private: PrivateFeatures::from_bits_retain(self.0.load(at::GUEST_PRIVATE)),
        })
    }

    /// Why the guest leaves, after its GOODBYE.
    pub fn goodbye(&self) -> GoodbyeReason {
        GoodbyeReason::from_number(self.0.load(at::GOODBYE) as u16)
    }

    /// Forgets what a guest that is gone has requested.
    pub fn forget_request(&self) {
        self.0.store(at::REQUEST, 0);
    }
}

/// The words of an area, for its guest: it writes its own, and reads the host's alone.
#[derive(Clone, Debug)]
pub struct GuestWords<W>(Words<W>);

impl<W: Window> GuestWords<W> {
    /// The words at the start of `area`.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`].
    pub fn new(area: &W) -> Result<Self, LayoutError> {
        Words::new(area).map(Self)
    }

    /// Requests; what was said before is there for whoever sees the request. Ring the host afterwards.
    pub fn request(&self, request: Request) {
        self.0
            .words
            .store(at::REQUEST / 8, request.to_word(), Release);
    }

    /// Says who the guest is; HELLO is to follow.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`]; not expected.
    pub fn introduce(&self, introduction: &Introduction) -> Result<(), LayoutError> {
        let mut name = [0; MAX_NAME_BYTES];
        let letters = introduction.name.as_str().as_bytes();
        name[..letters.len()].copy_from_slice(letters);
        self.0.store_bytes(at::NAME, &name)?;
        self.0.store(at::GUEST_PRIVATE, introduction.private.bits());
        self.0
            .store_features(at::GUEST_FEATURES, introduction.features);
        Ok(())
    }

    /// Says why the guest leaves; GOODBYE is to follow.
    pub fn say_goodbye(&self, reason: GoodbyeReason) {
        self.0.store(at::GOODBYE, reason.number().into());
    }

    /// The host's answer.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Word`].
    pub fn answer(&self) -> Result<Answer, LayoutError> {
        Answer::from_word(self.0.load_first(at::ANSWER))
    }

    /// The terms, after the host's WELCOME, for a memory of `memory_bytes` bytes: its sections lie within.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Section`].
    pub fn terms(&self, memory_bytes: u64) -> Result<Terms, LayoutError> {
        let mut sections = [SectionPlace::default(); Section::ALL.len()];
        for (section, place) in Section::ALL.into_iter().zip(&mut sections) {
            let at = at::SECTIONS + section as usize * SECTION_STRIDE;
            let (offset, bytes) = (self.0.load(at), self.0.load(at + 8));
            if !is_within(offset, bytes, memory_bytes) {
                return Err(LayoutError::Section {
                    section,
                    offset,
                    bytes,
                });
            }
            let epoch = self.0.load(at + 16);
            *place = SectionPlace {
                offset,
                bytes,
                epoch,
            };
        }
        Ok(Terms {
            session: self.0.load(at::SESSION),
            features: self.0.features(at::FEATURES),
            private: PrivateFeatures::from_bits_retain(self.0.load(at::PRIVATE)),
            sections,
        })
    }

    /// Why the host does not let the guest in, after its REFUSED.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Window`]; not expected.
    pub fn refusal(&self) -> Result<Refusal, LayoutError> {
        let mut text = [0; MAX_EXPLANATION_BYTES];
        self.0.bytes(at::TEXT, &mut text)?;
        let told = self.0.load(at::TEXT_BYTES).min(text.len() as u64);
        Ok(Refusal {
            code: RefusalCode::from_number(self.0.load(at::CODE) as u16),
            text: Explanation::new(&String::from_utf8_lossy(&text[..told as usize])),
        })
    }

    /// Why the session is over, after the host's CLOSED.
    pub fn goodbye(&self) -> GoodbyeReason {
        GoodbyeReason::from_number(self.0.load(at::CODE) as u16)
    }
}
