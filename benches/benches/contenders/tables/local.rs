//! Peers that live in one process: `triple_buffer`, `seqlock`, `left-right`.

use std::hint::black_box;
use std::sync::Arc;

use left_right::{Absorb, ReadHandle, WriteHandle};
use seqlock::SeqLock;
use triple_buffer::{Input, Output};

use super::{Read, Write};

/// A buffer each for the writer, for the reader and between them.
pub(super) fn triple_buffer<const N: usize>() -> (TripleWriter<N>, TripleReader<N>) {
    let (input, output) = triple_buffer::triple_buffer(&[0; N]);
    let writer = TripleWriter {
        input,
        value: [0; N],
    };
    let reader = TripleReader {
        output,
        value: [0; N],
    };
    (writer, reader)
}

pub(super) struct TripleWriter<const N: usize> {
    input: Input<[u64; N]>,
    value: [u64; N],
}

impl<const N: usize> Write for TripleWriter<N> {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        self.input.write(*black_box(&self.value));
    }
}

pub(super) struct TripleReader<const N: usize> {
    output: Output<[u64; N]>,
    value: [u64; N],
}

impl<const N: usize> Read for TripleReader<N> {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        self.value = *self.output.read();
        Some(black_box(&self.value)[0])
    }

    #[inline]
    fn poll(&mut self) -> Option<u64> {
        self.output.updated().then(|| self.read()).flatten()
    }
}

/// A sequence lock. It has nothing to poll with but reading.
pub(super) fn seqlock<const N: usize>() -> (SeqWriter<N>, SeqReader<N>) {
    let lock = Arc::new(SeqLock::new([0; N]));
    let reader = SeqReader(lock.clone());
    let value = [0; N];
    (SeqWriter { lock, value }, reader)
}

pub(super) struct SeqWriter<const N: usize> {
    lock: Arc<SeqLock<[u64; N]>>,
    value: [u64; N],
}

impl<const N: usize> Write for SeqWriter<N> {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        *self.lock.lock_write() = *black_box(&self.value);
    }
}

pub(super) struct SeqReader<const N: usize>(Arc<SeqLock<[u64; N]>>);

impl<const N: usize> Read for SeqReader<N> {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        Some(black_box(&self.0.read())[0])
    }
}

/// Two copies that readers announce themselves in. The writer waits for them.
pub(super) fn left_right<const N: usize>() -> (LeftRightWriter<N>, LeftRightReader<N>) {
    let (handle, reader) = left_right::new_from_empty(Value([0; N]));
    let writer = LeftRightWriter {
        handle,
        value: [0; N],
    };
    let reader = LeftRightReader {
        handle: reader,
        value: [0; N],
    };
    (writer, reader)
}

#[derive(Clone, Copy)]
struct Value<const N: usize>([u64; N]);

impl<const N: usize> Absorb<[u64; N]> for Value<N> {
    fn absorb_first(&mut self, value: &mut [u64; N], _: &Self) {
        self.0 = *value;
    }

    fn sync_with(&mut self, first: &Self) {
        *self = *first;
    }
}

pub(super) struct LeftRightWriter<const N: usize> {
    handle: WriteHandle<Value<N>, [u64; N]>,
    value: [u64; N],
}

impl<const N: usize> Write for LeftRightWriter<N> {
    #[inline]
    fn write(&mut self, first: u64) {
        self.value[0] = first;
        self.handle.append(*black_box(&self.value)).publish();
    }
}

pub(super) struct LeftRightReader<const N: usize> {
    handle: ReadHandle<Value<N>>,
    value: [u64; N],
}

impl<const N: usize> Read for LeftRightReader<N> {
    #[inline]
    fn read(&mut self) -> Option<u64> {
        self.value = self.handle.enter()?.0;
        Some(black_box(&self.value)[0])
    }
}
