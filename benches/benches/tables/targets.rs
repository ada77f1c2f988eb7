//! What the ratios should be.

use shmbus_benches::Target;

const fn target(bench: &'static str, peer: &'static str, target: f64) -> Target {
    Target {
        bench,
        peer,
        target,
        moonshot: None,
    }
}

/// All targets, in the order of the benchmarks. Where the best of several peers counts, each of them does.
pub(crate) const ALL: [Target; 22] = [
    target("oneway-8", "iceoryx2", 1.0),
    target("oneway-8", "triple_buffer", 1.0),
    target("oneway-8", "seqlock", 1.0),
    target("oneway-64", "iceoryx2", 0.6),
    target("oneway-256", "iceoryx2", 0.9),
    target("oneway-256", "triple_buffer", 0.9),
    target("oneway-256", "seqlock", 0.9),
    target("oneway-4096", "iceoryx2", 1.0),
    target("oneway-4096", "triple_buffer", 1.0),
    target("oneway-4096", "seqlock", 1.0),
    target("oneway-64-notify", "iceoryx2", 0.6),
    target("p999-64", "iceoryx2", 0.05),
    target("p999-256", "iceoryx2", 0.05),
    target("p999-4096", "iceoryx2", 0.05),
    target("write-64", "iceoryx2", 0.3),
    target("publish-64", "iceoryx2", 1.0),
    target("read-64", "triple_buffer", 1.3),
    target("notify-unarmed", "iceoryx2", 0.3),
    target("wakeup", "eventfd", 1.05),
    target("scan-clustered", "bitmap", 0.5),
    target("scan-scattered", "bitmap", 1.5),
    target("clock-read", "vdso", 1.0),
];
