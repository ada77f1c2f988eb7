//! A card that is emulated, with a station at the other end of its wire.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use shmbus_devices::net::app::ping::{Ping, PingConfig};
use shmbus_devices::net::host::GuestPort;
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::queues::QueueMemory;
use shmbus_devices::net::stack::{Stack, StackConfig};
use shmbus_ring::any::{Areas, DeviceRing};
use shmbus_ring::{Buffer, DeviceQueue, packed, split};
use shmbus_transports::pci::emulated::{
    Blueprint, EmulatedDevice, EmulatedDma, EmulatedFunction, QueueAddresses,
};
use shmbus_virtio::{DeviceId, DeviceStatus, net};

use super::*;

const CARD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const STATION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

const OFFERED: Features = net::MAC
    .union(net::STATUS)
    .union(net::MTU)
    .union(net::CSUM)
    .union(net::GUEST_CSUM);

/// An emulated card: features beside those above, and queue pairs.
fn blueprint(features: Features, max_pairs: u16) -> Blueprint {
    let config = NetConfig {
        max_pairs,
        ..NetConfig::new(MacAddress::local(1))
    };
    let queues = 2 * max_pairs + u16::from(features.contains(net::CTRL_VQ));
    Blueprint::new(DeviceId::NET, OFFERED | features, queues, &config.encode())
}

fn build(blueprint: &Blueprint) -> (EmulatedFunction, EmulatedDevice, EmulatedDma) {
    let dma = EmulatedDma::new(16 << 20);
    let (function, device) = blueprint.build(&dma);
    (function, device, dma)
}

fn options() -> CardOptions {
    CardOptions::new(CARD, 24)
}

type Cards = Network<Card<EmulatedFunction>>;

fn refused(blueprint: &Blueprint, options: &CardOptions) -> String {
    let (function, device, dma) = build(blueprint);
    let error = Cards::on_card(function, &dma, options).err().unwrap();
    assert!(!device.is_bus_master(), "it was let go");
    error.to_string()
}

/// The device's end of a queue, from what the driver told the device.
fn queue(
    device: &EmulatedDevice,
    number: u16,
) -> DeviceQueue<DeviceRing<Mapped>, Vec<shmbus_ring::DeviceSlot>> {
    let features = device.features();
    let QueueAddresses {
        size,
        descriptor_area,
        driver_area,
        device_area,
    } = device.queue(number).expect("an enabled queue");
    let window = |address, bytes| device.window(address, bytes).expect("memory of the card's");
    let areas = if features.contains(Features::RING_PACKED) {
        let layout = packed::Layout::new(size).unwrap();
        let descriptors = window(descriptor_area, layout.descriptors_bytes());
        let driver = window(driver_area, layout.driver_area_bytes());
        let device = window(device_area, layout.device_area_bytes());
        Areas::Packed(packed::Areas::new(layout, &descriptors, &driver, &device).unwrap())
    } else {
        let layout = split::Layout::new(size).unwrap();
        let descriptors = window(descriptor_area, layout.descriptors_bytes());
        let available = window(driver_area, layout.available_bytes());
        let used = window(device_area, layout.used_bytes());
        Areas::Split(split::Areas::new(layout, &descriptors, &available, &used).unwrap())
    };
    DeviceQueue::with_heap(DeviceRing::new(areas, features).unwrap())
}

/// A station that answers echo requests at the other end of the wire.
struct Station {
    device: EmulatedDevice,
    stack: Stack<GuestPort<DeviceRing<Mapped>, EmulatedDevice>>,
}

impl Station {
    fn new(device: &EmulatedDevice) -> Self {
        let port = GuestPort::new(
            queue(device, 0),
            device.clone(),
            queue(device, 1),
            device.clone(),
            device.features(),
            1500,
        );
        let memory = QueueMemory::new(256, 1500).unwrap();
        let config = StackConfig::new(MacAddress::local(2), STATION, 24, memory);
        Self {
            device: device.clone(),
            stack: Stack::new(port, &config, Duration::ZERO).unwrap(),
        }
    }

