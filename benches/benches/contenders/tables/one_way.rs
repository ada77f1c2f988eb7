//! A value from core to core, by half of a round trip: one slot there, one back.

use std::os::fd::AsFd;

use shmbus_benches::{Companion, Comparison, Contender, Partner, Session, SetUpError};
use shmbus_shm::Access;

use super::blackboard::{Board, unused_name};
use super::{ICEORYX2, LEFT_RIGHT, OURS, Read, SEQLOCK, TRIPLE_BUFFER, Write, local, slot};

pub(super) fn comparison<const N: usize>(bench: &'static str) -> Comparison {
    Comparison::new(
        bench,
        "a value from core to core, by half a round trip",
        move || contenders::<N>(bench),
    )
    .with_companions(companion::<N>)
}

fn contenders<const N: usize>(bench: &str) -> Result<Vec<Contender>, SetUpError> {
    Ok(vec![
        ours::<N>(bench)?,
        iceoryx2::<N>(bench)?,
        in_one_process(TRIPLE_BUFFER, local::triple_buffer::<N>)?,
        in_one_process(SEQLOCK, local::seqlock::<N>)?,
        in_one_process(LEFT_RIGHT, local::left_right::<N>)?,
    ])
}

fn ours<const N: usize>(bench: &str) -> Result<Contender, SetUpError> {
    let (there, back) = (slot::own_memory(N)?, slot::memory(N)?);
    let descriptors = [there.as_fd(), back.as_fd()];
    let companion = Companion::spawn(bench, OURS, "", &descriptors)?;
    let (writer, reader) = (
        slot::Writer::<N>::new(&there)?,
        slot::Reader::<N>::new(&back)?,
    );
    Ok(beside(OURS, companion, writer, reader))
}

fn iceoryx2<const N: usize>(bench: &str) -> Result<Contender, SetUpError> {
    let name = unused_name();
    let there = Board::<N>::create(&format!("{name}/there"))?;
    let back = Board::<N>::create(&format!("{name}/back"))?;
    let companion = Companion::spawn(bench, ICEORYX2, &name, &[])?;
    let (writer, reader) = (there.writer()?, back.reader()?);
    Ok(beside(ICEORYX2, companion, writer, reader))
}

fn companion<const N: usize>(session: Session) -> Result<(), SetUpError> {
    if session.contender == ICEORYX2 {
        let there = Board::<N>::open(&format!("{}/there", session.note))?;
        let back = Board::<N>::open(&format!("{}/back", session.note))?;
        let echo = echo(there.reader()?, back.writer()?);
        return session.serve(echo);
    }
    let there = slot::peers_memory(session.descriptor(0)?, N, Access::Read)?;
    let back = slot::peers_memory(session.descriptor(1)?, N, Access::ReadWrite)?;
    let echo = echo(
        slot::Reader::<N>::new(&there)?,
        slot::Writer::<N>::new(&back)?,
    );
    session.serve(echo)
}

pub(super) fn beside(
    name: &'static str,
    mut companion: Companion,
    mut writer: impl Write + 'static,
    mut reader: impl Read + 'static,
) -> Contender {
    let mut sent = 0;
    Contender::new(name, move |operations| {
        companion.beside(operations, || {
            bounce(&mut writer, &mut reader, &mut sent, operations);
        })
    })
}

fn in_one_process<W: Write + Send + 'static, R: Read + Send + 'static>(
    name: &'static str,
    pair: impl Fn() -> (W, R),
) -> Result<Contender, SetUpError> {
    let ((mut writer, their_reader), (their_writer, mut reader)) = (pair(), pair());
    let partner = Partner::spawn(echo(their_reader, their_writer))?;
    let mut sent = 0;
    Ok(Contender::new(name, move |operations| {
        partner.beside(operations, || {
            bounce(&mut writer, &mut reader, &mut sent, operations);
        })
    }))
}

/// An operation is one way, so half as many round trips.
#[inline]
fn bounce(writer: &mut impl Write, reader: &mut impl Read, sent: &mut u64, operations: u64) {
    for _ in 0..operations.div_ceil(2) {
        *sent += 1;
        writer.write(*sent);
        while reader.poll() != Some(*sent) {}
    }
}

/// Sends each value back.
pub(super) fn echo(mut reader: impl Read, mut writer: impl Write) -> impl FnMut(u64) {
    let mut answered = 0;
    move |operations| {
        for _ in 0..operations.div_ceil(2) {
            answered += 1;
            while reader.poll() != Some(answered) {}
            writer.write(answered);
        }
    }
}
