//! Randomness that can be replayed: the n-th draw of an execution is a digest of its seed and n.

use sha2::{Digest, Sha256};
use std::cell::Cell;

/// A seed and how much of it was used.
pub struct Random {
    seed: [u64; 2],
    draws: Cell<u64>,
}

impl Random {
    /// Goes on after `draws` draws.
    pub fn new(seed: [u64; 2], draws: u64) -> Self {
        Self {
            seed,
            draws: Cell::new(draws),
        }
    }

    pub fn seed(&self) -> [u64; 2] {
        self.seed
    }

    pub fn draws(&self) -> u64 {
        self.draws.get()
    }

    /// 32 fresh bytes.
    pub fn draw(&self) -> [u8; 32] {
        let draw = self.draws.get();
        self.draws.set(draw.wrapping_add(1));
        self.digest("draw", draw)
    }

    /// Another series of draws, which takes nothing from this one.
    pub fn branch(&self, number: u64) -> Self {
        let digest = self.digest("branch", number);
        let half = |from: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[from..from + 8]);
            u64::from_be_bytes(bytes)
        };
        Self::new([half(0), half(8)], 0)
    }

    /// The bytes that belong to `number` in the series `name`, whenever they are asked for.
    pub fn digest(&self, name: &str, number: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed[0].to_be_bytes());
        hash.update(self.seed[1].to_be_bytes());
        hash.update(name.as_bytes());
        hash.update(number.to_be_bytes());
        hash.finalize().into()
    }

    /// 64 fresh bits.
    pub fn number(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.draw()[..8]);
        u64::from_be_bytes(head)
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&self) -> f64 {
        fraction(&self.draw())
    }
}

/// The first 53 bits of `bytes` as a number in `0.0..1.0`.
pub fn fraction(bytes: &[u8; 32]) -> f64 {
    let mut head = [0; 8];
    head.copy_from_slice(&bytes[..8]);
    (u64::from_be_bytes(head) >> 11) as f64 / (1_u64 << 53) as f64
}
