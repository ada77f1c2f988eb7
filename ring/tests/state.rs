//! Queues that are saved with chains in flight and go on in another life: no buffer is lost, none comes back twice; and
//! what a state may not say is refused by its name.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use shmbus_ring::{
    Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverFormat,
    DriverQueue, DriverSlot, DriverState, StateError, packed, split,
};
use shmbus_shm::{Mapped, OffsetSpace};
use shmbus_virtio::Features;
use support::IN_ORDER;
use support::heap_ring::{self, bytes, space};
use support::packed_ring;

const SIZE: u16 = 8;

type Driver<D> = DriverQueue<D, u64, Vec<DriverSlot<u64>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Both sides of a ring, and how to make their rings anew over the same memory.
struct Lives<D, V, ND, NV> {
    driver: Driver<D>,
    device: Device<V>,
    new_driver_ring: ND,
    new_device_ring: NV,
    space: OffsetSpace<Mapped>,
    /// Chains that were taken and not completed.
    held: Vec<(ChainHead, Vec<u8>)>,
    lent: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Lends a chain of so many readable buffers, and makes it available.
    Lend(u8),
    /// Takes up to so many chains.
    Take(u8),
    /// Completes the chain that was taken at this place.
    Complete(u8),
    Reap,
    SaveDriver,
    SaveDevice,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Step::Lend),
        3 => (0..4_u8).prop_map(Step::Take),
        3 => any::<u8>().prop_map(Step::Complete),
        2 => Just(Step::Reap),
        1 => Just(Step::SaveDriver),
        1 => Just(Step::SaveDevice),
    ]
}

