//! What a hostile device's registers read as.

use super::register::{CommonRegister, Register};

/// Told the register that is read and its honest value, says what is read instead. Higher bits than the access has are
/// cut off.
pub type Lie = Box<dyn FnMut(Register, u32) -> u32 + Send>;

/// One register of the common configuration always reads as `value`.
pub fn stuck(register: CommonRegister, value: u32) -> Lie {
    Box::new(move |read, honest| {
        if read == Register::Common(register) {
            value
        } else {
            honest
        }
    })
}

/// One register of the common configuration reads as `change` makes it of its honest value.
pub fn changed(
    register: CommonRegister,
    mut change: impl FnMut(u32) -> u32 + Send + 'static,
) -> Lie {
    Box::new(move |read, honest| {
        if read == Register::Common(register) {
            change(honest)
        } else {
            honest
        }
    })
}

/// The function is gone: everything reads as all ones.
pub fn gone() -> Lie {
    Box::new(|_, _| u32::MAX)
}

/// The configuration is another one at each read.
pub fn restless() -> Lie {
    let mut generation = 0_u32;
    changed(CommonRegister::ConfigGeneration, move |_| {
        generation += 1;
        generation
    })
}

/// Every register reads as something else each time, but `one_in` of them only, in the long run.
pub fn random(seed: u64, one_in: u64) -> Lie {
    let mut state = seed;
    let mut next = move || {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    Box::new(move |_, honest| {
        if next().is_multiple_of(one_in.max(1)) {
            next() as u32
        } else {
            honest
        }
    })
}
