//! The ways to find the vectors nearest to a query, compared in the same run: everything in f32, everything in int8, signatures and then
//! int8, and a graph. Also what building the graph takes.
//!
//! `cargo bench -p atmo-capabilities --features hnsw --bench index`; `ATMO_BENCH_LARGE=1` adds 100,000 vectors, whose graph takes minutes.

use std::cmp::Reverse;
use std::hint::black_box;
use std::sync::Arc;

use atmo_capabilities::embed::{EmbeddingSpace, UnitVector, quantise};
use atmo_capabilities::index::graph::Graph;
use atmo_capabilities::index::{ExactIndex, Query};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// What is asked for in the end.
const NEAREST: usize = 10;
/// What is looked at for it where something only proposes.
const PROPOSED: usize = 256;

/// A vector near one of the descriptions, as descriptions of real capabilities are near what they are asked for.
fn vector(space: &EmbeddingSpace, descriptions: &[Vec<f32>], rng: &mut ChaCha12Rng) -> UnitVector {
    let kind = &descriptions[rng.random_range(0..descriptions.len())];
    let noisy: Vec<f32> = kind.iter().map(|value| value + rng.random_range(-0.08..0.08)).collect();
    let norm = noisy.iter().map(|value| value * value).sum::<f32>().sqrt();
    let unit: Vec<f32> = noisy.iter().map(|value| value / norm).collect();
    UnitVector::read(&quantise(&unit), space.mean()).expect("it was normalised")
}

/// What owners say of each kind of thing, as it is and turned towards requests.
fn descriptions(space: &EmbeddingSpace) -> Vec<Vec<f32>> {
    let sets = atmo_capabilities::exemplars::vectors::built_in(space.dims()).expect("the descriptions belong to the binary");
    let read = |vector| UnitVector::read(vector, space.mean()).expect("they are unit vectors");
    let abouts = sets.iter().flat_map(|set| &set.abouts).map(read);
    abouts.flat_map(|about| [space.turned(&about, None).to_f32(), about.to_f32()]).collect()
}

fn nearest(similarities: impl Iterator<Item = f32>) -> Vec<(Reverse<u32>, usize)> {
    let mut all: Vec<(Reverse<u32>, usize)> =
        similarities.enumerate().map(|(row, similarity)| (Reverse((similarity.max(0.0) * 1e9) as u32), row)).collect();
    all.select_nth_unstable(NEAREST);
    all.truncate(NEAREST);
    all
}

/// As a compiler that may reorder sums would do it: 16 sums side by side.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn benchmark(criterion: &mut Criterion) {
    let large = std::env::var_os("ATMO_BENCH_LARGE").is_some();
    let sizes = [1_000, 10_000, 100_000];
    for size in sizes.into_iter().take(if large { 3 } else { 2 }) {
        compare(criterion, size);
    }
}

fn compare(criterion: &mut Criterion, size: usize) {
    let space = EmbeddingSpace::minilm();
    let descriptions = descriptions(&space);
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    let mut index = ExactIndex::new(space.mean());
    let mut floats: Vec<Vec<f32>> = Vec::new();
    for _ in 0..size {
        let vector = vector(&space, &descriptions, &mut rng);
        floats.push(space.centre(&vector.to_f32()).expect("it has a direction"));
        index.push(&[vector]);
    }
    let asked = vector(&space, &descriptions, &mut rng).to_f32();
    let query = Query::new(&asked, &space).expect("it has a direction");
    let centred = space.centre(&asked).expect("it has a direction");
    let graph = Graph::build(index.rows(), index.mean());
    let mut group = criterion.benchmark_group("nearest ten");
    group.bench_function(BenchmarkId::new("brute force f32", size), |bencher| {
        bencher.iter(|| nearest(floats.iter().map(|row| dot(row, black_box(&centred)))));
    });
    group.bench_function(BenchmarkId::new("exact int8", size), |bencher| {
        bencher.iter(|| nearest(index.rows().similarities(black_box(&query)).into_iter()));
    });
    group.bench_function(BenchmarkId::new("signatures, then int8", size), |bencher| {
        bencher.iter(|| by_signature(&index, black_box(&query)));
    });
    for proposed in [64, PROPOSED] {
        group.bench_function(BenchmarkId::new(format!("hnsw_rs, width {proposed}"), size), |bencher| {
            bencher.iter(|| graph.nearest(black_box(&query), proposed));
        });
    }
    group.finish();
    if size <= 1_000 {
        let rows = Arc::new(index.rows().clone());
        criterion.bench_function("building a graph of 1000", |bencher| bencher.iter(|| Graph::build(&rows, index.mean())));
    }
}

fn by_signature(index: &ExactIndex, query: &Query) -> Vec<(Reverse<u32>, usize)> {
    let mut order: Vec<(u16, u32)> = index.rows().differences(query).into_iter().zip(0..).collect();
    if order.len() > PROPOSED {
        order.select_nth_unstable(PROPOSED - 1);
        order.truncate(PROPOSED);
    }
    nearest(index.rows().similarities_of(query, order.iter().map(|(_, row)| *row as usize)).into_iter())
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
