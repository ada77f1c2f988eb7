//! What guests request in their areas, and what the owner of the server answers.

use std::time::Instant;

use shmbus_shm::{Mapped, Section};
use shmbus_signal::os::{DoorbellError, Notifier, Waiter};
use shmbus_virtio::FeatureError;

use super::area::Stage;
use super::client::{Client, Eventfds};
use super::{Departure, Event, Server};
use crate::ivshmem::layout::{
    AnswerState, Attachment, Introduction, LayoutError, RequestState, Terms,
};
use crate::local::complaints::Complaint;
use crate::local::{Applicant, GoodbyeReason, Refusal, RefusalCode, SessionError, SessionId};

/// What the server has for a session.
#[derive(Debug)]
pub struct Place {
    /// The sections, zeroed, by their numbers. The guest can write to each of them at any moment.
    pub sections: [Mapped; Section::ALL.len()],
    /// The sections' epoch.
    pub epoch: u64,
    /// What rings the guest, by vector.
    pub notifiers: Vec<Notifier>,
    /// What the guest rings, by vector.
    pub waiters: Vec<Waiter>,
}

/// A place for a session cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The session is over, or not at this point.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The area cannot be cleared; not expected.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An eventfd cannot be used; no descriptors left, most likely.
    #[error(transparent)]
    Doorbell(#[from] DoorbellError),
}

impl Server {
    /// Looks at what a guest requests, unless it has rung too often of late: then later.
    pub(super) fn look(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else {
            return; // gone earlier in this turn
        };
        if !client.looks.take(now) {
            let due = client.looks.next_token().unwrap_or(now);
            self.look_later(number, due, now);
            return;
        }
        client.listen(&self.epoll);
        let current = client.area.attachment;
        match client.area.words.request() {
            Ok(None) => {}
            Ok(Some(request)) => match request.state {
                RequestState::Hello if request.attachment != current => {
                    self.greet(number, request.attachment, now);
                }
                RequestState::Memory if request.attachment == current => {
                    if let Stage::Invited(session) = client.area.stage {
                        client.area.stage = Stage::Attaching(session);
                        self.events.push_back(Event::Memory { session });
                    } else {
                        client.area.answer_again();
                    }
                }
                RequestState::Goodbye => self.part(number, request.attachment),
                // It was looked at before, or is about a session that is over.
                RequestState::Hello | RequestState::Memory => client.area.answer_again(),
            },
            Err(error) => {
                let text = format_args!("client {}: {error}", client.peer);
                self.complaints.about(Complaint::Nonsense, now, text);
            }
        }
    }

