//! A guest that is let in and then writes whatever it likes, wherever it may: it harms itself alone.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use shmbus::control::{DeviceOffer, DriverState, role};
use shmbus::devices::Regions;
use shmbus::devices::net::{config::NetConfig, device as net};
use shmbus::shm::slot::Epoch;
use shmbus::shm::{
    DirectoryHeader, DirectoryReader, Field, Mapped, MemoryId, MemoryMap, Region, RegionKind,
    Window,
};
use shmbus::signal::suppress::{DoorbellLayout, Sender};
use shmbus::signal::{CLASSES, ChannelId};
use shmbus::table::{Header, TypedReader, TypedWriter};
use shmbus::transports::Memory;
use shmbus::transports::local::{GuestLink, GuestName, GuestOptions, connect};
use shmbus::virtio::{DeviceId, DeviceStatus, Features};

use support::{Bus, LIMIT, Random, Traffic, contents, sha256};

/// How long it goes on.
const TIME: Duration = Duration::from_secs(3);

/// What the host may say about it: a few lines at first, and then one a second.
const MOST_LINES: usize = 100;

const FILE_BYTES: usize = 10_000_000;

type Device = Option<u32>;

/// A session, with everything that an honest guest keeps to itself.
struct Intruder {
    link: GuestLink,
    regions: BTreeMap<(Device, u16), (Region, Mapped)>,
    offers: TypedReader<DeviceOffer, Mapped, Vec<u64>>,
    drivers: TypedWriter<DriverState, Mapped, Vec<u64>>,
    bells: Vec<Sender<Mapped, Mapped>>,
    random: Random,
}

/// What came of it.
#[derive(Debug, Default)]
struct Deeds {
    sessions: u64,
    words: u64,
    storms: u64,
    activations: u64,
    /// How often a device was found to need a reset.
    latched: u64,
}

impl Intruder {
    /// Comes in like any guest.
    fn enter(socket: &Path, random: Random) -> Self {
        let options = GuestOptions::new(GuestName::new("intruder").unwrap());
        let invitation = connect(socket, &options, LIMIT).unwrap();
        let bytes = invitation.guest_memory_bytes();
        let own = Memory::create(MemoryId::GUEST, "intruder", bytes, 1).unwrap();
        let regions = regions(invitation.memories().iter().chain([&own]));
        let table = &regions[&(None, role::DEVICE_TABLE)].1;
        let devices = Header::read(table).unwrap().layout.slots();
        let storage = || vec![0; devices as usize];
        let offers = TypedReader::attach(table.clone(), storage(), storage()).unwrap();
        let drivers = drivers(&regions, devices);
        let link = invitation.complete(own).unwrap();
        let bells = (0..CLASSES as u16).map(|class| bell(&regions, class));
        Self {
            link,
            offers,
            drivers,
            bells: bells.collect(),
            regions,
            random,
        }
    }

    /// Sets a device up, as an honest driver would.
    fn activate(&mut self, device: u32) {
        let (offer, _) = self.offers.read(device).unwrap();
        if offer.id == DeviceId::NET {
            let mut words = [0; NetConfig::WORDS];
            words.copy_from_slice(&offer.config[..NetConfig::WORDS]);
            let config = NetConfig::decode_words(&words).unwrap();
            // It formats the queues; what is behind them is of no interest here.
            drop(net::attach(
                &self.of_device(device),
                &config,
                offer.features,
            ));
        }
        let ready = DeviceStatus::ACKNOWLEDGE
            | DeviceStatus::DRIVER
            | DeviceStatus::FEATURES_OK
            | DeviceStatus::DRIVER_OK;
        self.write_status(device, ready.bits(), offer.features);
    }

