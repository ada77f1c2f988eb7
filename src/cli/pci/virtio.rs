//! What a virtio device says when it is asked.

use shmbus::transports::pci::virtio::{DeviceConfig, DeviceError, VirtioPci};
use shmbus::transports::pci::{AccessError, Function, Registers};
use shmbus::virtio::{DeviceId, Features, net};

use super::line;

/// Features, queues and configuration. The device is reset before and after.
pub(super) fn describe<F: Function>(function: F) -> Result<String, DeviceError> {
    let mut device = VirtioPci::open(function)?;
    device.reset()?;
    let (id, offered) = (device.id(), device.offered());
    let mut text = String::new();
    line(&mut text, format_args!("  features offered:"));
    for bit in (0..128).filter(|bit| offered.contains(Features::bit(*bit))) {
        let name = id.feature_name(bit).unwrap_or("(unknown)");
        line(&mut text, format_args!("    {bit:>3} {name}"));
    }
    let fields = if id == DeviceId::NET {
        device.read_config(|config| NetFields::read(config, offered))?
    } else {
        NetFields::default()
    };
    line(&mut text, format_args!("  queues: {}", device.queues()));
    // Sizes are known once features are negotiated, and some queues are there by a feature.
    let mut wanted = Features::VERSION_1 | Features::ACCESS_PLATFORM;
    if id == DeviceId::NET {
        wanted |= net::MQ | net::CTRL_VQ;
    }
    match device.negotiate(offered & wanted) {
        Ok(()) => queues(&mut text, &mut device, fields.pairs())?,
        Err(error) => line(&mut text, format_args!("    {error}")),
    }
    for region in device.shared_memory() {
        let (id, place) = (region.id, region.place);
        line(&mut text, format_args!("  shared memory {id}: {place}"));
    }
    fields.describe(&mut text);
    device.finish()?;
    Ok(text)
}

fn queues<F: Function>(
    text: &mut String,
    device: &mut VirtioPci<F>,
    pairs: u16,
) -> Result<(), DeviceError> {
    for queue in 0..device.queues() {
        let name = match device.id() {
            DeviceId::NET => net_queue(queue, pairs),
            _ => String::new(),
        };
        let size = match device.queue_size(queue)? {
            Some(size) => format!("at most {size} entries"),
            None => "not available".to_owned(),
        };
        line(text, format_args!("    {queue:>3} {name:<12} {size}"));
    }
    Ok(())
}

/// A network card's queues, of which the last is the control queue (virtio 1.4, section 5.1.2).
fn net_queue(queue: u16, pairs: u16) -> String {
    match (queue / 2 < pairs, queue % 2) {
        (true, 0) => format!("receiveq{}", queue / 2 + 1),
        (true, _) => format!("transmitq{}", queue / 2 + 1),
        (false, _) => "controlq".to_owned(),
    }
}

/// `struct virtio_net_config`, as far as the features say that it is there (virtio 1.4, section 5.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NetFields {
    mac: Option<[u8; 6]>,
    link_up: Option<bool>,
    max_pairs: Option<u16>,
    mtu: Option<u16>,
    speed_mbit: Option<u32>,
}

impl NetFields {
    fn read<R: Registers>(
        config: &DeviceConfig<'_, R>,
        offered: Features,
    ) -> Result<Self, AccessError> {
        const LINK_UP: u16 = 1;
        const RSS: Features = Features::bit(60);
        const SPEED_DUPLEX: Features = Features::bit(63);
        const SPEED_UNKNOWN: u32 = u32::MAX;
        let has = |feature: Features| offered.intersects(feature);
        Ok(Self {
            mac: has(net::MAC).then(|| config.read_bytes(0)).transpose()?,
            link_up: has(net::STATUS)
                .then(|| config.read_u16(6))
                .transpose()?
                .map(|status| status & LINK_UP != 0),
            max_pairs: has(net::MQ | RSS).then(|| config.read_u16(8)).transpose()?,
            mtu: has(net::MTU).then(|| config.read_u16(10)).transpose()?,
            speed_mbit: has(SPEED_DUPLEX)
                .then(|| config.read_u32(12))
                .transpose()?
                .filter(|speed| *speed != SPEED_UNKNOWN),
        })
    }

    fn pairs(&self) -> u16 {
        self.max_pairs.unwrap_or(1)
    }

    fn describe(&self, text: &mut String) {
        if let Some(mac) = self.mac {
            let bytes = mac.map(|byte| format!("{byte:02x}"));
            line(text, format_args!("  MAC address: {}", bytes.join(":")));
        }
        if let Some(up) = self.link_up {
            let state = if up { "up" } else { "down" };
            line(text, format_args!("  link: {state}"));
        }
        if let Some(pairs) = self.max_pairs {
            line(text, format_args!("  queue pairs: at most {pairs}"));
        }
        if let Some(mtu) = self.mtu {
            line(text, format_args!("  MTU: {mtu} bytes"));
        }
        if let Some(speed) = self.speed_mbit {
            line(text, format_args!("  speed: {speed} Mbit/s"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_come_in_pairs_and_the_last_controls() {
        let names: Vec<_> = (0..5).map(|queue| net_queue(queue, 2)).collect();
        let expected = [
            "receiveq1",
            "transmitq1",
            "receiveq2",
            "transmitq2",
            "controlq",
        ];
        assert_eq!(names, expected);
        assert_eq!(net_queue(2, 1), "controlq");
    }
}
