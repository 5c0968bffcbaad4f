//! Two loads, a widening and a multiplication for sixteen values: what nearly every x86-64 of the last ten years can do.

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

/// The compiler's own loop, allowed to use what the processor has.
#[cfg(feature = "hnsw")]
#[target_feature(enable = "avx2")]
pub fn dot_of_rows(a: &[i8], b: &[i8]) -> i32 {
    super::dot_of_rows_portable(a, b)
}
