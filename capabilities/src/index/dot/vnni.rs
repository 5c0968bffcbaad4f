//! Sixty-four products of bytes in one instruction, where the processor has it (Intel since 2019, AMD since 2022).
//!
//! The instruction multiplies unsigned bytes with signed ones. So the query goes in as the two bytes of its value plus 2^15, and 2^15 times
//! the sum of the row, which is known beforehand, is taken away again. All that is modulo 2^32, where sums in between need not fit.

use super::{Query, RAISED_BITS};
use std::arch::x86_64::{
    __m128i, __m512i, _mm_add_epi32, _mm_storeu_si128, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_hadd_epi32, _mm512_add_epi32, _mm512_castsi512_si256, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64,
    _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_setzero_si512, _mm512_slli_epi32,
};

/// Values that one register takes; a query must have a multiple of them.
pub const LANES: usize = 64;
/// Rows taken side by side: each part of the query is loaded once for all of them, and their sums are closed together.
const ROWS: usize = 4;

#[target_feature(enable = "avx512f,avx512vnni")]
pub fn dots(query: &Query, rows: &[i8], row_sums: &[i32], out: &mut Vec<i32>) {
    let (low, high) = (query.low.as_chunks::<LANES>().0, query.high.as_chunks::<LANES>().0);
    out.reserve(rows.len() / query.len());
    let first = out.len();
    let blocks = rows.chunks_exact(query.len() * ROWS);
    let last = blocks.remainder();
    for block in blocks {
        out.extend_from_slice(&four(low, high, block.as_chunks::<LANES>().0));
    }
    out.extend(last.chunks_exact(query.len()).map(|row| one(low, high, row.as_chunks::<LANES>().0)));
    for (raised, row_sum) in out[first..].iter_mut().zip(row_sums) {
        *raised = raised.wrapping_sub(row_sum.wrapping_shl(RAISED_BITS));
    }
}

/// The sums of products with the low bytes and with the high bytes.
type Sums = [__m512i; 2];
type Bytes = [u8; LANES];

/// The dot products of the raised query with four rows.
#[target_feature(enable = "avx512f,avx512vnni")]
fn four(low: &[Bytes], high: &[Bytes], block: &[[i8; LANES]]) -> [i32; ROWS] {
    let (half, other_half) = block.split_at(low.len() * 2);
    let (first, second) = half.split_at(low.len());
    let (third, fourth) = other_half.split_at(low.len());
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for (((((low, high), a), b), c), d) in low.iter().zip(high).zip(first).zip(second).zip(third).zip(fourth) {
        let query = [load(low), load(high)];
        sums[0] = added(sums[0], query, a);
        sums[1] = added(sums[1], query, b);
        sums[2] = added(sums[2], query, c);
        sums[3] = added(sums[3], query, d);
    }
    totals(sums.map(|sums| closed(sums)))
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn one(low: &[Bytes], high: &[Bytes], row: &[[i8; LANES]]) -> i32 {
    let mut sums = [_mm512_setzero_si512(); 2];
    for ((low, high), row) in low.iter().zip(high).zip(row) {
        sums = added(sums, [load(low), load(high)], row);
    }
    _mm512_reduce_add_epi32(closed(sums))
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn added(sums: Sums, query: [__m512i; 2], row: &[i8; LANES]) -> Sums {
    let row = load(row);
    [_mm512_dpbusd_epi32(sums[0], query[0], row), _mm512_dpbusd_epi32(sums[1], query[1], row)]
}

#[target_feature(enable = "avx512f")]
fn load<T>(values: &[T; LANES]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: reads exactly the array it points at and needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast::<__m512i>()) }
}

/// What the sums in each lane come to: the query was cut in two.
#[target_feature(enable = "avx512f")]
fn closed([low, high]: Sums) -> __m512i {
    _mm512_add_epi32(low, _mm512_slli_epi32::<8>(high))
}

/// The sums of the sixteen lanes of each.
#[target_feature(enable = "avx512f")]
fn totals(sums: [__m512i; ROWS]) -> [i32; ROWS] {
    let [a, b, c, d] = sums.map(|sum| _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum)));
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let mut totals = [0; ROWS];
    // SAFETY: the store writes exactly the array it points at and needs no alignment.
    unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast::<__m128i>(), four) };
    totals
}
