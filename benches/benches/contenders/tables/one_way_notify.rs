//! A value from core to core, with all that finds out that there is one: change tracking and the decision to notify.
//!
//! Ours: the writer publishes in a table of 64 slots, which marks its generation tree, then raises a channel, which marks
//! the doorbell's and decides whether to ring. The reader polls the doorbell, scans it for the channel, scans the table for
//! the slot, and reads that. iceoryx2's: an update of a blackboard, then a notification; the listener is polled, then the
//! entry is read.

use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::{ServiceName, ipc};
use iceoryx2::service::port_factory::event::PortFactory;
use shmbus_benches::{Companion, Comparison, Contender, Session, SetUpError};
use shmbus_shm::{Access, Mapped, SharedMemory, Writers};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};
use shmbus_table::{Epoch, TableLayout, TableReader, TableWriter};

use super::blackboard::{self, Board, node, unused_name};
use super::{HONEST, ICEORYX2, OURS, Read, Write};

const BENCH: &str = "oneway-64-notify";
const WORDS: usize = 8;

/// Slots of a table, and channels of a doorbell.
const SLOTS: u32 = 64;

pub(super) fn comparison() -> Comparison {
    Comparison::new(
        BENCH,
        "64 bytes from core to core, with change tracking and a decision to notify, polled",
        || Ok(vec![ours()?, iceoryx2()?]),
    )
    .with_companions(companion)
}

fn ours() -> Result<Contender, SetUpError> {
    let (there, back) = (
        Section::create(Writers::Creator)?,
        Section::create(Writers::Everybody)?,
    );
    let companion = Companion::spawn(BENCH, OURS, "", &[there.0.as_fd(), back.0.as_fd()])?;
    let writer = there.writer(&back)?;
    // The other side's writer has set its table up: it is ready.
    let reader = back.reader(&there)?;
    Ok(super::one_way::beside(OURS, companion, writer, reader))
}

fn iceoryx2() -> Result<Contender, SetUpError> {
    let name = unused_name();
    let there = Service::create(&format!("{name}/there"))?;
    let back = Service::create(&format!("{name}/back"))?;
    let reader = back.reader()?;
    let companion = Companion::spawn(BENCH, ICEORYX2, &name, &[])?;
    let writer = there.writer()?;
    Ok(super::one_way::beside(ICEORYX2, companion, writer, reader))
}

fn companion(session: Session) -> Result<(), SetUpError> {
    if session.contender == ICEORYX2 {
        let there = Service::open(&format!("{}/there", session.note))?;
        let back = Service::open(&format!("{}/back", session.note))?;
        let reader = there.reader()?;
        let echo = super::one_way::echo(reader, back.writer()?);
        return session.serve(echo);
    }
    let there = Section::from_peer(session.descriptor(0)?, Access::Read)?;
    let back = Section::from_peer(session.descriptor(1)?, Access::ReadWrite)?;
    let writer = back.writer(&there)?;
    let mut writer = Some(writer);
    let mut echo = None;
    session.serve(move |operations| {
        // The other side's table is there with the first order, at the latest.
        let echo = echo.get_or_insert_with(|| {
            let reader = there.reader(&back).expect(HONEST);
            super::one_way::echo(reader, writer.take().expect(HONEST))
        });
        echo(operations);
    })
}

/// What one side writes: the word by which it arms, its doorbell's tree, its table.
struct Section(SharedMemory);

impl Section {
    const TREE_AT: usize = 4096;
    const TABLE_AT: usize = 8192;

    fn bytes() -> Result<u64, SetUpError> {
        Ok((Self::TABLE_AT + Self::table()?.bytes()) as u64)
    }

    fn table() -> Result<TableLayout, SetUpError> {
        Ok(TableLayout::new(SLOTS, 8 * WORDS as u32)?)
    }

    fn create(writers: Writers) -> Result<Self, SetUpError> {
        Ok(Self(SharedMemory::create(
            "bench",
            Self::bytes()?,
            writers,
        )?))
    }

    fn from_peer(descriptor: OwnedFd, access: Access) -> Result<Self, SetUpError> {
        let memory = SharedMemory::from_peer(descriptor, Self::bytes()?, access)?;
        Ok(Self(memory))
    }