    fn look_later(&mut self, number: u64, due: Instant, now: Instant) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.turn_deaf(&self.epoll, due);
            self.timer.wake_by(due, now);
        }
    }

    /// A guest's program begins: what was before is over.
    fn greet(&mut self, number: u64, attachment: Attachment, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if !client.attachments.take(now) {
            let due = client.attachments.next_token().unwrap_or(now);
            self.look_later(number, due, now);
            return;
        }
        let area = &mut client.area;
        area.attachment = attachment;
        if let Some(session) = area.session() {
            area.stage = Stage::Free;
            self.sessions.remove(&session);
            let reason = Departure::BeganAnew;
            tracing::debug!(%session, %reason, "session over");
            self.events.push_back(Event::Closed { session, reason });
        }
        let introduction = area.words.introduction();
        match self.negotiate(introduction) {
            Ok(applicant) => {
                let session = applicant.session;
                self.sessions.insert(session, number);
                if let Some(client) = self.clients.get_mut(&number) {
                    client.area.stage = Stage::Deciding(session);
                }
                self.events.push_back(Event::Hello(applicant));
            }
            Err(refusal) => {
                let text = refusal.text.clone();
                self.complaints.about(Complaint::Refused, now, text);
                if let Some(client) = self.clients.get_mut(&number) {
                    turn_away(client, &refusal);
                }
            }
        }
    }

    /// What both sides support, if it goes together.
    fn negotiate(
        &mut self,
        introduction: Result<Introduction, LayoutError>,
    ) -> Result<Applicant, Refusal> {
        let introduction = introduction
            .map_err(|error| Refusal::new(RefusalCode::Protocol, &error.to_string()))?;
        let features = introduction.features.choose(self.options.features);
        features.check().map_err(|error: FeatureError| {
            Refusal::new(RefusalCode::Features, &error.to_string())
        })?;
        let is_used = |session| self.sessions.contains_key(&session);
        let session = self.options.numbering.after(self.last_session, is_used);
        self.last_session = Some(session);
        Ok(Applicant {
            session,
            name: introduction.name,
            features,
            private: introduction.private & self.options.private,
        })
    }

    /// A guest leaves. It may have said HELLO and left before anybody looked.
    fn part(&mut self, number: u64, attachment: Attachment) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let area = &mut client.area;
        let session = area.session();
        if attachment == area.attachment && session.is_none() {
            area.answer_again();
            return;
        }
        area.attachment = attachment;
        area.stage = Stage::Free;
        let reason = area.words.goodbye();
        farewell(client, reason);
        if let Some(session) = session {
            self.sessions.remove(&session);
            let reason = Departure::Goodbye(reason);
            self.events.push_back(Event::Closed { session, reason });
        }
    }

    /// Clears an applicant's sections, and gives what there is for its session.
    ///
    /// # Errors
    ///
    /// [`PlaceError`].
    pub fn prepare(&mut self, session: SessionId) -> Result<Place, PlaceError> {
        let client = self.applicant(session, "be prepared for")?;
        let epoch = client.area.begin()?;
        let Eventfds { rings, hears, .. } = &client.eventfds;
        let notifiers = rings.iter().map(|fd| Notifier::try_from(fd.try_clone()?));
        let waiters = hears.iter().map(|fd| Waiter::try_from(fd.try_clone()?));
        Ok(Place {
            notifiers: notifiers.collect::<Result<_, DoorbellError>>()?,
            waiters: waiters.collect::<Result<_, DoorbellError>>()?,
            sections: client.area.windows(),
            epoch,
        })
    }

    /// Lets a guest in: its sections are formatted. [`Event::Memory`] comes next.
    ///
    /// # Errors
    ///
    /// [`SessionError`]: over, or not at this point.
    pub fn welcome(&mut self, applicant: &Applicant) -> Result<(), SessionError> {
        let session = applicant.session;
        let client = self.applicant(session, "be admitted")?;
        client.area.words.tell_terms(&Terms {
            session: session.0.into(),
            features: applicant.features,
            private: applicant.private,
            sections: client.area.places(),
        });
        client.area.stage = Stage::Invited(session);
        client.area.answer(AnswerState::Welcome);
        client.ring();
        Ok(())
    }

    /// Tells a guest that its session runs, after [`Event::Memory`].
    ///
    /// # Errors
    ///
    /// [`SessionError`]: over, or not at this point.
    pub fn ready(&mut self, session: SessionId) -> Result<(), SessionError> {
        let stage = Stage::Attaching(session);
        let client = self.client(session, stage, "become ready")?;
        client.area.stage = Stage::Running(session);
        client.area.answer(AnswerState::Ready);
        client.ring();
        Ok(())
    }

    /// Refuses a guest, or breaks off its handshake, and tells it why. No [`Event::Closed`] follows.
    pub fn refuse(&mut self, session: SessionId, code: RefusalCode, text: &str) {
        if let Some(client) = self.forget(session) {
            turn_away(client, &Refusal::new(code, text));
        }
    }

    /// Ends a session and tells the guest why. No [`Event::Closed`] follows.
    pub fn close(&mut self, session: SessionId, reason: GoodbyeReason) {
        if let Some(client) = self.forget(session) {
            client.area.stage = Stage::Free;
            farewell(client, reason);
        }
    }

    fn forget(&mut self, session: SessionId) -> Option<&mut Client> {
        let number = self.sessions.remove(&session)?;
        self.clients.get_mut(&number)
    }

    fn applicant(
        &mut self,
        session: SessionId,
        step: &'static str,
    ) -> Result<&mut Client, SessionError> {
        self.client(session, Stage::Deciding(session), step)
    }

    fn client(
        &mut self,
        session: SessionId,
        expected: Stage,
        step: &'static str,
    ) -> Result<&mut Client, SessionError> {
        let number = self.sessions.get(&session);
        let client = number.and_then(|number| self.clients.get_mut(number));
        let client = client.ok_or(SessionError::Over { session })?;
        if client.area.stage != expected {
            return Err(SessionError::Stage {
                session,
                step,
                stage: client.area.stage.describe(),
            });
        }
        Ok(client)
    }
}

fn turn_away(client: &mut Client, refusal: &Refusal) {
    client.area.stage = Stage::Free;
    // It fits: the words are there.
    let _ = client.area.words.tell_refusal(refusal);
    client.area.answer(AnswerState::Refused);
    client.ring();
}

fn farewell(client: &mut Client, reason: GoodbyeReason) {
    client.area.words.tell_goodbye(reason);
    client.area.answer(AnswerState::Closed);
    client.ring();
}