    fn turn(&mut self, now: Duration) {
        let polled = self.stack.poll(now, 64);
        for (queue, notify) in [
            (0, polled.notifications.receiveq),
            (1, polled.notifications.transmitq),
        ] {
            if notify.is_needed() {
                assert!(self.device.signal_queue(queue).unwrap());
            }
        }
    }
}

#[test]
fn a_card_is_driven_and_its_vectors_wake_the_stack() {
    for features in [
        Features::empty(),
        Features::EVENT_IDX | Features::INDIRECT_DESC,
        Features::RING_PACKED | Features::EVENT_IDX,
        Features::RING_PACKED | Features::IN_ORDER | Features::INDIRECT_DESC,
    ] {
        let (function, device, dma) = build(&blueprint(features, 1));
        let mut network = Cards::on_card(function, &dma, &options()).unwrap();
        assert!(network.features().contains(features));
        assert_eq!(network.config().mac, MacAddress::local(1));
        let mut station = Station::new(&device);
        let config = PingConfig {
            count: 3,
            interval: Duration::from_millis(1),
            ..PingConfig::new(STATION)
        };
        let mut ping = Ping::new(network.stack(), config);
        let mut answers = 0;
        let ended = network.run(&mut ping, |_, ping, now| {
            station.turn(now);
            while let Some(echo) = ping.next_echo() {
                answers += u32::from(echo.round_trip.is_some());
            }
            if ping.is_done() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(matches!(ended, Ok(Ended::Done)), "{ended:?}");
        assert_eq!(answers, 3);
        let counters = network.counters();
        assert!(counters.interrupts.receive > 0, "{counters:?}");
        assert_eq!(counters.interrupts.shared, 0);
        assert_eq!(
            counters.pairs[0].received_frames,
            counters.stack.received_frames
        );
        assert!(counters.notifications > 0);

        network.finish().unwrap();
        assert!(!device.is_bus_master() && device.status() == DeviceStatus::empty());
        assert_eq!((device.breaches(), device.strayed()), (Vec::new(), 0));
    }
}

/// Runs with nothing to do until the environment, or `limit` turns, end it.
fn idle(network: &mut Cards, mut each: impl FnMut(&Cards)) -> Result<Ended, NetworkError> {
    let config = PingConfig {
        interval: Duration::from_millis(1),
        ..PingConfig::new(STATION)
    };
    let mut ping = Ping::new(network.stack(), config);
    let mut turns = 0;
    network.run(&mut ping, |network, _, _| {
        each(network);
        turns += 1;
        if turns == 5 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
}

#[test]
fn a_change_of_the_link_is_seen() {
    let (function, device, dma) = build(&blueprint(Features::empty(), 1));
    let mut network = Cards::on_card(function, &dma, &options()).unwrap();
    assert!(network.config().link_up);
    let mut seen = Vec::new();
    let ended = idle(&mut network, |network| {
        let up = network.config().link_up;
        seen.push(up);
        let signalled = device
            .change_config(|config| config[6] = u8::from(!up))
            .unwrap();
        assert!(signalled);
    });
    assert!(matches!(ended, Ok(Ended::Done)), "{ended:?}");
    assert_eq!(seen, [true, false, true, false, true]);
    assert_eq!(network.counters().interrupts.configuration, 4);
}

#[test]
fn a_card_that_needs_a_reset_ends_the_network_with_that() {
    let (function, device, dma) = build(&blueprint(Features::empty(), 1));
    let mut network = Cards::on_card(function, &dma, &options()).unwrap();
    let error = idle(&mut network, |_| {
        device.ask_for_reset();
        assert!(device.change_config(|_| {}).unwrap());
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("asks for a reset"), "{error}");
    drop(network);
    assert!(!device.is_bus_master());
}

/// Answers commands in the thread that notifies.
fn obedient(device: &EmulatedDevice, number: u16, answer: u8) -> Arc<Mutex<Vec<Vec<u8>>>> {
    let commands = Arc::new(Mutex::new(Vec::new()));
    let (told, of) = (Arc::clone(&commands), device.clone());
    device.on_notify(move |notification| {
        if notification.value != u32::from(number) {
            return;
        }
        let mut control = queue(&of, number);
        let mut segments = [Buffer::default(); 8];
        control.poll().unwrap();
        while let Some(chain) = control.take(&of, &mut segments).unwrap() {
            let mut command = vec![0; chain.readable_bytes() as usize];
            chain.read(&of, 0, &mut command).unwrap();
            let written = chain.write(&of, 0, &[answer]).unwrap();
            control.complete(chain, written as u32).unwrap();
            told.lock().unwrap().push(command);
        }
        if control.publish().is_needed() {
            of.signal_queue(number).unwrap();
        }
    });
    commands
}

#[test]
fn several_pairs_are_asked_for_by_the_control_queue() {
    let several = net::MQ | net::CTRL_VQ;
    let options = CardOptions {
        queue_pairs: 2,
        required: several,
        ..options()
    };
    // Of three pairs, two are used; the control queue is behind all of them.
    let control = 6;
    for vectors in [1, 2, 5, 6] {
        let mut blueprint = blueprint(several, 3);
        blueprint.msix.as_mut().unwrap().last_vector = vectors - 1;
        let (function, device, dma) = build(&blueprint);
        let commands = obedient(&device, control, 0);
        let network = Cards::on_card(function, &dma, &options).unwrap();
        assert_eq!(*commands.lock().unwrap(), [[4, 0, 2, 0]]);
        let enabled = [0, 1, 2, 3, 4, 5, 6].map(|queue| device.queue(queue).is_some());
        assert_eq!(enabled, [true, true, true, true, false, false, true]);
        assert_eq!(network.counters().pairs.len(), 2);
        let eventfds = match vectors {
            1 => 1,
            6 => 6,
            _ => 2,
        };
        assert_eq!(device.eventfds(), eventfds);
        assert_eq!(device.breaches(), Vec::<String>::new());
    }

    let (function, device, dma) = build(&blueprint(several, 3));
    obedient(&device, control, 1);
    let error = Cards::on_card(function, &dma, &options).err().unwrap();
    let refusal = "refuses VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET(2)";
    assert!(error.to_string().contains(refusal), "{error}");
}

#[test]
fn what_a_card_cannot_or_must_not_say_is_refused() {
    let several = net::MQ | net::CTRL_VQ;
    let honest = blueprint(Features::empty(), 1);
    let with = |change: &dyn Fn(&mut Blueprint)| {
        let mut blueprint = blueprint(several, 2);
        change(&mut blueprint);
        blueprint
    };
    let pairs = |queue_pairs| CardOptions {
        queue_pairs,
        ..options()
    };
    let required = |required| CardOptions {
        required,
        ..options()
    };
    for (blueprint, options, reason) in [
        (
            Blueprint::new(DeviceId(2), OFFERED, 1, &[0; 12]),
            options(),
            "a net device was expected",
        ),
        (
            honest.clone(),
            required(Features::RING_PACKED),
            "are required",
        ),
        (honest.clone(), pairs(0), "0 queue pairs are wanted"),
        (
            honest.clone(),
            pairs(2),
            "2 queue pairs are wanted, and the card has 1",
        ),
        (
            with(&|_| {}),
            pairs(3),
            "3 queue pairs are wanted, and the card has 2",
        ),
        (
            with(&|card| card.config[8] = 0),
            pairs(2),
            "1 to 32768 queue pairs",
        ),
        (
            with(&|card| card.config[0] = 1),
            options(),
            "cannot be an interface's own MAC",
        ),
        (
            with(&|card| card.config[10..12].fill(0)),
            options(),
            "MTU of 68",
        ),
        (
            with(&|card| card.queues[1].max_size = 0),
            options(),
            "queue 1 has 0 entries",
        ),
        (
            with(&|card| card.queues[4].max_size = 4),
            pairs(2),
            "queue 4 has 4 entries",
        ),
        (with(&|card| card.queues.truncate(3)), pairs(2), "queue 3"),
        (
            with(&|card| card.msix = None),
            options(),
            "no MSI-X vectors",
        ),
    ] {
        let error = refused(&blueprint, &options);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}
