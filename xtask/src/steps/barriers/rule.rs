//! In what order an operation may access shared memory.

/// Something that a side does to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Load,
    Store,
    /// A store that orders what came before it.
    Release,
    /// A barrier for all accesses.
    Barrier,
    /// A barrier between loads and what follows them.
    LoadBarrier,
}

/// What is asked of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// What is published is stored behind a barrier, or is a release; behind another barrier this side looks at what
    /// the other one asked for.
    Publish {
        /// Private memory, which looks as if it were shared, may be accessed before.
        sorts: bool,
    },
    /// What is looked at is loaded before a barrier.
    Poll,
    /// The first thing that is looked at is loaded before a barrier.
    Take,
    /// What this side asks for is stored before a barrier, and it looks again behind that.
    Enable,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Start,
    /// A barrier came, and nothing was stored before.
    Ordered,
    /// Something was stored that no barrier is behind.
    Stored,
    /// A barrier came behind what was stored.
    StoredAndOrdered,
    /// It was published.
    Published,
    /// A barrier came behind what the other side is to see, and its word can be looked at.
    Fenced,
    /// Something was looked at that no barrier is behind.
    Loaded,
    /// There was nothing to be seen, and the other side's word was looked at.
    Asked,
    /// All was done that the operation is for.
    Done,
}

impl Rule {
    /// How it goes on, or nothing if it must not go on so.
    pub(super) fn next(self, state: State, event: Event) -> Option<State> {
        use Event::{Barrier, Load, LoadBarrier, Release, Store};
        use State::{
            Asked, Done, Fenced, Loaded, Ordered, Published, Start, Stored, StoredAndOrdered,
        };
        let next = match self {
            Self::Publish { sorts } => match (state, event) {
                (Start, Load) => Start,
                (Stored, Load) if sorts => Stored,
                (Start | Stored, Store) => Stored,
                (Start | Stored, Release) => Published,
                (Start, Barrier) => Ordered,
                (Stored, Barrier) => StoredAndOrdered,
                (Ordered | StoredAndOrdered, Store) => Published,
                (StoredAndOrdered, Load) if sorts => Asked,
                (Ordered | Asked, Load) => Asked,
                (Published, Barrier) => Fenced,
                (Fenced | Done, Load) => Done,
                _ => return None,
            },
            Self::Poll => match (state, event) {
                (Start | Done, Load) => Loaded,
                (Loaded, LoadBarrier) => Done,
                _ => return None,
            },
            Self::Take => match (state, event) {
                (Start, Load) => Loaded,
                (Loaded, LoadBarrier) => Done,
                (Done, _) => Done,
                _ => return None,
            },
            Self::Enable => match (state, event) {
                (Start, Store) => Stored,
                (Start, Barrier) => Ordered,
                (Ordered | Asked, Load) => Asked,
                (Stored, Barrier) => Fenced,
                (Fenced | Done, Load) => Done,
                _ => return None,
            },
        };
        Some(next)
    }

    /// Whether the operation may end there.
    pub(super) fn may_end(self, state: State) -> bool {
        match state {
            State::Start | State::Published | State::Asked | State::Done => true,
            State::Stored => self == Self::Publish { sorts: true },
            // With nothing in flight there is nothing to look at.
            State::Ordered | State::Fenced => self == Self::Enable,
            State::StoredAndOrdered | State::Loaded => false,
        }
    }
}
