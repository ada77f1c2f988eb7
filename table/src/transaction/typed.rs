//! Transactions over tables whose slots hold one type of value.

use core::marker::PhantomData;

use shmbus_shm::slot::Generation;
use shmbus_shm::{Notify, Window};

use super::error::TypedSnapshotError;
use super::reader::SnapshotReader;
use super::writer::{Transaction, TransactionWriter};
use crate::error::TableError;
use crate::typed::check;
use crate::value::{Value, with_words};

/// A [`TransactionWriter`] of values of one type.
#[derive(Debug)]
pub struct TypedTransactionWriter<V, W, S> {
    table: TransactionWriter<W, S>,
    values: PhantomData<fn(V)>,
}

impl<V: Value, W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TypedTransactionWriter<V, W, S> {
    /// Writes a table that was set up for values of `V`.
    ///
    /// # Errors
    ///
    /// [`TableError::Type`] and [`TableError::ValueBytes`].
    pub fn new(table: TransactionWriter<W, S>) -> Result<Self, TableError> {
        check::<V>(table.layout(), table.type_id())?;
        Ok(Self {
            table,
            values: PhantomData,
        })
    }

    /// Begins a transaction, as [`TransactionWriter::begin`] does.
    pub fn begin(&mut self) -> TypedTransaction<'_, V, W, S> {
        TypedTransaction {
            transaction: self.table.begin(),
            values: PhantomData,
        }
    }

    /// Publishes `value` in a transaction of its own, as [`TransactionWriter::publish`] does.
    ///
    /// # Errors
    ///
    /// [`TableError`]; nothing was written then.
    pub fn publish(&mut self, slot: u32, value: &V) -> Result<(Generation, Notify), TableError> {
        with_words::<V, _>(|words| {
            value.encode(words);
            self.table.publish(slot, words)
        })
    }

    /// The table, for what does not depend on the type.
    pub fn table(&self) -> &TransactionWriter<W, S> {
        &self.table
    }

    /// Shows readers that the writer lives, as [`TransactionWriter::beat`] does.
    pub fn beat(&mut self) {
        self.table.beat();
    }
}

/// A [`Transaction`] of values of one type.
#[must_use = "a transaction that is not committed changes nothing"]
#[derive(Debug)]
pub struct TypedTransaction<'t, V, W, S> {
    transaction: Transaction<'t, W, S>,
    values: PhantomData<fn(V)>,
}

impl<V: Value, W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TypedTransaction<'_, V, W, S> {
    /// Adds `value`, as [`Transaction::stage`] does.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the transaction is as it was.
    pub fn stage(&mut self, slot: u32, value: &V) -> Result<(), TableError> {
        with_words::<V, _>(|words| {
            value.encode(words);
            self.transaction.stage(slot, words)
        })
    }

    /// Makes all that was staged visible, as [`Transaction::commit`] does.
    ///
    /// # Errors
    ///
    /// [`TableError::TransactionsUsedUp`]; nothing was written then.
    pub fn commit(self) -> Result<(Generation, Notify), TableError> {
        self.transaction.commit()
    }
}

/// A [`SnapshotReader`] of values of one type.
#[derive(Debug)]
pub struct TypedSnapshotReader<V, W, S> {
    table: SnapshotReader<W, S>,
    values: PhantomData<fn() -> V>,
}

impl<V: Value, W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TypedSnapshotReader<V, W, S> {
    /// Attaches to a table, as [`SnapshotReader::attach`] does, and checks that it holds values of `V`.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn attach(window: W, cursors: S, seen: S) -> Result<Self, TableError> {
        Self::new(SnapshotReader::attach(window, cursors, seen)?)
    }

    /// Reads a table that holds values of `V`.
    ///
    /// # Errors
    ///
    /// [`TableError::Type`] and [`TableError::ValueBytes`].
    pub fn new(table: SnapshotReader<W, S>) -> Result<Self, TableError> {
        check::<V>(table.layout(), table.type_id())?;
        Ok(Self {
            table,
            values: PhantomData,
        })
    }

    /// Reads a slot as of the last committed transaction, as [`SnapshotReader::read`] does, and checks the value.
    ///
    /// # Errors
    ///
    /// [`TypedSnapshotError`].
    pub fn read(&mut self, slot: u32) -> Result<(V, Generation), TypedSnapshotError> {
        with_words::<V, _>(|words| {
            let generation = self.table.read(slot, words)?;
            Ok((decode(slot, generation, words)?, generation))
        })
    }

    /// Reads several slots as one, as [`SnapshotReader::read_together`] does, and checks the values. `words` is room
    /// for them, [`Value::WORDS`] for each slot; `values` gets them, `None` for a slot that had no value.
    ///
    /// # Errors
    ///
    /// [`TypedSnapshotError`]; `values` holds nothing meaningful then.
    pub fn read_together<const N: usize>(
        &mut self,
        slots: &[u32; N],
        words: &mut [u64],
    ) -> Result<[Option<(V, Generation)>; N], TypedSnapshotError> {
        let mut generations = [None; N];
        self.table.read_together(slots, words, &mut generations)?;
        let mut values = [const { None }; N];
        let found = words.chunks_exact(V::WORDS).zip(generations);
        for ((value, slot), (words, generation)) in values.iter_mut().zip(slots).zip(found) {
            if let Some(generation) = generation {
                *value = Some((decode(*slot, generation, words)?, generation));
            }
        }
        Ok(values)
    }

    /// The table, for what does not depend on the type.
    pub fn table(&self) -> &SnapshotReader<W, S> {
        &self.table
    }

    /// The table, to scan it for changes or to follow its writer to new memory.
    pub fn table_mut(&mut self) -> &mut SnapshotReader<W, S> {
        &mut self.table
    }
}

fn decode<V: Value>(
    slot: u32,
    generation: Generation,
    words: &[u64],
) -> Result<V, TypedSnapshotError> {
    V::decode(words).map_err(|invalid| TypedSnapshotError::Invalid {
        slot,
        generation,
        invalid,
    })
}
