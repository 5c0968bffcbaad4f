//! Dot products of one int16 query with many int8 rows, exact in int32.
//!
//! The query keeps 15 bits, so nothing is lost against the rows as they were announced and no second pass in f32 is needed. Plain loops;
//! on x86-64, whose baseline has only SSE2, the same loop is compiled a second time for AVX2 and chosen at run time.

/// Appends to `out` the dot product of `query` with each row of `rows`, which lie one behind the other, each as long as `query`.
///
/// With up to 512 dimensions and query values within ±32767 no sum overflows: 512 * 127 * 32767 < 2^31.
pub fn dots(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
    if query.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2, the one requirement of this safe function.
        return unsafe { dots_avx2(query, rows, out) };
    }
    dots_portable(query, rows, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dots_avx2(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
    dots_portable(query, rows, out);
}

#[inline(always)]
fn dots_portable(query: &[i16], rows: &[i8], out: &mut Vec<i32>) {
    out.extend(rows.chunks_exact(query.len()).map(|row| dot(query, row)));
}

#[inline(always)]
fn dot(query: &[i16], row: &[i8]) -> i32 {
    query.iter().zip(row).map(|(a, b)| i32::from(*a) * i32::from(*b)).fold(0, i32::wrapping_add)
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
