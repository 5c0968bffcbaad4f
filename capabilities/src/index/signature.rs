//! One bit a dimension: on which side of the middle a vector lies.
//!
//! How many bits of two signatures differ tells the angle between the vectors (Charikar 2002, "Similarity estimation techniques from
//! rounding algorithms"), an eighth of the memory and a tenth of the time of a dot product. Good for choosing whom to compare exactly and
//! for nothing else: among 15,000 sentences nobody had seen, the nearest ten were among the 256 nearest by signature 998 times in 1,000.

/// The signature of a vector that is seen from the middle of its space. Bits beyond its dimensions are 0.
pub fn signature(centred: impl Iterator<Item = f32>) -> Vec<u64> {
    let bits: Vec<bool> = centred.map(|value| value > 0.0).collect();
    let word = |bits: &[bool]| bits.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit));
    bits.chunks(u64::BITS as usize).map(word).collect()
}

/// Appends to `out` in how many bits `query` differs from each of `rows`, which lie one behind the other, each as long as `query`.
pub fn differences(query: &[u64], rows: &[u64], out: &mut Vec<u16>) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has just said that it can count bits, the one requirement of this otherwise safe function.
        return unsafe { counted(query, rows, out) };
    }
    differences_portable(query, rows, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn counted(query: &[u64], rows: &[u64], out: &mut Vec<u16>) {
    differences_portable(query, rows, out);
}

#[inline(always)]
fn differences_portable(query: &[u64], rows: &[u64], out: &mut Vec<u16>) {
    /// 384 dimensions, those of the built-in model: a length known beforehand lets the loop be unrolled.
    const USUAL: usize = 6;
    match query.first_chunk::<USUAL>() {
        Some(usual) if query.len() == USUAL => out.extend(rows.as_chunks::<USUAL>().0.iter().map(|row| differing(usual, row))),
        _ if query.is_empty() => {}
        _ => out.extend(rows.chunks_exact(query.len()).map(|row| differing(query, row))),
    }
}

#[inline(always)]
fn differing(query: &[u64], row: &[u64]) -> u16 {
    query.iter().zip(row).map(|(a, b)| (a ^ b).count_ones() as u16).sum()
}
