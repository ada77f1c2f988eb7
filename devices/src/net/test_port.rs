//! A port over queues in this process, for tests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::port::{Checksum, Port, PortError, Received, Sent};

type Frames = Rc<RefCell<VecDeque<(Vec<u8>, Checksum)>>>;

/// One end of a wire. It holds a bounded number of frames each way.
#[derive(Clone, Default)]
pub(super) struct TestPort {
    pub(super) incoming: Frames,
    pub(super) outgoing: Frames,
    pub(super) room: usize,
    pub(super) partial: bool,
    pub(super) broken: Rc<RefCell<bool>>,
}

impl TestPort {
    /// A port that takes `room` frames before somebody must take them out, and the other end of its wire.
    pub(super) fn pair(room: usize) -> (Self, Self) {
        let near = Self {
            room,
            ..Self::default()
        };
        let far = Self {
            incoming: near.outgoing.clone(),
            outgoing: near.incoming.clone(),
            ..near.clone()
        };
        (near, far)
    }

    /// The next frame that was sent from the other end.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.incoming
            .borrow_mut()
            .pop_front()
            .map(|(frame, _)| frame)
    }

    /// Sends a frame from this end.
    pub(super) fn put(&self, frame: &[u8]) {
        self.outgoing
            .borrow_mut()
            .push_back((frame.to_vec(), Checksum::InFrame));
    }

    fn check(&self) -> Result<(), PortError> {
        match *self.broken.borrow() {
            false => Ok(()),
            true => Err(PortError::Tap {
                name: "test".to_owned(),
                source: std::io::Error::other("broken"),
            }),
        }
    }
}

impl Port for TestPort {
    fn receive(&mut self, frame: &mut [u8]) -> Result<Received, PortError> {
        self.check()?;
        let Some((next, checksum)) = self.incoming.borrow_mut().pop_front() else {
            return Ok(Received::Empty);
        };
        let Some(to) = frame.get_mut(..next.len()) else {
            return Ok(Received::Discarded);
        };
        to.copy_from_slice(&next);
        Ok(Received::Frame {
            bytes: next.len(),
            checksum,
        })
    }

    fn send(&mut self, frame: &[u8], checksum: Checksum) -> Result<Sent, PortError> {
        self.check()?;
        if !self.can_send() {
            return Ok(Sent::Full);
        }
        self.outgoing
            .borrow_mut()
            .push_back((frame.to_vec(), checksum));
        Ok(Sent::Taken)
    }

    fn can_send(&mut self) -> bool {
        self.outgoing.borrow().len() < self.room
    }

    fn takes_partial_checksums(&self) -> bool {
        self.partial
    }
}
