//! Measures shmbus beside its peers.
//!
//! Machines drift: the way between two cores may cost a third more a second later, and a process may be lucky with its
//! pages. So what is compared runs interleaved, in short repetitions ([`interleave`]), in several processes one after
//! the other, and the result is the median of the ratios within each repetition, with bounds that a bootstrap over
//! processes and repetitions gives ([`ratio`]).
//!
//! The contenders themselves, with what exactly is compared, are in `benches/contenders`; `docs/benchmarks.md` says how
//! to read what comes out.
//!
//! ```
//! let runs = [vec![(10.0, 20.0), (11.0, 20.0)], vec![(30.0, 60.0)]];
//! let ratio = shmbus_benches::ratio(&runs);
//! assert_eq!((ratio.median, ratio.repetitions), (0.5, 3));
//! ```
#![forbid(unsafe_code)]

mod age;
mod companion;
mod contender;
mod effort;
mod line;
mod measure;
mod options;
mod partner;
mod processes;
mod realtime;
mod report;
mod round_trip;
mod statistics;
mod suite;
mod targets;

pub use age::{AgeLine, AgePoint};
pub use companion::{Companion, Session, companion_of};
pub use contender::{Comparison, Contender, Cost, SetUpError, interleave};
pub use effort::Effort;
pub use line::{Line, Misses, Notifications};
pub use measure::Measure;
pub use options::Options;
pub use partner::{Partner, TooFewProcessors, pin_to_first_processor, two_processors};
pub use processes::{
    ProcessError, Run, Single, compare_here, compare_in_process, run_here, run_in_process,
};
pub use realtime::run_in_real_time;
pub use round_trip::round_trip;
pub use statistics::{Pair, Ratio, median, ratio};
pub use suite::{measure_here, run_suite};
pub use targets::{Target, Verdict};
