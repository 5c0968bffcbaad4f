//! Chance that belongs to what it decides, not to the order in which it is asked for: a draw is a hash of the seed and of names.
//!
//! So a lost packet stays lost when something unrelated is added to a world, and drawing costs a few nanoseconds. After SplitMix64
//! (Steele, Lea, Flood 2014). Who is killed and who publishes is drawn from the world's `ChaCha12Rng` instead.

/// What a draw is for: equal names elsewhere give other numbers.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Purpose {
    Latency = 1,
    Jitter,
    Loss,
    Load,
    Life,
    Garbling,
    Attack,
}

/// 64 random bits for `purpose` and two names.
pub fn draw(seed: u64, purpose: Purpose, a: u64, b: u64) -> u64 {
    let mut bits = stir(seed ^ (purpose as u64).wrapping_mul(0xA076_1D64_78BD_642F));
    bits = stir(bits ^ a.wrapping_mul(0xE703_7ED1_A0B4_28DB));
    stir(bits ^ b.wrapping_mul(0x8EBC_6AF0_9C88_C6E3))
}

/// A number of `low..=high` made of random bits.
pub fn between(bits: u64, low: u64, high: u64) -> u64 {
    let span = u128::from(high.saturating_sub(low)) + 1;
    low + ((u128::from(bits) * span) >> 64) as u64
}

/// Whether something of probability `share` happens.
pub fn happens(bits: u64, share: f64) -> bool {
    ((bits >> 11) as f64) < share * (1_u64 << 53) as f64
}

fn stir(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A fast hash of bytes, for tables of this process and for traces; no protection against anybody who chooses the bytes.
pub fn fold(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let step = |hash: u64, word: &[u8; 8]| (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x517C_C1B7_2722_0A95);
    let hash = words.iter().fold(bytes.len() as u64, step);
    stir(step(hash, &last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_depend_on_every_name() {
        let mean = (0..10_000).map(|n| between(draw(1, Purpose::Loss, n, 0), 0, 100)).sum::<u64>() as f64 / 10_000.0;
        assert!((49.0..51.0).contains(&mean), "{mean}");
        let lost = (0..10_000).filter(|n| happens(draw(1, Purpose::Loss, 5, *n), 0.01)).count();
        assert!((60..140).contains(&lost), "{lost}");
        assert_ne!(draw(1, Purpose::Loss, 2, 3), draw(1, Purpose::Loss, 3, 2));
        assert_ne!(draw(1, Purpose::Loss, 2, 3), draw(1, Purpose::Jitter, 2, 3));
    }

    #[test]
    fn bytes_of_any_length_fold_apart() {
        let folded: std::collections::BTreeSet<u64> = (0..64).map(|length| fold(&vec![0; length])).collect();
        assert_eq!(folded.len(), 64);
    }
}
