//! A clock's slot with any words, read at any counter value: an error, or a reading that stays within what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_devices::clock::ClockSample;
use shmbus_table::Value;

fuzz_target!(|input: ([u64; ClockSample::WORDS], u64)| {
    let (words, counter) = input;
    let Ok(sample) = ClockSample::decode(&words) else {
        return;
    };
    let mut encoded = [0; ClockSample::WORDS];
    sample.encode(&mut encoded);
    assert_eq!(encoded, words);
    if let Ok(reading) = sample.extrapolate(counter) {
        assert!(reading.age_ns <= sample.valid_for_ns);
        assert!(reading.error_ns >= sample.error_ns);
    }
});
