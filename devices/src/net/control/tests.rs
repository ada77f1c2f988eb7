use shmbus_ring::RingKind;
use shmbus_virtio::{Features, net};

use super::*;
use crate::net::test_device::{BASE, Dma, TestDevice};

fn control(rings: RingKind) -> (ControlQueue<shmbus_shm::Mapped>, TestDevice) {
    let features = net::CTRL_VQ | net::MQ | Features::EVENT_IDX;
    let dma = Dma::new(rings, features, 1, 16, 1536);
    let control = dma.layout.set_up(&dma.window, BASE).unwrap().control;
    (control.unwrap(), dma.device())
}

#[test]
fn a_command_is_obeyed_once_the_device_says_so() {
    for rings in RingKind::ALL {
        let (mut control, mut device) = control(rings);
        // More often than the queue has entries.
        for pairs in 1..30 {
            let _ = control.ask(Command::UsePairs(pairs)).unwrap();
            assert_eq!(control.is_obeyed(), Ok(false));
            let another = control.ask(Command::UsePairs(1));
            assert_eq!(another, Err(ControlError::OutOfTurn));
            let command = device.answer(&[OK]).unwrap();
            assert_eq!(command, [4, 0, pairs as u8, 0], "class 4, command 0");
            assert_eq!(control.is_obeyed(), Ok(true));
        }
        assert_eq!(control.is_obeyed(), Err(ControlError::OutOfTurn));
    }
}

#[test]
fn any_other_answer_is_an_error_and_the_next_command_goes_on() {
    let (mut control, mut device) = control(RingKind::ALL[0]);
    let command = Command::UsePairs(2);
    for (answer, expected) in [
        (&[ERROR][..], ControlError::Refused(command)),
        (&[7], ControlError::Answer { command, found: 7 }),
        (
            &[],
            ControlError::Answer {
                command,
                found: NO_ANSWER,
            },
        ),
    ] {
        let _ = control.ask(command).unwrap();
        device.answer(answer).unwrap();
        assert_eq!(control.is_obeyed(), Err(expected));
    }
    let _ = control.ask(command).unwrap();
    device.answer(&[OK]).unwrap();
    assert_eq!(control.is_obeyed(), Ok(true));
}
