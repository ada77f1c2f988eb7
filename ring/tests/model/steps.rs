//! What happens to a queue, at random.

use proptest::prelude::*;
use shmbus_virtio::Features;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Add {
        readable: Vec<u8>,
        writable: Vec<u8>,
        indirect: bool,
    },
    PublishAvailable,
    ExposeAvailable,
    DevicePoll,
    DeviceSpin,
    DeviceTake,
    /// Of a length, or of all that can be written.
    Complete(prop::sample::Index, Option<u8>),
    PublishUsed,
    ExposeUsed,
    DriverPoll,
    DriverSpin,
    DriverTake,
    DriverNotifications(Option<u16>),
    DeviceNotifications(bool),
    SaveDriver,
    SaveDevice,
    Reset,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || prop::collection::vec(0_u8..60, 0..5);
    let which = any::<prop::sample::Index>();
    let step = prop_oneof![
        120 => (lengths(), lengths(), any::<bool>()).prop_map(|(readable, writable, indirect)| {
            Step::Add { readable, writable, indirect }
        }),
        40 => Just(Step::PublishAvailable),
        20 => Just(Step::ExposeAvailable),
        40 => Just(Step::DevicePoll),
        20 => Just(Step::DeviceSpin),
        120 => Just(Step::DeviceTake),
        120 => (which, any::<Option<u8>>()).prop_map(|(at, len)| Step::Complete(at, len)),
        40 => Just(Step::PublishUsed),
        20 => Just(Step::ExposeUsed),
        40 => Just(Step::DriverPoll),
        20 => Just(Step::DriverSpin),
        120 => Just(Step::DriverTake),
        20 => prop::option::of(0_u16..6).prop_map(Step::DriverNotifications),
        20 => any::<bool>().prop_map(Step::DeviceNotifications),
        6 => Just(Step::SaveDriver),
        6 => Just(Step::SaveDevice),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 60 } else { 400 })
}

pub(crate) fn features() -> impl Strategy<Value = Features> {
    (any::<bool>(), any::<bool>()).prop_map(|(indirect, event_idx)| {
        let mut features = Features::empty();
        features.set(Features::INDIRECT_DESC, indirect);
        features.set(Features::EVENT_IDX, event_idx);
        features
    })
}
