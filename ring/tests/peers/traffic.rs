//! What passes through the rings: chains of random shape, whose bytes tell which they are.

/// What a writable buffer holds before the device writes to it.
pub const UNWRITTEN: u8 = 0xee;

/// Numbers that look random and are the same for the same seed (splitmix64), so that a failure comes again.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// One chain: the lengths of its buffers, and whether it has a table of its own.
#[derive(Clone, Debug)]
pub struct Shape {
    pub readable: Vec<u32>,
    pub writable: Vec<u32>,
    pub indirect: bool,
}

impl Shape {
    pub fn descriptors(&self) -> usize {
        self.readable.len() + self.writable.len()
    }
}

/// What both sides of a run know.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// How many descriptors the shortest and the longest chain have.
    pub descriptors: [usize; 2],
    /// How long a buffer may be.
    pub longest: u32,
    /// Whether chains may have tables of their own.
    pub indirect: bool,
    /// Whether the device fills all that is writable.
    pub fills: bool,
}

impl Traffic {
    /// Chains of 1 to `most` descriptors; most of them short, and once in a while one as long as may be.
    pub fn up_to(most: usize) -> Self {
        Self {
            descriptors: [1, most],
            longest: if cfg!(miri) { 12 } else { 100 },
            indirect: false,
            fills: false,
        }
    }

    pub fn shape(&self, dice: &mut Dice) -> Shape {
        let [least, most] = self.descriptors;
        let longest = if dice.once_in(64) { most } else { most.min(6) };
        let descriptors = least + dice.below(longest.max(least) - least + 1);
        let readable = dice.below(descriptors + 1);
        let mut lengths = |count| -> Vec<u32> {
            (0..count)
                .map(|_| match dice.below(4) {
                    0 => 8,
                    _ => 1 + dice.below(self.longest as usize) as u32,
                })
                .collect()
        };
        Shape {
            readable: lengths(readable),
            writable: lengths(descriptors - readable),
            indirect: self.indirect && dice.once_in(3),
        }
    }

    /// What a device answers that has room for so many bytes: fewer than that now and then, unless it fills the room.
    pub fn answer(&self, request: &[u8], room: usize) -> Vec<u8> {
        let leaves = match request.first() {
            Some(first) if !self.fills => usize::from(*first) % 4,
            _ => 0,
        };
        let bytes = request.iter().rev().map(|byte| !byte);
        let filler = (0..room).map(|at| at as u8 ^ 0x5a);
        bytes
            .chain(filler)
            .take(room.saturating_sub(leaves))
            .collect()
    }
}

/// The `len` bytes that a device reads in chain `number`.
pub fn request(number: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(number);
    let mut bytes = Vec::with_capacity(len + 7);
    while bytes.len() < len {
        bytes.extend(dice.roll().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