impl<D, V, ND, NV> Lives<D, V, ND, NV>
where
    D: DriverFormat,
    V: DeviceFormat,
    ND: Fn() -> D,
    NV: Fn() -> V,
{
    fn new(new_driver_ring: ND, new_device_ring: NV) -> Self {
        Self {
            driver: DriverQueue::with_heap(new_driver_ring()),
            device: DeviceQueue::with_heap(new_device_ring()),
            new_driver_ring,
            new_device_ring,
            space: space(64 * 256),
            held: Vec::new(),
            lent: BTreeMap::new(),
            next: 0,
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Lend(extra) => self.lend(usize::from(extra)),
                Step::Take(most) => self.take(usize::from(most)),
                Step::Complete(place) => self.complete(usize::from(place)),
                Step::Reap => self.reap(),
                Step::SaveDriver => self.save_driver(),
                Step::SaveDevice => self.save_device(),
            }
        }
        // Everything comes back in the end.
        self.take(usize::MAX);
        while !self.held.is_empty() {
            self.complete(0);
        }
        self.reap();
        assert!(self.lent.is_empty(), "lost: {:?}", self.lent);
        assert_eq!(self.driver.free(), self.driver.size());
    }

    fn lend(&mut self, extra: usize) {
        let number = self.next;
        let place = 64 * (number % 256);
        let content: Vec<u8> = (0..8).map(|at| (number * 7 + at) as u8).collect();
        let mut readable = vec![Buffer::new(place, 8)];
        readable.extend((0..extra).map(|_| Buffer::new(place + 16, 1)));
        if self
            .driver
            .add(&readable, &[Buffer::new(place + 32, 8)], number)
            .is_ok()
        {
            bytes(&self.space, readable[0]).copy_from(0, &content);
            self.lent.insert(number, content);
            self.next += 1;
        }
        let _ = self.driver.publish();
    }

    fn take(&mut self, most: usize) {
        let mut segments = [Buffer::default(); SIZE as usize];
        while self.held.len() < most {
            if self.device.poll().unwrap() == 0 {
                break;
            }
            let Some(chain) = self.device.take(&self.space, &mut segments).unwrap() else {
                break;
            };
            self.held.push(read(chain, &self.space));
        }
    }

    fn complete(&mut self, place: usize) {
        if self.held.is_empty() {
            return;
        }
        let (head, content) = self.held.remove(place % self.held.len());
        // Its answer is the request; not always all that is writable.
        let written = content[0] % 8 + 1;
        self.device.complete(head, u32::from(written)).unwrap();
        let _ = self.device.publish();
    }

    fn reap(&mut self) {
        while self.driver.poll().unwrap() > 0 {
            while let Some(used) = self.driver.take().unwrap() {
                let content = self.lent.remove(&used.cookie);
                let content = content.expect("it comes back once");
                assert_eq!(used.written, u32::from(content[0] % 8 + 1));
                let answer = Buffer::new(64 * (used.cookie % 256) + 32, used.written);
                let mut found = vec![0; used.written as usize];
                bytes(&self.space, answer).copy_to(0, &mut found);
                assert_eq!(found, content[..found.len()]);
            }
        }
    }

    fn save_driver(&mut self) {
        let mut memory = vec![0; DriverState::max_bytes(SIZE)];
        let state = self.driver.save(&mut memory).unwrap();
        assert_eq!(usize::from(state.positions().in_flight), self.lent.len());
        // What was lent is the caller's to keep, by id.
        let cookies: Vec<u64> = self.lent.keys().copied().collect();
        let ids: Vec<u16> = state.chains().map(|chain| chain.id).collect();
        let by_id: BTreeMap<u16, u64> = ids.into_iter().zip(cookies).collect();
        let bytes = state.as_bytes().to_vec();
        let state = DriverState::parse(&bytes).unwrap();
        let slots = (0..SIZE).map(|_| DriverSlot::new()).collect();
        self.driver = DriverQueue::restore((self.new_driver_ring)(), slots, &state, |id| {
            by_id.get(&id).copied()
        })
        .unwrap();
    }

    fn save_device(&mut self) {
        let mut memory = vec![0; DeviceState::max_bytes(SIZE)];
        let bytes = match self.device.save(&mut memory) {
            Ok(state) => state.as_bytes().to_vec(),
            Err(StateError::Overwritten { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let state = DeviceState::parse(&bytes).unwrap();
        let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
        self.device = DeviceQueue::restore((self.new_device_ring)(), slots, &state).unwrap();
        let held = std::mem::take(&mut self.held);
        let mut segments = [Buffer::default(); SIZE as usize];
        for chain in state.chains() {
            let chain = self.device.retake(chain, &self.space, &mut segments);
            self.held
                .push(read(chain.unwrap().expect("in flight"), &self.space));
        }
        if state.kind().in_order {
            self.take(held.len());
        }
        let contents = |held: &[(ChainHead, Vec<u8>)]| -> Vec<Vec<u8>> {
            let mut contents: Vec<_> = held.iter().map(|(_, content)| content.clone()).collect();
            contents.sort();
            contents
        };
        if !state.kind().in_order {
            assert_eq!(contents(&held), contents(&self.held));
        }
    }
}

/// Reads the request and writes the answer.
fn read(chain: shmbus_ring::Chain<'_>, space: &OffsetSpace<Mapped>) -> (ChainHead, Vec<u8>) {
    let mut content = vec![0; 8];
    assert_eq!(chain.read(space, 0, &mut content), Ok(8));
    assert_eq!(chain.write(space, 0, &content), Ok(8));
    (chain.into_head(), content)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_sides_of_a_split_ring_live_on(steps in prop::collection::vec(step(), 1..80)) {
        let memory = heap_ring::Memory::new(SIZE);
        let areas = || memory.areas();
        Lives::new(
            || split::DriverRing::new(areas(), Features::EVENT_IDX).unwrap(),
            || split::DeviceRing::new(areas(), Features::EVENT_IDX).unwrap(),
        )
        .run(&steps);
    }

    #[test]
    fn both_sides_of_a_split_ring_in_order_live_on(steps in prop::collection::vec(step(), 1..80)) {
        let memory = heap_ring::Memory::new(SIZE);
        let areas = || memory.areas();
        Lives::new(
            || split::InOrderDriverRing::new(areas(), IN_ORDER).unwrap(),
            || split::InOrderDeviceRing::new(areas(), IN_ORDER).unwrap(),
        )
        .run(&steps);
    }

    #[test]
    fn both_sides_of_a_packed_ring_live_on(steps in prop::collection::vec(step(), 1..80)) {
        let memory = packed_ring::Memory::new(SIZE);
        let areas = || memory.areas();
        Lives::new(
            || packed::DriverRing::new(areas(), Features::EVENT_IDX).unwrap(),
            || packed::DeviceRing::new(areas(), Features::EVENT_IDX).unwrap(),
        )
        .run(&steps);
    }

    #[test]
    fn both_sides_of_a_packed_ring_in_order_live_on(steps in prop::collection::vec(step(), 1..80)) {
        let memory = packed_ring::Memory::new(SIZE);
        let areas = || memory.areas();
        Lives::new(
            || packed::InOrderDriverRing::new(areas(), IN_ORDER).unwrap(),
            || packed::InOrderDeviceRing::new(areas(), IN_ORDER).unwrap(),
        )
        .run(&steps);
    }
}
