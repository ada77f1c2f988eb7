//! Devices over tables and their twins over rings, as a user meets them: the same commands, the same answers.

mod support;

use support::{Bus, eventually};

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

/// What carries the lines of an interrupt controller.
const LINES_OVER: [&str; 5] = [
    "over=ring-every",
    "over=ring-last",
    "over=ring-every,ring=packed-inorder,size=2",
    "over=ring-last,ring=packed,size=1",
    "over=ring-last,ring=tagged,size=16",
];

/// As over tables: edges come together and none is lost, a level lasts as long as it is held and falls with whoever holds
/// it.
#[test]
fn guests_interrupt_each_other_over_every_ring() {
    for carrier in LINES_OVER {
        let bus = Bus::of_devices(&[&format!("intc,lines=1000,{carrier}")]);
        let watch = |arguments: &[&str]| {
            let watching = bus.guest(&[&["intc", "watch"], arguments].concat());
            watching.said("taking interrupts");
            watching
        };
        let everything = watch(&[]);
        let some = watch(&["7:3", "999:0"]);
        for arguments in [["7", "--edges", "500"], ["8", "--edges", "1"]] {
            let raising = bus.guest(&[&["intc", "raise"], &arguments[..]].concat());
            raising.finish().expect_success();
        }
        bus.guest(&["intc", "hold", "999", "--seconds", "0.1"])
            .finish()
            .expect_success();
        let holder = bus.guest(&["intc", "hold", "3", "--seconds", "3600"]);
        eventually("line 3 is held", || {
            (bus.counter("intc", "asserted") == 2).then_some(())
        });
        holder.kill();
        eventually("the holder is gone", || (bus.guests() == 2).then_some(()));
        assert_eq!(bus.counter("intc", "raised"), 501, "{carrier}");

        for (watching, line, expected) in [(everything, 3, 501), (some, 999, 500)] {
            let watched = watching.stop().expect_success();
            let sum = format!("for {expected} edges");
            let fell = format!("line {line}: the level fell");
            for words in [sum, fell] {
                assert!(watched.text().contains(&words), "{carrier}: {watched}");
            }
        }
        bus.stop();
    }
}

#[test]
fn the_clock_s_twins_tell_the_time() {
    for carrier in ["over=ring-every", "over=ring-last,ring=packed,size=1"] {
        let bus = Bus::of_devices(&[&format!("clock,{carrier}")]);
        bus.tells_the_time();
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
