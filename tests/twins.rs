//! Devices over tables and their twins over rings, as a user meets them: the same commands, the same answers.

mod support;

use support::Bus;

/// What carries a timer's values.
const CARRIERS: [&str; 7] = [
    "over=table",
    "over=ring-every",
    "over=ring-last",
    "over=ring-every,ring=packed-inorder,size=2",
    "over=ring-last,ring=packed,size=1",
    "over=ring-last,ring=tagged,size=16",
    "vcpus=3,over=ring-last,ring=split-inorder",
];

#[test]
fn timers_fire_over_every_carrier() {
    for carrier in CARRIERS {
        let bus = Bus::of_devices(&["clock", &format!("timer,{carrier}")]);
        let arguments = ["timer", "--count", "50", "--ahead", "500"];
        let timer = bus.guest(&arguments).finish().expect_success();
        // Each was set to a later time first, which never fires.
        for words in ["100 deadlines set", "50 superseded", "50 fired"] {
            assert!(timer.text().contains(words), "{carrier}: {words}: {timer}");
        }
        assert!(bus.counter("timer", "fired") >= 50, "{carrier}");
        bus.stop();
    }
}

#[test]
fn the_clock_s_twins_tell_the_time() {
    for carrier in ["over=ring-every", "over=ring-last,ring=packed,size=1"] {
        let bus = Bus::of_devices(&[&format!("clock,{carrier}")]);
        let clock = bus.guest(&["clock", "--count", "2"]).finish();
        let clock = clock.expect_success();
        let rows: Vec<Vec<&str>> = clock
            .text()
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 4, "{clock}");
        for row in &rows {
            let number = |column: usize| row[column].parse::<i64>().unwrap();
            let (time, off_by, bound) = (number(1), number(2), number(3));
            assert!(time > 0 && bound > 0, "{clock}");
            assert!(off_by.abs() < bound + 10_000_000, "{clock}");
        }
        assert_eq!(rows[0][0], rows[2][0], "the same clocks again: {clock}");
        bus.stop();
    }
}

/// The network's stacks run on the timer's twins as they do on the timer.
#[test]
fn a_file_is_moved_on_the_timer_s_twins() {
    for carrier in [
        "over=ring-every,size=2",
        "over=ring-last,ring=packed,size=1",
    ] {
        let bus = Bus::of_devices(&["net", "clock", &format!("timer,{carrier}")]);
        let file = support::contents(1_000_003);
        let server = bus.serve(&bus.scratch.offer("file", &file));
        bus.expect_fetch(&server, "file", &file);
    }
}