    fn write_status(&mut self, device: u32, status: u8, features: Features) {
        let state = DriverState {
            status,
            features,
            ..DriverState::default()
        };
        let _ = self.drivers.publish(device, &state).unwrap();
        let (region, _) = &self.regions[&(None, role::DRIVER_TABLE)];
        let channel = region.purpose.channel.and_then(ChannelId::from_u32);
        let channel = channel.unwrap();
        let class = channel.priority().class();
        let _ = self.bells[class].raise(channel.index()).unwrap();
        self.ring(class);
    }

    fn ring(&self, class: usize) {
        shutdown(&self.link.doorbells.to_host[class], Shutdown::Both).unwrap();
    }

    /// What would hold up who rings an eventfd, or waits for it.
    fn abuse_doorbells(&self) {
        let doorbells = &self.link.doorbells;
        for end in doorbells.to_guest.iter().chain(&doorbells.to_host) {
            ioctl_fionbio(end, false).unwrap();
            let sent = send(end, &u64::MAX.to_ne_bytes(), SendFlags::NOSIGNAL);
            assert_eq!(sent, Err(Errno::PIPE), "nothing can be sent");
        }
    }

    fn of_device(&self, device: u32) -> Regions {
        let mut found = Regions::default();
        for ((of, role), (region, window)) in &self.regions {
            if *of == Some(device) {
                found.insert(*role, region.purpose.kind, window.clone());
            }
        }
        found
    }

    /// Signals of every region, to somebody who sleeps or not.
    fn storm(&mut self) {
        for class in 0..CLASSES {
            for channel in 0..self.bells[class].channels() {
                let _ = self.bells[class].raise(channel).unwrap();
            }
            self.ring(class);
        }
    }

    /// Writes a word somewhere: anything, or something that is nearly right.
    fn scribble(&mut self, window: &Mapped) {
        let word = match self.random.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => self.random.below(300) as u64,
            _ => self.random.next(),
        };
        let offset = 8 * self.random.below(window.len() / 8);
        Field::<u64, _>::new(window, offset)
            .unwrap()
            .store(word, Relaxed);
    }

    /// Does its worst until it is thrown out, or time is up.
    fn rage(mut self, deeds: &mut Deeds, until: Instant) -> Random {
        deeds.sessions += 1;
        self.abuse_doorbells();
        let own = self.link.guest_memory.window().clone();
        let common = self.link.memory(MemoryId::COMMON).unwrap().window().clone();
        let devices = self.offers.table().layout().slots();
        while Instant::now() < until {
            let device = self.random.below(devices as usize) as u32;
            // Whatever it scribbled over the table is made good, so that it is listened to.
            self.drivers = drivers(&self.regions, devices);
            self.write_status(device, 0, Features::empty());
            self.activate(device);
            deeds.activations += 1;
            if self.random.below(8) == 0 {
                let status = self.random.next() as u8;
                let words = [self.random.next(), self.random.next()];
                self.write_status(device, status, Features::from_words(words));
            }
            for _ in 0..self.random.below(3) {
                for _ in 0..self.random.below(3000) {
                    self.scribble(&own);
                    self.scribble(&common);
                    deeds.words += 2;
                }
                self.storm();
                deeds.storms += 1;
            }
            for device in 0..devices {
                let status = self.offers.read(device).unwrap().0.status;
                deeds.latched += u64::from(status.contains(DeviceStatus::DEVICE_NEEDS_RESET));
            }
            if self.link.next_event().is_some() {
                break;
            }
        }
        self.random
    }
}

/// Every region that the directory tells of.
fn regions<'a>(
    memories: impl Iterator<Item = &'a Memory>,
) -> BTreeMap<(Device, u16), (Region, Mapped)> {
    let mut map = MemoryMap::new();
    let mut host = None;
    for memory in memories {
        map.insert(memory.id, memory.epoch, memory.window().clone());
        if memory.id == MemoryId::HOST {
            host = Some(memory.window().clone());
        }
    }
    let host = host.unwrap();
    let entries = DirectoryHeader::read(&host).unwrap().layout.entries() as usize;
    let mut reader = DirectoryReader::attach(&host, vec![0; entries], vec![0; entries]).unwrap();
    let mut found = BTreeMap::new();
    let _ = reader.changed(|_, entry| {
        let region = entry.unwrap().unwrap();
        let name = (region.purpose.device, region.purpose.role);
        found.insert(name, (region, map.window(&region).unwrap()));
    });
    found
}

