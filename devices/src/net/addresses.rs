//! Which port a MAC address is behind.
//!
//! A port either owns one address, which nobody else can claim, or learns the addresses of the frames that come in by
//! it. What one port learns is bounded and replaces only its own: no port can push another's addresses out. A learned
//! address that turns up at another port moves there, but at most once in a hold time, so that two ports that fight
//! over it cannot make it flap with every frame.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::mac_address::MacAddress;

/// Which source addresses a port may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// This one only, for as long as the port is there: what a guest gets. Frames from any other are dropped.
    Only(MacAddress),
    /// Any that no other port owns; the latest `at_most` are remembered.
    Learned {
        /// How many are remembered.
        at_most: u16,
    },
}

/// How long what was learned holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearningTimes {
    /// After this long without a frame an address is forgotten. IEEE 802.1Q recommends 300 s.
    pub ageing: Duration,
    /// For this long after it was learned an address does not move to another port.
    pub hold: Duration,
}

impl Default for LearningTimes {
    fn default() -> Self {
        Self {
            ageing: Duration::from_secs(300),
            hold: Duration::from_secs(1),
        }
    }
}

/// The address is another port's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is the own address of another port")]
pub struct AddressTaken {
    /// The address.
    pub address: MacAddress,
}

/// What becomes of a frame by its source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The port may use the address.
    Admitted,
    /// It may not: the frame must be dropped.
    Refused,
}

/// An address and the port that it is behind.
#[derive(Clone, Copy, Debug)]
struct Location {
    port: usize,
    tenure: Tenure,
}

#[derive(Clone, Copy, Debug)]
enum Tenure {
    Owned,
    Learned {
        /// When it was first seen at this port.
        since: Duration,
        /// When it was last seen.
        seen: Duration,
    },
}

/// What a port may use, and what it was seen to use.
#[derive(Debug)]
struct PortSources {
    sources: Sources,
    /// What was learned, oldest first.
    learned: VecDeque<MacAddress>,
    at_most: usize,
}

/// The addresses of all ports. Attaching and detaching allocate; frames do not.
#[derive(Debug)]
pub(super) struct AddressTable {
    /// The standard hasher is keyed at random: a guest cannot choose addresses that collide.
    locations: HashMap<MacAddress, Location>,
    ports: Vec<Option<PortSources>>,
    times: LearningTimes,
}

impl AddressTable {
    pub(super) fn new(times: LearningTimes) -> Self {
        Self {
            locations: HashMap::new(),
            ports: Vec::new(),
            times,
        }
    }

    /// Adds a port. `port` is a small number that no attached port has.
    pub(super) fn attach(&mut self, port: usize, sources: Sources) -> Result<(), AddressTaken> {
        let at_most = match sources {
            Sources::Only(address) => {
                match self.locations.get(&address) {
                    Some(Location {
                        tenure: Tenure::Owned,
                        ..
                    }) => return Err(AddressTaken { address }),
                    Some(_) => self.forget(address),
                    None => {}
                }
                self.locations.insert(
                    address,
                    Location {
                        port,
                        tenure: Tenure::Owned,
                    },
                );
                0
            }
            Sources::Learned { at_most } => usize::from(at_most),
        };
        if self.ports.len() <= port {
            self.ports.resize_with(port + 1, || None);
        }
        self.ports[port] = Some(PortSources {
            sources,
            learned: VecDeque::with_capacity(at_most),
            at_most,
        });
        // A hash table that is at most half full clears the marks of removed entries in place instead of growing.
        let most: usize = self
            .ports
            .iter()
            .flatten()
            .map(|port| port.at_most + 1)
            .sum();
        let missing = (2 * most).saturating_sub(self.locations.len());
        self.locations.reserve(missing);
        Ok(())
    }

    /// Removes a port and forgets its addresses.
    pub(super) fn detach(&mut self, port: usize) {
        let Some(gone) = self.ports.get_mut(port).and_then(Option::take) else {
            return;
        };
        if let Sources::Only(address) = gone.sources {
            self.locations.remove(&address);
        }
        for address in gone.learned {
            self.locations.remove(&address);
        }
    }

