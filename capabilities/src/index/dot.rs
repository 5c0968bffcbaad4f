//! Dot products of one int16 query with many int8 rows, exact in int32.
//!
//! The query keeps 15 bits, so nothing is lost against the rows as they were announced and no second pass in f32 is needed. The baseline
//! of x86-64 has only SSE2, and even for AVX2 the compiler's own loop uses half of each register: there the loops are written out and
//! chosen at run time. Everywhere else a plain loop does.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

/// What is compared with rows, cut up for whichever loop will run.
#[derive(Debug, Clone)]
pub struct Query {
    values: Vec<i16>,
    /// The low and the high byte of each value plus 2^15.
    low: Vec<u8>,
    high: Vec<u8>,
}

impl Query {
    pub fn new(values: Vec<i16>) -> Self {
        let raised = values.iter().map(|value| *value as u16 ^ 1 << RAISED_BITS);
        Self {
            low: raised.clone().map(|value| value as u8).collect(),
            high: raised.map(|value| (value >> 8) as u8).collect(),
            values,
        }
    }

    /// As they were given.
    pub fn values(&self) -> &[i16] {
        &self.values
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Adding two to the power of this makes an int16 positive.
const RAISED_BITS: u32 = 15;

/// Appends to `out` the dot product of `query` with each row of `rows`, which lie one behind the other, each as long as `query`;
/// `row_sums` has the sum of the values of each.
///
/// With up to 512 dimensions and query values within ±32767 no sum overflows: 512 * 127 * 32767 < 2^31.
pub fn dots(query: &Query, rows: &[i8], row_sums: &[i32], out: &mut Vec<i32>) {
    if query.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if query.len().is_multiple_of(vnni::LANES) && std::is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has just said that it has AVX-512 VNNI, and so AVX-512F: all that this otherwise safe function requires.
        return unsafe { vnni::dots(query, rows, row_sums, out) };
    }
    #[cfg(target_arch = "x86_64")]
    if query.len().is_multiple_of(avx2::LANES) && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2, the one requirement of this otherwise safe function.
        return unsafe { avx2::dots(&query.values, rows, out) };
    }
    dots_portable(&query.values, rows, out);
}

/// The dot product of two int8 vectors.
#[cfg(feature = "hnsw")]
pub fn dot_of_rows(a: &[i8], b: &[i8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: as in `dots`.
        return unsafe { avx2::dot_of_rows(a, b) };
    }
    dot_of_rows_portable(a, b)
}

#[cfg(feature = "hnsw")]
#[inline(always)]
fn dot_of_rows_portable(a: &[i8], b: &[i8]) -> i32 {
    let mut sum = 0;
    for (a, b) in a.iter().zip(b) {
        sum += i32::from(*a) * i32::from(*b);
    }
    sum
}

/// Asks memory for `row`, without waiting for it.
#[inline]
pub fn fetch(row: &[i8]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint that reads nothing, about memory that is borrowed here.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

fn dots_portable(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
    out.extend(rows.chunks_exact(query.len()).map(|row| dot(query, row)));
}

fn dot(query: &[i16], row: &[i8]) -> i32 {
    query.iter().zip(row).map(|(a, b)| i32::from(*a) * i32::from(*b)).fold(0, i32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of every length, those that fill registers of either size among them.
    fn queries() -> impl Strategy<Value = Vec<i16>> {
        prop_oneof![1usize..100, (1usize..=8).prop_map(|parts| parts * 64)]
            .prop_flat_map(|dims| prop::collection::vec(-32767i16..=32767, dims))
    }

    proptest! {
        #[test]
        fn every_path_gives_the_same_sums(query in queries(), rows in prop::collection::vec(any::<i8>(), 0..4_000)) {
            let (mut fast, mut portable) = (Vec::new(), Vec::new());
            let row_sums: Vec<i32> =
                rows.chunks_exact(query.len()).map(|row| row.iter().map(|value| i32::from(*value)).sum()).collect();
            dots(&Query::new(query.clone()), &rows, &row_sums, &mut fast);
            dots_portable(&query, &rows, &mut portable);
            #[cfg(target_arch = "x86_64")]
            if query.len().is_multiple_of(avx2::LANES) && std::is_x86_feature_detected!("avx2") {
                let mut narrow = Vec::new();
                // SAFETY: as in `dots`.
                unsafe { avx2::dots(&query, &rows, &mut narrow) };
                prop_assert_eq!(&narrow, &portable);
            }
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
        dots(&Query::new(Vec::new()), &[1, 2, 3], &[], &mut out);
        assert!(out.is_empty());
    }
}
