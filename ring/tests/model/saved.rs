//! A side of the queue is saved, and lives on in another queue over the same memory.

use std::collections::BTreeMap;

use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverFormat, DriverQueue,
    DriverSlot, DriverState, StateError,
};

use crate::run::Run;

impl<D: DriverFormat, V: DeviceFormat> Run<'_, D, V> {
    pub(crate) fn save_driver(&mut self) {
        let mut memory = vec![0; DriverState::max_bytes(self.size)];
        let state = match self.driver.save(&mut memory) {
            Ok(state) => state,
            Err(StateError::Unpublished) => {
                assert!(!self.available.is_published());
                return;
            }
            Err(StateError::Untaken) => {
                assert!(self.rules.in_order && self.used.has_published());
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(self.available.is_published());
        let mut cookies = BTreeMap::new();
        self.driver.take_cookies(|id, lent| {
            cookies.insert(id, lent);
        });
        let state = DriverState::parse(state.as_bytes()).unwrap();
        assert_eq!(state.chains().count(), cookies.len());
        let slots = (0..self.size).map(|_| DriverSlot::new()).collect();
        let restored = DriverQueue::restore((self.driver_ring)(), slots, &state, |id| {
            cookies.remove(&id)
        });
        self.driver = restored.unwrap();
        self.used.restore_reader();
    }

    pub(crate) fn save_device(&mut self) {
        let mut memory = vec![0; DeviceState::max_bytes(self.size)];
        let state = match self.device.save(&mut memory) {
            Ok(state) => DeviceState::parse(state.as_bytes()).unwrap(),
            Err(StateError::Unpublished) => {
                assert!(!self.used.is_published());
                return;
            }
            Err(StateError::Overwritten { .. }) => {
                assert!(self.rules.by_descriptor && !self.rules.in_order);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(self.used.is_published());
        let slots = vec![DeviceSlot::new(); usize::from(self.size)];
        let restored = DeviceQueue::restore((self.device_ring)(), slots, &state);
        self.device = restored.unwrap();
        if self.rules.in_order {
            // What is not shown is taken anew, completed or not.
            assert_eq!(state.chains().count(), 0);
            self.in_flight.clear();
            self.early.clear();
            while let Some(made) = self.turns.pop_back() {
                let entries = made.3;
                self.available.give_back(made, entries);
            }
        } else {
            self.retake(&state);
        }
        self.available.restore_reader();
    }

    /// Each chain that was in flight is handed out again, with the same buffers.
    fn retake(&mut self, state: &DeviceState<'_>) {
        let mut segments = [Buffer::default(); 16];
        let mut again = Vec::new();
        for chain in state.chains() {
            let chain = self.device.retake(chain, &self.space, &mut segments);
            let chain = chain.unwrap().expect("it was in flight");
            let at = self.in_flight.iter().position(|taken| {
                taken.head.index() == chain.index() && taken.writable == chain.writable()
            });
            let mut taken = self.in_flight.swap_remove(at.expect("another chain"));
            taken.head = chain.into_head();
            again.push(taken);
        }
        assert!(self.in_flight.is_empty(), "not in the state");
        self.in_flight = again;
    }
}
