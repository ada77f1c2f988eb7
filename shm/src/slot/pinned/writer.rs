//! The writing side of a pinnable slot.

use core::sync::atomic::Ordering::{Acquire, Release, SeqCst};

use super::announcement::AnnouncementAt;
use super::order::CopyOrder;
use super::place::{Place, PlaceAt};
use super::{MAX_COPIES, max_subscribed};
use crate::field::Records;
use crate::slot::{Generation, HeadStore, PublishError, WriteCursor, complete};
use crate::window::Window;

/// A pinnable slot as its one writer sees it: made of borrowed views for a call, at no cost.
#[derive(Debug)]
pub struct PinnableWriter<'w, W, H> {
    copies: Records<'w, W>,
    place: PlaceAt<'w, W>,
    head: H,
}

impl<'w, W: Window, H: HeadStore> PinnableWriter<'w, W, H> {
    /// The slot with these copies, 4 to [`MAX_COPIES`], this place and this head.
    #[inline(always)]
    pub fn new(copies: Records<'w, W>, place: PlaceAt<'w, W>, head: H) -> Self {
        Self {
            copies,
            place,
            head,
        }
    }

    /// Publishes the next value in a copy that none of the subscribed readers has pinned. `announcements` are theirs for this
    /// slot; those beyond [`max_subscribed`] are not looked at.
    ///
    /// Wait-free: `words + 5` stores, and a load for each subscribed reader. What the announcements hold changes neither, nor
    /// how long a value stays for other readers: a copy is written again with the `copies - subscribed`-th publication
    /// after its own at the earliest.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was written then.
    #[inline(always)]
    pub fn publish<'a, A: Window + 'a>(
        &mut self,
        cursor: &mut WriteCursor,
        order: &mut CopyOrder,
        value: &[u64],
        announcements: impl Iterator<Item = AnnouncementAt<'a, A>> + Clone,
    ) -> Result<Generation, PublishError> {
        let expected = self.copies.payload_words();
        if value.len() != expected {
            return Err(PublishError::WrongLength {
                expected,
                found: value.len(),
            });
        }
        let last = cursor.word() & Generation::MAX_COUNT;
        let generation = cursor.next().ok_or(PublishError::Exhausted)?;
        let copies = (self.copies.count() as usize).min(MAX_COPIES);
        let announcements = announcements.take(max_subscribed(copies));
        let subscribed = announcements.clone().count();
        let candidates = subscribed + 1;
        let intent = order.oldest(candidates);
        self.place
            .store(Place::new(order.newest(copies), intent, last));
        let mut pinned = 0;
        if subscribed > 0 {
            // Either the reader finds the intent, or its announcement is found here.
            self.copies.fence(SeqCst);
            for announcement in announcements {
                pinned |= announcement.load(copies);
            }
            // Pairs with the Release of what no longer names a copy: what was read from it was read before.
            self.copies.fence(Acquire);
        }
        let copy = order.take(pinned, candidates, copies);
        let sequence = complete(generation);
        // From here to the head as in a slot without pins; see there.
        self.copies.store_header(copy, sequence - 1, Release);
        self.copies.fence(Release);
        self.copies.store_payload(copy, value);
        self.copies.store_header(copy, sequence, Release);
        self.place.store(Place::new(copy, 0, generation.count()));
        self.head.store(generation);
        cursor.advance(generation);
        Ok(generation)
    }
}
