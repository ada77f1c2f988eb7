//! `docs/abi.md` and `docs/ivshmem.md` against the code: every offset, width, size and number in its tables.
//!
//! A structure is made by the code, in memory; each row of its table must then find there what the row's name stands
//! for. A row that the test does not know fails, and so does a name without a row.
#![cfg(not(miri))] // Miri has no sockets

mod devices;
mod document;
mod gallery;
mod ivshmem;
mod pairs;
mod pinned;
mod rings;
mod session;
mod structures;
mod tagged;