fn drivers(
    regions: &BTreeMap<(Device, u16), (Region, Mapped)>,
    devices: u32,
) -> TypedWriter<DriverState, Mapped, Vec<u64>> {
    let table = regions[&(None, role::DRIVER_TABLE)].1.clone();
    TypedWriter::create(table, devices, Epoch::FIRST, vec![0; devices as usize]).unwrap()
}

fn bell(regions: &BTreeMap<(Device, u16), (Region, Mapped)>, class: u16) -> Sender<Mapped, Mapped> {
    let (region, tree) = &regions[&(None, role::GUEST_TREE + class)];
    let RegionKind::Raw { params } = region.purpose.kind else {
        panic!("{region:?}");
    };
    let layout = DoorbellLayout::new(params[0] as u32).unwrap();
    let armed = &regions[&(None, role::HOST_ARMED)].1;
    let line = DoorbellLayout::ARMED_BYTES;
    let armed = armed.narrow(usize::from(class) * line, line).unwrap();
    Sender::new(tree, &armed, layout).unwrap()
}

#[test]
fn a_guest_that_writes_what_it_likes_harms_itself_alone() {
    let_in(Bus::with(&["--device", "intc"]));
}

/// Here it writes into the very ring that the host writes into.
#[test]
fn a_guest_that_writes_what_it_likes_into_packed_rings_harms_itself_alone() {
    let_in(Bus::on_rings("packed"));
}

fn let_in(mut bus: Bus) {
    let file = contents(FILE_BYTES);
    let server = bus.serve(&bus.scratch.offer("file", &file));
    let traffic = Traffic::start(&bus, &server, "file", &sha256(&file));
    traffic.flows(FILE_BYTES as u64);
    let (memory, lines) = (bus.host.private_kib(), bus.host.stderr().lines().count());
    let bytes = traffic.bytes();

    let mut deeds = Deeds::default();
    let mut random = Random::new(7);
    let started = Instant::now();
    let views = std::thread::scope(|scope| {
        // What it makes of its own memory blinds nobody who looks at the bus.
        let inspector = scope.spawn(|| {
            let mut views = 0;
            while started.elapsed() < TIME {
                assert!(!bus.inspect()["guests"].as_array().unwrap().is_empty());
                views += 1;
            }
            views
        });
        while started.elapsed() < TIME {
            random = Intruder::enter(&bus.socket, random).rage(&mut deeds, started + TIME);
        }
        inspector.join().unwrap()
    });
    assert!(views > 0);
    let meanwhile = traffic.bytes() - bytes;

    let said = bus.host.stderr().lines().count() - lines;
    println!(
        "{deeds:?}; meanwhile the others moved {} MB; the host wrote {said} lines and has {} KiB of its own, {memory} before",
        meanwhile / 1_000_000,
        bus.host.private_kib()
    );
    assert!(
        deeds.latched > 0,
        "nothing was wrong with all that? {deeds:?}"
    );
    assert!(bus.host.is_running());
    assert!(bus.host.private_kib() < memory + 4096);
    assert!(
        said > 0 && said < MOST_LINES,
        "{said} lines:\n{}",
        bus.host.stderr()
    );

    // The others noticed nothing, and newcomers do not either.
    traffic.flows(2 * FILE_BYTES as u64);
    assert!(traffic.stop() > 0);
    bus.guest(&["timer", "--count", "20"])
        .finish()
        .expect_success();
    bus.expect_fetch(&server, "file", &file);
    let host = bus.stop();
    assert!(!host.stderr.contains("panicked"), "{host}");
}
