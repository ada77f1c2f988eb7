//! Who is compared with whom, and at what exactly.

mod split;
mod table;

use shmbus_benches::Comparison;

/// Every comparison.
pub(crate) const ALL: [Comparison; 9] = [
    Comparison {
        name: "split/device-each",
        about: "one thread: pop, find the buffer, complete, publish and decide on the notification",
        set_up: split::device_each,
    },
    Comparison {
        name: "split/device-batch",
        about: "the same, published together where the interface can",
        set_up: split::device_batch,
    },
    Comparison {
        name: "split/round-trip",
        about: "our driver and the device on a processor each, one chain there and back",
        set_up: split::round_trip,
    },
    Comparison {
        name: "split/stream-32",
        about: "our driver and the device on a processor each, up to 32 chains with the device",
        set_up: split::stream,
    },
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
