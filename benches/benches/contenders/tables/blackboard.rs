//! iceoryx2: an entry of a blackboard in its shared memory, and its event.

use std::hint::black_box;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use iceoryx2::port::reader::{BlackboardValue, EntryHandle};
use iceoryx2::port::writer::EntryHandleMut;
use iceoryx2::prelude::{Node, NodeBuilder, ServiceName, ipc};
use iceoryx2::service::port_factory::blackboard::PortFactory;
use shmbus_benches::SetUpError;

use super::{Read, Write};

/// A name that no other service of this machine has.
pub(super) fn unused_name() -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    format!("shmbus-benches/{}/{number}", process::id())
}

pub(super) fn node() -> Result<Node<ipc::Service>, SetUpError> {
    Ok(NodeBuilder::new().create::<ipc::Service>()?)
}

/// A blackboard with one entry of `N` words, in the process that made it or in another.
pub(super) struct Board<const N: usize> {
    service: PortFactory<ipc::Service, u64>,
    _node: Node<ipc::Service>,
}

impl<const N: usize> Board<N> {
    pub(super) fn create(name: &str) -> Result<Self, SetUpError> {
        let node = node()?;
        let service = node
            .service_builder(&ServiceName::new(name)?)
            .blackboard_creator::<u64>()
            .add::<[u64; N]>(0, [0; N])
            .create()?;
        Ok(Self {
            service,
            _node: node,
        })
    }

    pub(super) fn open(name: &str) -> Result<Self, SetUpError> {
        let node = node()?;
        let service = node
            .service_builder(&ServiceName::new(name)?)
            .blackboard_opener::<u64>()
            .open()?;
        Ok(Self {
            service,
            _node: node,
        })
    }

    pub(super) fn writer(&self) -> Result<Writer<N>, SetUpError> {
        let writer = self.service.writer_builder().create()?;
        Ok(Writer {
            entry: writer.entry::<[u64; N]>(&0)?,
            value: [0; N],
        })
    }

    pub(super) fn reader(&self) -> Result<Reader<N>, SetUpError> {
        let entry = self.service.reader_builder().create()?.entry(&0)?;
        Ok(Reader {
            last: entry.get(),
            entry,
        })
    }
}

pub(super) struct Writer<const N: usize> {
    entry: EntryHandleMut<ipc::Service, u64, [u64; N]>,
    value: [u64; N],
}

impl<const N: usize> Write for Writer<N> {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        self.entry.update_with_copy(*black_box(&self.value));
    }
}

pub(super) struct Reader<const N: usize> {
    entry: EntryHandle<ipc::Service, u64, [u64; N]>,
    last: BlackboardValue<[u64; N]>,
}

impl<const N: usize> Read for Reader<N> {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        self.last = self.entry.get();
        Some(black_box(&*self.last)[0])
    }

    #[inline]
    fn poll(&mut self) -> Option<u64> {
        if self.entry.is_up_to_date(&self.last) {
            return None;
        }
        self.read()
    }
}
