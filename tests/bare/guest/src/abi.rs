//! What crosses the boundary: integers and addresses alone, since code for bare metal passes no floating-point numbers
//! in registers.

/// Memory that is passed in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Where it starts; anything, if it has no bytes.
    pub start: *mut u8,
    /// Its length.
    pub bytes: usize,
}

/// What a driver is set up with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// For the driver itself and its private record: `ring_storage_bytes` bytes, aligned to 16.
    pub storage: Area,
    /// What the driver writes.
    pub driver: Area,
    /// What the device writes.
    pub device: Area,
    /// What both write; none needed for a split ring.
    pub common: Area,
    /// Virtio's low 64 feature bits.
    pub features: u64,
    /// shmbus's own.
    pub private: u64,
    /// The ring's entries.
    pub size: u16,
}

/// A buffer of a chain.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where the device finds it.
    pub address: u64,
    /// Its length, in bytes.
    pub len: u32,
}

/// A chain that is lent: readable buffers, then writable ones.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// All the buffers.
    pub pieces: *const Piece,
    /// How many are readable.
    pub readable: usize,
    /// How many are writable.
    pub writable: usize,
    /// Memory for an indirect table; none for a chain in the ring's own descriptors.
    pub table: Area,
    /// Where the device finds the table.
    pub table_address: u64,
    /// Comes back with the chain.
    pub cookie: u64,
}

/// A chain that came back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Returned {
    /// What was handed in with it.
    pub cookie: u64,
    /// How many bytes the device wrote.
    pub written: u32,
}

/// What a table that follows another one is set up with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MirrorSetup {
    /// For the mirror itself and what it remembers: `mirror_storage_bytes` bytes, aligned to 16.
    pub storage: Area,
    /// The table that is followed.
    pub from: Area,
    /// Where the table is set up that follows it.
    pub to: Area,
}

/// It was done; there is something.
pub const YES: i32 = 1;
/// It was not done, for now; there is nothing.
pub const NO: i32 = 0;
/// The queue has stopped, or what was asked for is wrong.
pub const FAULT: i32 = -1;

/// The most buffers of a chain.
pub const MOST_PIECES: usize = 16;
