//! A network card behind PCI, as the command runs it.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::str::FromStr;

use shmbus::devices::net::app::Application;
use shmbus::guest::{Card, CardCounters, CardOptions, CardPort, Ended, Network};
use shmbus::transports::pci::{Address, Identity};
use shmbus::transports::vfio::{Container, VfioFunction};
use shmbus::virtio::{Features, net};

use super::Carrier;
use crate::cli::args::{CardArgs, GuestArgs, NetArgs};
use crate::cli::error::CliError;
use crate::cli::report::GuestReport;
use crate::cli::stop::Stop;

/// An interface's address, and how many bits of it name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StackAddress {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: Option<u8>,
}

impl FromStr for StackAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, prefix_len)) => (address, Some(prefix_len)),
            None => (text, None),
        };
        let expected = || format!("expected an IPv4 address such as 10.0.2.15/24, found {text:?}");
        let prefix_len = prefix_len.map(|bits| bits.parse().ok().filter(|bits| *bits <= 32));
        Ok(Self {
            address: address.parse().map_err(|_| expected())?,
            prefix_len: prefix_len
                .map(|bits| bits.ok_or_else(expected))
                .transpose()?,
        })
    }
}

/// The features that can be left out or required, by the names that the command takes.
const FEATURES: [(&str, Features); 10] = [
    ("csum", net::CSUM),
    ("guest-csum", net::GUEST_CSUM),
    ("mtu", net::MTU),
    ("mac", net::MAC),
    ("mrg-rxbuf", net::MRG_RXBUF),
    ("status", net::STATUS),
    ("mq", net::MQ),
    ("indirect", Features::INDIRECT_DESC),
    ("event-idx", Features::EVENT_IDX),
    ("in-order", Features::IN_ORDER),
];

/// The feature of a name.
pub(crate) fn feature(name: &str) -> Result<Features, String> {
    let found = FEATURES.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, feature)| feature).ok_or_else(|| {
        let names = FEATURES.map(|(name, _)| name).join(", ");
        format!("expected a feature ({names}), found {name:?}")
    })
}

/// The names of what a driver has accepted.
fn names(features: Features) -> String {
    let named = FEATURES.into_iter().filter(|(_, f)| features.contains(*f));
    named.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

/// The function that the command names, if it is a network card.
pub(super) fn find(args: &GuestArgs) -> Result<Option<Address>, CliError> {
    let Some(address) = args.place.pci else {
        return Ok(None);
    };
    let found = Identity::read(address).map_err(|error| CliError::NoFunction { address, error })?;
    Ok((found == Identity::VIRTIO_NET).then_some(address))
}

/// A network over a card.
pub(super) struct OnCard {
    network: Network<Card<VfioFunction>>,
}

impl OnCard {
    pub(super) fn connect(address: Address, net: &NetArgs) -> Result<Self, CliError> {
        let options = options(net)?;
        let function = Container::new()?.open(address)?;
        let memory = function.memory().clone();
        let network = Network::on_card(function, &memory, &options)?;
        tracing::info!(
            "{address} is {} with {} rings: {}",
            network.config().mac,
            network.rings(),
            names(network.features())
        );
        Ok(Self { network })
    }
}

fn options(net: &NetArgs) -> Result<CardOptions, CliError> {
    let StackAddress {
        address,
        prefix_len,
    } = net.address.ok_or(CliError::NoAddress)?;
    let CardArgs {
        gateway,
        queue_pairs,
        ring,
        without,
        require,
        receive_buffer,
    } = &net.card;
    let all = |features: &[Features]| features.iter().copied().collect::<Features>();
    let (mut without, mut required) = (all(without), all(require));
    if let Some(ring) = ring {
        if !ring.private_features().is_empty() {
            return Err(CliError::NotVirtio { ring: *ring });
        }
        required |= ring.features();
        without |= (Features::RING_PACKED | Features::IN_ORDER) - ring.features();
    }
    let queue_pairs = queue_pairs.unwrap_or(1);
    if queue_pairs > 1 {
        required |= net::MQ;
    }
    Ok(CardOptions {
        gateway: *gateway,
        queue_pairs,
        without,
        required,
        receive_buffer_bytes: *receive_buffer,
        ..CardOptions::new(address, prefix_len.unwrap_or(24))
    })
}

impl Carrier for OnCard {
    type Environment = Card<VfioFunction>;

    fn network(&mut self) -> &mut Network<Card<VfioFunction>> {
        &mut self.network
    }

    fn run<A: Application<CardPort>>(
        &mut self,
        application: &mut A,
        mut watch: impl FnMut(&mut Network<Card<VfioFunction>>, &mut A) -> ControlFlow<()>,
    ) -> Result<Ended, CliError> {
        let watch = |network: &mut _, application: &mut _, _| watch(network, application);
        Ok(self.network.run(application, watch)?)
    }

    /// A card has no host that could be gone.
    fn recover(&mut self, _: &Stop) -> Result<bool, CliError> {
        Ok(false)
    }

    fn finish(self, report: &mut GuestReport) -> Result<(), CliError> {
        let CardCounters {
            pairs,
            interrupts,
            notifications,
            ..
        } = self.network.counters();
        for (number, pair) in (1..).zip(pairs) {
            tracing::info!(
                "queue pair {number}: {} frames received, {} of them merged, {} sent",
                pair.received_frames,
                pair.merged_frames,
                pair.sent_frames
            );
        }
        tracing::info!(
            "interrupts: {} configuration, {} receive, {} transmit, {} control, {} shared; {notifications} notifications",
            interrupts.configuration,
            interrupts.receive,
            interrupts.transmit,
            interrupts.control,
            interrupts.shared
        );
        report.signals_sent = notifications;
        Ok(self.network.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_prefix() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        for (text, prefix_len) in [("10.0.2.15", None), ("10.0.2.15/16", Some(16))] {
            let found = text.parse::<StackAddress>();
            assert_eq!(
                found,
                Ok(StackAddress {
                    address,
                    prefix_len
                })
            );
        }
        for text in ["", "10.0.2", "10.0.2.15/", "10.0.2.15/33", "/24"] {
            let error = text.parse::<StackAddress>().unwrap_err();
            assert!(error.contains("10.0.2.15/24"), "{error}");
        }
    }

    #[test]
    fn features_go_by_names_and_what_has_none_is_told_them() {
        for (name, expected) in FEATURES {
            assert_eq!(feature(name), Ok(expected));
            assert_eq!(names(expected), name);
        }
        let error = feature("tso").unwrap_err();
        assert!(
            error.contains("mrg-rxbuf") && error.contains("tso"),
            "{error}"
        );
    }
}
