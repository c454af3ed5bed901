//! One string of bytes decides everything in a world. When it runs out, every decision is the
//! benign one, so each world ends in calm.

/// Makes another script of the same seed.
const NETWORK: u64 = 0x006e_6574_776f_726b;

/// How long that is, in 8 bytes.
const NETWORK_WORDS: usize = 800;

/// Makes a third one.
const PACE: u64 = 0x7061_6365;

/// How long that is, in 8 bytes.
const PACE_WORDS: usize = 20;

/// The bytes, and how far they are used.
#[derive(Clone)]
pub(crate) struct Script {
    bytes: Vec<u8>,
    used: usize,
}

impl Script {
    /// The script that a seed stands for. Lengths differ, so that some worlds are short.
    pub(crate) fn from_seed(seed: u64) -> Script {
        let mut state = seed;
        let length = 24 + usize::try_from(next(&mut state) % 300).expect("fits");
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&next(&mut state).to_le_bytes());
        }
        Script { bytes, used: 0 }
    }

    /// What goes on in the network of the world that a seed stands for: enough for all of it.
    pub(crate) fn of_network(seed: u64) -> Script {
        let mut state = seed ^ NETWORK;
        let bytes = std::iter::repeat_with(|| next(&mut state).to_le_bytes());
        Script { bytes: bytes.take(NETWORK_WORDS).flatten().collect(), used: 0 }
    }

    /// How many workers run beside others in the world that a seed stands for.
    pub(crate) fn of_pace(seed: u64) -> Script {
        let mut state = seed ^ PACE;
        let bytes = std::iter::repeat_with(|| next(&mut state).to_le_bytes());
        Script { bytes: bytes.take(PACE_WORDS).flatten().collect(), used: 0 }
    }

    /// A script without a byte: only benign decisions.
    pub(crate) fn empty() -> Script {
        Script { bytes: Vec::new(), used: 0 }
    }

    /// Whether all further decisions are benign.
    pub(crate) fn is_over(&self) -> bool {
        self.used >= self.bytes.len()
    }

    /// True about once in `n` times.
    pub(crate) fn one_in(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    /// A number from 0, the benign one, to `n` - 1.
    pub(crate) fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    /// One of these; the first is the benign one.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.used).copied().unwrap_or(0);
        self.used += 1;
        byte
    }
}

/// splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
