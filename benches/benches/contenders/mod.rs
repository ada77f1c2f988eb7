//! Who is compared with whom, and at what exactly.

mod table;

use shmbus_benches::Comparison;

/// Every comparison.
pub(crate) const ALL: [Comparison; 5] = [
    Comparison {
        name: "table/write-64",
        about: "one thread writes a value of 64 bytes; ours also marks its generation tree",
        set_up: table::writes,
    },
    Comparison {
        name: "table/read-64",
        about: "one thread reads a value of 64 bytes that nobody is writing",
        set_up: table::reads,
    },
    Comparison {
        name: "table/one-way-8",
        about: "a value of 8 bytes from core to core, by half a round trip",
        set_up: table::one_way::<1>,
    },
    Comparison {
        name: "table/one-way-64",
        about: "a value of 64 bytes from core to core, by half a round trip",
        set_up: table::one_way::<8>,
    },
    Comparison {
        name: "table/one-way-4096",
        about: "a value of 4096 bytes from core to core, by half a round trip",
        set_up: table::one_way::<512>,
    },
];
