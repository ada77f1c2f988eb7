//! Slots whose values can be looked at where they lie, without being copied first.
//!
//! A reader that *pins* a copy keeps the writer from it. It says so in memory of its own, by one word for each slot, its
//! *announcement*; the writer looks at the announcements of those readers that it has subscribed. Nobody waits for anybody:
//! a slot has twice as many copies as it would need, so for each reader there is one to spare, and the writer takes another
//! copy instead of a pinned one. This is the one place where a writer reads what its readers write, so whatever stands in an
//! announcement keeps the writer from at most one copy, which is the spare one of that reader.
//!
//! A slot has `C` copies (4, 8 or 16) as in the [kernel](super) and one more word, its [`Place`]: which copy holds the newest
//! value, which copies the writer *intends* to overwrite, and the low bits of the newest count. The writer knows privately
//! how old each copy is ([`CopyOrder`]). With `S` subscribed readers, at most `C / 2`, it publishes generation `g`:
//!
//! 1. place = the same, and the intent: the `S + 1` copies written longest ago; 2. fence(SeqCst); 3. the announcements, each
//!    loaded once; 4. the oldest copy of the intent that none of them names, for `S` words cannot name `S + 1` copies;
//! 5. that copy as in the kernel: `sequence = 2g - 1`, fence(Release), payload, `sequence = 2g`; 6. place = that copy, no
//!    intent, the count of `g`; 7. `head = g`.
//!
//! A reader pins: 1. it loads the place; 2. announces the newest copy; 3. fence(SeqCst); 4. loads the place again. If the copy
//! is not intended there, then either the writer's next intent comes after 3., and the writer finds the announcement; or the
//! copy was not to be overwritten. This is the hazard pointer's argument (Michael, 2004), but for the intent. It makes that a
//! pin fails only if `C - S - 1` whole values were published between 1. and 4., not one; that the writer's intent is a *set*
//! makes that no reader can follow the writer from copy to copy: each announcement is looked at once.
//!
//! Readers that pin nothing are not bounded in number: they copy, and look at the sequence before and after.

mod announcement;
mod order;
mod place;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use announcement::AnnouncementAt;
pub use order::CopyOrder;
pub use place::{Place, PlaceAt};
pub use reader::{MAX_PIN_LOADS, PinnableReader, Pinned, max_read_loads};
pub use writer::PinnableWriter;

/// The most copies of a pinnable slot.
pub const MAX_COPIES: usize = 16;

/// The most readers that can be subscribed to a slot of `copies` copies: as many as there are copies to spare. Of less than
/// four copies there is none.
pub const fn max_subscribed(copies: usize) -> usize {
    if copies < 4 { 0 } else { copies / 2 }
}