    fn part(&self, offset: usize) -> Result<Mapped, SetUpError> {
        use shmbus_shm::Window;
        let window = self.0.window();
        Ok(window.narrow(offset, window.len() - offset)?)
    }

    fn writer(&self, other: &Self) -> Result<OurWriter, SetUpError> {
        Ok(OurWriter {
            table: TableWriter::create(
                self.part(Self::TABLE_AT)?,
                Self::table()?,
                0,
                Epoch::FIRST,
                vec![0; SLOTS as usize],
            )?,
            doorbell: Sender::new(
                &self.part(Self::TREE_AT)?,
                &other.part(0)?,
                DoorbellLayout::new(SLOTS)?,
            )?,
            value: [0; WORDS],
        })
    }

    /// What `own` is the other side of.
    fn reader(&self, own: &Self) -> Result<OurReader, SetUpError> {
        let storage = || vec![0; SLOTS as usize];
        Ok(OurReader {
            table: TableReader::attach(self.part(Self::TABLE_AT)?, storage(), storage())?,
            doorbell: Receiver::new(
                &self.part(Self::TREE_AT)?,
                &own.part(0)?,
                DoorbellLayout::new(SLOTS)?,
                storage(),
            )?,
            value: [0; WORDS],
        })
    }
}

/// The slot that changes, and the channel that says so.
const SLOT: u32 = 3;
const CHANNEL: u32 = 5;

struct OurWriter {
    table: TableWriter<Mapped, Vec<u64>>,
    doorbell: Sender<Mapped, Mapped>,
    value: [u64; WORDS],
}

impl Write for OurWriter {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        let published = self.table.publish(SLOT, black_box(&self.value));
        if published.expect(HONEST).1.is_needed() {
            let notify = self.doorbell.raise(CHANNEL).expect(HONEST);
            assert!(!black_box(notify).is_needed(), "nobody has armed");
        }
    }
}

struct OurReader {
    table: TableReader<Mapped, Vec<u64>>,
    doorbell: Receiver<Mapped, Mapped, Vec<u64>>,
    value: [u64; WORDS],
}

impl Read for OurReader {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        if self.doorbell.is_idle() {
            return None;
        }
        let mut is_raised = false;
        self.doorbell
            .poll(|channel, _| is_raised |= channel == CHANNEL);
        let mut changed = None;
        if is_raised {
            self.table.changed(|slot, _| changed = Some(slot));
        }
        black_box(self.table.read(changed?, &mut self.value).ok()?);
        Some(black_box(&self.value)[0])
    }
}

/// A blackboard and an event.
struct Service {
    board: Board<WORDS>,
    event: PortFactory<ipc::Service>,
}

impl Service {
    fn create(name: &str) -> Result<Self, SetUpError> {
        Self::with(name, Board::create(name)?)
    }

    fn open(name: &str) -> Result<Self, SetUpError> {
        Self::with(name, Board::open(name)?)
    }

    fn with(name: &str, board: Board<WORDS>) -> Result<Self, SetUpError> {
        let event = node()?
            .service_builder(&ServiceName::new(&format!("{name}/event"))?)
            .event()
            .open_or_create()?;
        Ok(Self { board, event })
    }

    fn writer(&self) -> Result<TheirWriter, SetUpError> {
        Ok(TheirWriter {
            entry: self.board.writer()?,
            notifier: self.event.notifier_builder().create()?,
        })
    }

    fn reader(&self) -> Result<TheirReader, SetUpError> {
        Ok(TheirReader {
            entry: self.board.reader()?,
            listener: self.event.listener_builder().create()?,
        })
    }
}

struct TheirWriter {
    entry: blackboard::Writer<WORDS>,
    notifier: Notifier<ipc::Service>,
}

impl Write for TheirWriter {
    #[inline]
    fn write(&mut self, first: u64) {
        self.entry.write(first);
        black_box(self.notifier.notify().expect(HONEST));
    }
}

struct TheirReader {
    entry: blackboard::Reader<WORDS>,
    listener: Listener<ipc::Service>,
}

impl Read for TheirReader {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        let mut is_notified = false;
        let waited = self.listener.try_wait(|_| is_notified = true);
        waited.expect(HONEST);
        is_notified.then(|| self.entry.read()).flatten()
    }
}