    /// Judges the source address of a frame that came in by `port`, and learns it.
    pub(super) fn admit(&mut self, port: usize, source: MacAddress, now: Duration) -> Admission {
        let Some(Some(own)) = self.ports.get_mut(port) else {
            return Admission::Refused;
        };
        if let Sources::Only(address) = own.sources {
            return match address == source {
                true => Admission::Admitted,
                false => Admission::Refused,
            };
        }
        if !source.is_station() {
            return Admission::Refused;
        }
        match self.locations.get_mut(&source) {
            Some(Location {
                tenure: Tenure::Owned,
                ..
            }) => return Admission::Refused,
            Some(Location {
                port: known,
                tenure: Tenure::Learned { since, seen, .. },
            }) => {
                if *known == port {
                    *seen = now;
                    return Admission::Admitted;
                }
                let expired = now.saturating_sub(*seen) >= self.times.ageing;
                if !expired && now.saturating_sub(*since) < self.times.hold {
                    return Admission::Admitted;
                }
                self.forget(source);
            }
            None => {}
        }
        self.learn(port, source, now);
        Admission::Admitted
    }

    /// The port that an address is behind.
    pub(super) fn locate(&self, address: MacAddress, now: Duration) -> Option<usize> {
        let location = self.locations.get(&address)?;
        match location.tenure {
            Tenure::Learned { seen, .. } if now.saturating_sub(seen) >= self.times.ageing => None,
            _ => Some(location.port),
        }
    }

    fn learn(&mut self, port: usize, address: MacAddress, now: Duration) {
        let Some(Some(own)) = self.ports.get_mut(port) else {
            return;
        };
        if own.at_most == 0 {
            return;
        }
        if own.learned.len() == own.at_most
            && let Some(oldest) = own.learned.pop_front()
        {
            self.locations.remove(&oldest);
        }
        own.learned.push_back(address);
        let tenure = Tenure::Learned {
            since: now,
            seen: now,
        };
        self.locations.insert(address, Location { port, tenure });
    }

    /// Forgets a learned address, which takes a look at all that its port learned: at most once a hold time for each.
    fn forget(&mut self, address: MacAddress) {
        let location = self.locations.remove(&address);
        if let Some(Some(owner)) = location.and_then(|location| self.ports.get_mut(location.port)) {
            owner.learned.retain(|learned| *learned != address);
        }
    }

    /// How many addresses are known.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.locations.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn table() -> AddressTable {
        AddressTable::new(LearningTimes {
            ageing: 10 * SECOND,
            hold: SECOND,
        })
    }

    #[test]
    fn an_owned_address_is_nobody_elses() {
        let (own, other) = (MacAddress::local(1), MacAddress::local(2));
        let mut table = table();
        table.attach(0, Sources::Learned { at_most: 4 }).unwrap();
        assert_eq!(table.admit(0, own, SECOND), Admission::Admitted);
        table.attach(1, Sources::Only(own)).unwrap();
        assert_eq!(table.locate(own, SECOND), Some(1));
        assert_eq!(table.admit(0, own, 100 * SECOND), Admission::Refused);
        assert_eq!(table.admit(1, other, SECOND), Admission::Refused);
        assert_eq!(
            table.attach(2, Sources::Only(own)),
            Err(AddressTaken { address: own })
        );
        // It does not age, and goes with its port.
        assert_eq!(table.locate(own, 1000 * SECOND), Some(1));
        table.detach(1);
        assert_eq!(table.locate(own, SECOND), None);
    }

    #[test]
    fn a_port_pushes_out_only_what_it_learned_itself() {
        let mut table = table();
        table.attach(0, Sources::Learned { at_most: 4 }).unwrap();
        table.attach(1, Sources::Learned { at_most: 8 }).unwrap();
        table.admit(0, MacAddress::local(1), SECOND);
        let capacity = table.locations.capacity();
        for number in 1000..100_000 {
            assert_eq!(
                table.admit(1, MacAddress::local(number), SECOND),
                Admission::Admitted
            );
            assert!(table.len() <= 1 + 8);
        }
        assert_eq!(table.locate(MacAddress::local(1), SECOND), Some(0));
        assert_eq!(table.locate(MacAddress::local(99_999), SECOND), Some(1));
        assert_eq!(
            table.locations.capacity(),
            capacity,
            "frames must not allocate"
        );
    }

    #[test]
    fn an_address_moves_at_most_once_in_a_hold_time() {
        let station = MacAddress::local(1);
        let mut table = table();
        table.attach(0, Sources::Learned { at_most: 4 }).unwrap();
        table.attach(1, Sources::Learned { at_most: 4 }).unwrap();
        let mut moves = 0;
        let mut at = None;
        for millisecond in 0..10_000_u64 {
            let now = Duration::from_millis(millisecond);
            table.admit((millisecond % 2) as usize, station, now);
            if table.locate(station, now) != at {
                at = table.locate(station, now);
                moves += 1;
            }
        }
        assert_eq!(moves, 10);
    }
}
