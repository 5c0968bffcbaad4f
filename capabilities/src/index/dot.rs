//! Dot products of one int16 query with many int8 rows, exact in int32.
//!
//! The query keeps 15 bits, so nothing is lost against the rows as they were announced and no second pass in f32 is needed. The baseline
//! of x86-64 has only SSE2, and even for AVX2 the compiler's own loop uses half of each register: there the loop is written out and chosen
//! at run time. Everywhere else a plain loop does.

/// Appends to `out` the dot product of `query` with each row of `rows`, which lie one behind the other, each as long as `query`.
///
/// With up to 512 dimensions and query values within ±32767 no sum overflows: 512 * 127 * 32767 < 2^31.
pub fn dots(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
    if query.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if query.len().is_multiple_of(avx2::LANES) && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2, the one requirement of this otherwise safe function.
        return unsafe { avx2::dots(query, rows, out) };
    }
    dots_portable(query, rows, out);
}

fn dots_portable(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
    out.extend(rows.chunks_exact(query.len()).map(|row| dot(query, row)));
}

fn dot(query: &[i16], row: &[i8]) -> i32 {
    query.iter().zip(row).map(|(a, b)| i32::from(*a) * i32::from(*b)).fold(0, i32::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi32, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi32, _mm256_castsi256_si128,
        _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_setzero_si256,
    };

    /// Values that one register takes; a query must have a multiple of them.
    pub const LANES: usize = 16;
    /// Rows taken side by side: each part of the query is loaded once for all of them, and their sums are closed together.
    const ROWS: usize = 4;

    #[target_feature(enable = "avx2")]
    pub fn dots(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
        let (query_lanes, _) = query.as_chunks::<LANES>();
        let block_bytes = query.len() * ROWS;
        out.reserve(rows.len() / query.len());
        let blocks = rows.chunks_exact(block_bytes);
        let last = blocks.remainder();
        for block in blocks {
            out.extend_from_slice(&four(query_lanes, block.as_chunks::<LANES>().0));
        }
        super::dots_portable(query, last, out);
    }

    /// The dot products with four rows.
    #[target_feature(enable = "avx2")]
    fn four(query: &[[i16; LANES]], block: &[[i8; LANES]]) -> [i32; ROWS] {
        let (half, other_half) = block.split_at(query.len() * 2);
        let (first, second) = half.split_at(query.len());
        let (third, fourth) = other_half.split_at(query.len());
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for ((((query, a), b), c), d) in query.iter().zip(first).zip(second).zip(third).zip(fourth) {
            sums[0] = _mm256_add_epi32(sums[0], products(query, a));
            sums[1] = _mm256_add_epi32(sums[1], products(query, b));
            sums[2] = _mm256_add_epi32(sums[2], products(query, c));
            sums[3] = _mm256_add_epi32(sums[3], products(query, d));
        }
        totals(sums)
    }

    /// Sixteen products, added up in pairs.
    #[target_feature(enable = "avx2")]
    fn products(query: &[i16; LANES], row: &[i8; LANES]) -> __m256i {
        // SAFETY: both loads read exactly the arrays they point at and need no alignment.
        let (query, row) =
            unsafe { (_mm256_loadu_si256(query.as_ptr().cast::<__m256i>()), _mm_loadu_si128(row.as_ptr().cast::<__m128i>())) };
        _mm256_madd_epi16(query, _mm256_cvtepi8_epi16(row))
    }

    /// The sums of the eight lanes of each.
    #[target_feature(enable = "avx2")]
    fn totals(sums: [__m256i; ROWS]) -> [i32; ROWS] {
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
        let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let mut totals = [0; ROWS];
        // SAFETY: the store writes exactly the array it points at and needs no alignment.
        unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast::<__m128i>(), four) };
        totals
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_path_gives_the_same_sums(query in prop::collection::vec(-32767i16..=32767, 1..100), rows in prop::collection::vec(any::<i8>(), 0..1_000)) {
            let (mut fast, mut portable) = (Vec::new(), Vec::new());
            dots(&query, &rows, &mut fast);
            dots_portable(&query, &rows, &mut portable);
            let exact: Vec<i64> = rows
                .chunks_exact(query.len())
                .map(|row| row.iter().zip(&query).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum())
                .collect();
            prop_assert_eq!(&fast, &portable);
            prop_assert_eq!(fast.iter().map(|sum| i64::from(*sum)).collect::<Vec<_>>(), exact);
        }
    }

    #[test]
    fn no_query_gives_no_sums() {
        let mut out = Vec::new();
        dots(&[], &[1, 2, 3], &mut out);
        assert!(out.is_empty());
    }
}
