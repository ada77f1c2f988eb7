//! Tables whose slots hold one type of value.

use core::marker::PhantomData;
use core::ops::ControlFlow;

use shmbus_shm::slot::{Epoch, Generation};
use shmbus_shm::{Notify, Scan, Window};

use crate::age::{Age, AgeError};
use crate::error::{ReadError, TableError};
use crate::layout::{LayoutError, TableLayout};
use crate::options::TableOptions;
use crate::reader::TableReader;
use crate::value::{InvalidValue, Value, with_words};
use crate::writer::TableWriter;

/// A typed read gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedReadError {
    /// The slot gave no value.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The slot holds something that is no value of the type.
    #[error("slot {slot}, generation {generation}: {invalid}")]
    Invalid {
        /// The slot that was read.
        slot: u32,
        /// What was read there.
        generation: Generation,
        /// What is wrong with it.
        invalid: InvalidValue,
    },
}

/// The layout of a table of `slots` values of `V`.
///
/// # Errors
///
/// [`LayoutError`].
pub fn layout_of<V: Value>(slots: u32) -> Result<TableLayout, LayoutError> {
    layout_with::<V>(slots, TableOptions::new())
}

/// The same with what else a table can have: for [`TableWriter::create`], and [`TypedWriter::new`] of that.
///
/// # Errors
///
/// [`LayoutError`].
pub fn layout_with<V: Value>(
    slots: u32,
    options: TableOptions,
) -> Result<TableLayout, LayoutError> {
    TableLayout::with_options(slots, value_bytes::<V>(), options)
}

fn value_bytes<V: Value>() -> u32 {
    u32::try_from(V::WORDS * 8).unwrap_or(u32::MAX)
}

pub(crate) fn check<V: Value>(layout: TableLayout, type_id: u32) -> Result<(), TableError> {
    if type_id != V::TYPE_ID {
        return Err(TableError::Type {
            expected: V::TYPE_ID,
            found: type_id,
        });
    }
    if layout.slot_words() != V::WORDS {
        return Err(TableError::ValueBytes {
            expected: value_bytes::<V>(),
            found: layout.slot_bytes(),
        });
    }
    Ok(())
}

/// A [`TableWriter`] of values of one type.
#[derive(Debug)]
pub struct TypedWriter<V, W, S> {
    table: TableWriter<W, S>,
    values: PhantomData<fn(V)>,
}

impl<V: Value, W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TypedWriter<V, W, S> {
    /// Sets up a table of `slots` values, as [`TableWriter::create`] does.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn create(window: W, slots: u32, epoch: Epoch, cursors: S) -> Result<Self, TableError> {
        let layout = layout_of::<V>(slots)?;
        Self::new(TableWriter::create(
            window,
            layout,
            V::TYPE_ID,
            epoch,
            cursors,
        )?)
    }

    /// Writes a table that was set up for values of `V`.
    ///
    /// # Errors
    ///
    /// [`TableError::Type`] and [`TableError::ValueBytes`].
    pub fn new(table: TableWriter<W, S>) -> Result<Self, TableError> {
        check::<V>(table.layout(), table.type_id())?;
        Ok(Self {
            table,
            values: PhantomData,
        })
    }

    /// Publishes `value`, as [`TableWriter::publish`] does.
    ///
    /// # Errors
    ///
    /// [`TableError`]; nothing was written then.
    #[inline]
    pub fn publish(&mut self, slot: u32, value: &V) -> Result<(Generation, Notify), TableError> {
        with_words::<V, _>(|words| {
            value.encode(words);
            self.table.publish(slot, words)
        })
    }

    /// The table, for what does not depend on the type.
    pub fn table(&self) -> &TableWriter<W, S> {
        &self.table
    }

    /// Shows readers that the writer lives, as [`TableWriter::beat`] does.
    pub fn beat(&mut self) {
        self.table.beat();
    }
}

/// A [`TableReader`] of values of one type.
#[derive(Debug)]
pub struct TypedReader<V, W, S> {
    table: TableReader<W, S>,
    values: PhantomData<fn() -> V>,
}

impl<V: Value, W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TypedReader<V, W, S> {
    /// Attaches to a table, as [`TableReader::attach`] does, and checks that it holds values of `V`.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn attach(window: W, cursors: S, seen: S) -> Result<Self, TableError> {
        Self::new(TableReader::attach(window, cursors, seen)?)
    }

    /// Reads a table that holds values of `V`.
    ///
    /// # Errors
    ///
    /// [`TableError::Type`] and [`TableError::ValueBytes`].
    pub fn new(table: TableReader<W, S>) -> Result<Self, TableError> {
        check::<V>(table.layout(), table.type_id())?;
        Ok(Self {
            table,
            values: PhantomData,
        })
    }

    /// Reads a slot's newest value, as [`TableReader::read`] does, and checks it.
    ///
    /// # Errors
    ///
    /// [`TypedReadError`].
    #[inline]
    pub fn read(&mut self, slot: u32) -> Result<(V, Generation), TypedReadError> {
        with_words::<V, _>(|words| {
            let generation = self.table.read(slot, words)?;
            match V::decode(words) {
                Ok(value) => Ok((value, generation)),
                Err(invalid) => Err(TypedReadError::Invalid {
                    slot,
                    generation,
                    invalid,
                }),
            }
        })
    }

    /// Whether a slot still holds the value that was read last, as [`TableReader::is_unchanged`] says.
    #[inline(always)]
    pub fn is_unchanged(&self, slot: u32) -> bool {
        self.table.is_unchanged(slot)
    }

    /// Reports what changed, as [`TableReader::changed`] does.
    pub fn changed(&mut self, report: impl FnMut(u32, Generation)) -> Scan {
        self.table.changed(report)
    }

    /// Reports what changed until `visit` breaks off, as [`TableReader::scan`] does.
    pub fn scan(&mut self, visit: impl FnMut(u32, Generation) -> ControlFlow<()>) -> Scan {
        self.table.scan(visit)
    }

    /// How long ago a slot was last published, as [`TableReader::age`] says.
    ///
    /// # Errors
    ///
    /// [`AgeError`].
    pub fn age(&self, slot: u32) -> Result<Age, AgeError> {
        self.table.age(slot)
    }

    /// Goes over to the writer's new memory, as [`TableReader::rebind`] does.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: W) -> Result<Epoch, TableError> {
        self.table.rebind(window)
    }

    /// The table, for what does not depend on the type.
    pub fn table(&self) -> &TableReader<W, S> {
        &self.table
    }
}
