//! Taking a card into use (virtio 1.4, sections 3.1.1 and 5.1.5).

use std::time::{Duration, Instant};

use shmbus_devices::clock::monotonic_ns;
use shmbus_devices::net::config::NetConfig;
use shmbus_devices::net::control::{CONTROL_ENTRIES, Command, ControlQueue};
use shmbus_devices::net::dma::{DmaLayout, DmaQueues, RingAddresses};
use shmbus_devices::net::mac_address::MacAddress;
use shmbus_devices::net::port::Port;
use shmbus_devices::net::queues::{QueueMemory, QueueName, choose_for_pairs};
use shmbus_devices::net::stack::{Stack, StackConfig};
use shmbus_ring::RingKind;
use shmbus_shm::{Mapped, RingFormat};
use shmbus_transports::pci::virtio::{QueueSetup, VirtioPci};
use shmbus_transports::pci::{DmaMemory, Function};
use shmbus_virtio::{DeviceId, Features, net};

use super::vectors::{Plan, Vectors};
use super::{Card, CardError, CardOptions, Environment, Network, NetworkError, card_error};

/// The most entries of a queue that are used: more are more memory, and no faster.
const MOST_ENTRIES: u16 = 256;

/// Fewer entries than these do not keep a card busy.
const LEAST_ENTRIES: u16 = 4;

/// How long the card may take to obey.
const PATIENCE: Duration = Duration::from_secs(5);

impl<F: Function> Network<Card<F>> {
    /// Takes a card into use: negotiates, sets up its queues in memory of their own, and has it begin.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Card`], [`NetworkError::Stack`].
    pub fn on_card(
        function: F,
        memory: &impl DmaMemory,
        options: &CardOptions,
    ) -> Result<Self, NetworkError> {
        let (mut card, queues, layout) =
            Card::open(function, memory, options).map_err(card_error)?;
        let now = card.now()?;
        let mut config =
            StackConfig::new(card.config.mac, options.address, options.prefix_len, layout);
        config.gateway = options.gateway;
        config.random_seed = now.as_nanos() as u64;
        let DmaQueues { mut pairs, control } = queues;
        // The card has no receive buffers before this.
        let notifications = pairs.flush();
        card.notify(&mut pairs, notifications)?;
        if let Some(mut control) = control {
            card.obey(&mut control, Command::UsePairs(options.queue_pairs))
                .map_err(card_error)?;
        }
        let stack = Stack::new(pairs, &config, now)?;
        Ok(Self::in_environment(card, stack, options.address))
    }
}

impl<F: Function> Card<F> {
    fn open(
        function: F,
        memory: &impl DmaMemory,
        options: &CardOptions,
    ) -> Result<(Self, DmaQueues<Mapped>, QueueMemory), CardError> {
        let mut device = VirtioPci::open(function)?;
        if device.id() != DeviceId::NET {
            return Err(CardError::NotNet(device.id()));
        }
        device.reset()?;
        let features = choose(device.offered(), options)?;
        device.negotiate(features)?;
        // For a card without an address: any that is ours alone.
        let own_mac = MacAddress::local(monotonic_ns() as u32);
        let config = read_config(&mut device, own_mac)?;
        let (wanted, found) = (options.queue_pairs, config.max_pairs);
        if wanted == 0 || wanted > found {
            return Err(CardError::Pairs { wanted, found });
        }
        let control_number = features
            .contains(net::CTRL_VQ)
            .then(|| QueueName::Receiveq(config.max_pairs).number());

        let entries = entries(&mut device, options.queue_pairs)?;
        if let Some(queue) = control_number {
            expect_entries(&mut device, queue, CONTROL_ENTRIES)?;
        }
        let format = if features.contains(Features::RING_PACKED) {
            RingFormat::Packed
        } else {
            RingFormat::Split
        };
        let mut layout = QueueMemory::in_format(format, entries, config.mtu)?;
        if let Some(bytes) = options.receive_buffer_bytes {
            layout = layout.with_receive_buffers(bytes, features)?;
        }
        let dma = DmaLayout::new(layout, options.queue_pairs, features)?;
        let region = memory.allocate(dma.bytes())?;
        let base = region.address;
        let queues = dma.set_up(&region.window, base)?;

        let has_control = queues.control.is_some();
        let plan = Plan::new(device.available_vectors(), wanted, has_control);
        let plan = plan.ok_or(CardError::NoVectors)?;
        let mut vectors = Vectors::new()?;
        vectors.connect(&plan.causes, |eventfds| {
            Ok::<_, CardError>(device.enable_vectors(eventfds)?)
        })?;
        device.set_config_vector(Some(0))?;

        let pairs = (0..wanted).flat_map(|pair| {
            let names = [QueueName::Receiveq(pair), QueueName::Transmitq(pair)];
            let addresses = dma.pair_addresses(pair, base);
            names.map(QueueName::number).into_iter().zip(addresses)
        });
        let pairs = pairs.map(|(queue, addresses)| (queue, entries, addresses));
        let control = control_number.zip(dma.control_addresses(base));
        let control = control.map(|(queue, addresses)| (queue, CONTROL_ENTRIES, addresses));
        let mut notifiers = Vec::new();
        for ((queue, entries, addresses), vector) in pairs.chain(control).zip(plan.queues) {
            let setup = queue_setup(entries, addresses, vector);
            let notifier = device.enable_queue(queue, &setup)?;
            notifiers.resize_with(usize::from(queue), || None);
            notifiers.push(Some(notifier));
        }
        let rings = if features.contains(Features::IN_ORDER) {
            RingKind::in_order(format)
        } else {
            RingKind::plain(format)
        };
        let mut card = Self {
            device,
            _memory: region,
            notifiers,
            vectors,
            config,
            rings,
            notifications: 0,
        };
        // If this fails, the card is reset before its memory goes.
        card.device.start()?;
        Ok((card, queues, layout))
    }

