//! Notifying a receiver that has not asked for it since the last time.

use std::hint::black_box;
use std::time::Instant;

use iceoryx2::prelude::ServiceName;
use shmbus_benches::{Comparison, Contender, SetUpError, pin_to_first_processor};
use shmbus_shm::{SharedMemory, Writers};
use shmbus_signal::suppress::{DoorbellLayout, Sender};

use super::blackboard::{node, unused_name};
use super::{HONEST, ICEORYX2, OURS};

pub(super) fn comparison() -> Comparison {
    Comparison::new(
        "notify-unarmed",
        "one thread notifies a receiver that has not armed since; iceoryx2's event is pending already",
        || {
            pin_to_first_processor()?;
            Ok(vec![ours()?, iceoryx2()?])
        },
    )
}

fn ours() -> Result<Contender, SetUpError> {
    let layout = DoorbellLayout::new(64)?;
    let create = |bytes: usize| SharedMemory::create("bench", bytes as u64, Writers::Creator);
    let (tree, armed) = (
        create(layout.tree_bytes())?,
        create(DoorbellLayout::ARMED_BYTES)?,
    );
    let mut sender = Sender::new(tree.window(), armed.window(), layout)?;
    Ok(Contender::new(OURS, move |operations| {
        let start = Instant::now();
        for _ in 0..operations {
            black_box(sender.raise(black_box(5)).expect(HONEST).is_needed());
        }
        start.elapsed()
    }))
}

fn iceoryx2() -> Result<Contender, SetUpError> {
    let node = node()?;
    let event = node
        .service_builder(&ServiceName::new(&unused_name())?)
        .event()
        .create()?;
    let listener = event.listener_builder().create()?;
    let notifier = event.notifier_builder().create()?;
    notifier.notify()?;
    Ok(Contender::new(ICEORYX2, move |operations| {
        let _ = (&listener, &node);
        let start = Instant::now();
        for _ in 0..operations {
            black_box(notifier.notify().expect(HONEST));
        }
        start.elapsed()
    }))
}