    /// Gives a command, and waits until it is obeyed. Nothing else is waited for yet.
    fn obey(
        &mut self,
        control: &mut ControlQueue<Mapped>,
        command: Command,
    ) -> Result<(), CardError> {
        if control.ask(command)?.is_needed() {
            let queue = self.notifiers.len().saturating_sub(1);
            self.notify_queue(queue as u16)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !control.is_obeyed()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.device.check()?;
                return Err(CardError::Silent { limit: PATIENCE });
            }
            self.vectors.wait(Some(left))?;
            self.take()?;
        }
        Ok(())
    }
}

/// What is accepted of what the card offers.
fn choose(offered: Features, options: &CardOptions) -> Result<Features, CardError> {
    let chosen = choose_for_pairs(offered, options.without, options.queue_pairs);
    let missing = options.required - chosen;
    if !missing.is_empty() {
        return Err(CardError::Required {
            missing: missing.bits(),
            offered: offered.bits(),
            chosen: chosen.bits(),
        });
    }
    Ok(chosen)
}

/// Reads the configuration, each field at its own width, and only those that were negotiated.
pub(super) fn read_config<F: Function>(
    device: &mut VirtioPci<F>,
    own_mac: MacAddress,
) -> Result<NetConfig, CardError> {
    let features = device.features();
    let bytes = match NetConfig::bytes_with(features) {
        0 => [0; NetConfig::BYTES],
        _ => device.read_config(|fields| {
            let mut bytes = [0; NetConfig::BYTES];
            if features.contains(net::MAC) {
                bytes[..6].copy_from_slice(&fields.read_bytes::<6>(0)?);
            }
            for (field, offset) in [(net::STATUS, 6), (net::MQ, 8), (net::MTU, 10)] {
                if features.contains(field) {
                    let word = fields.read_u16(offset as u64)?;
                    bytes[offset..offset + 2].copy_from_slice(&word.to_le_bytes());
                }
            }
            Ok(bytes)
        })?,
    };
    Ok(NetConfig::decode_with(&bytes, features, own_mac)?)
}

/// How many entries the queues of the pairs get: as many as all of them can have.
fn entries<F: Function>(device: &mut VirtioPci<F>, pairs: u16) -> Result<u16, CardError> {
    let mut most = MOST_ENTRIES;
    for queue in 0..QueueName::Receiveq(pairs).number() {
        most = most.min(expect_entries(device, queue, LEAST_ENTRIES)?);
    }
    Ok(most)
}

fn expect_entries<F: Function>(
    device: &mut VirtioPci<F>,
    queue: u16,
    expected: u16,
) -> Result<u16, CardError> {
    let found = device.queue_size(queue)?.unwrap_or(0);
    if found < expected {
        return Err(CardError::Queue {
            queue,
            found,
            expected,
        });
    }
    Ok(found)
}

fn queue_setup(size: u16, addresses: RingAddresses, vector: u16) -> QueueSetup {
    QueueSetup {
        size,
        descriptor_area: addresses.descriptors,
        driver_area: addresses.driver,
        device_area: addresses.device,
        vector: Some(vector),
    }
}
