//! Placing texts with the built-in model on one thread.
//!
//! `cargo bench -p atmo-capabilities --features rten --bench embed`

use std::hint::black_box;

use atmo_capabilities::embed::Embedder;
use atmo_capabilities::embed::rten::RtenEmbedder;
use criterion::{Criterion, criterion_group, criterion_main};

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("embed");
    group.sample_size(20);
    group.bench_function("load and let go", |bencher| {
        bencher.iter(|| RtenEmbedder::load().expect("the model in the binary loads"))
    });
    let embedder = RtenEmbedder::load().expect("the model in the binary loads");
    let long = "the committee finds, in view of the evidence presented, that the plan holds ".repeat(40);
    for (name, texts) in [
        ("a short intent", vec!["write a function that removes duplicates from a list"]),
        ("a long intent", vec![long.as_str()]),
        ("sixteen short intents", vec!["write a function that removes duplicates from a list"; 16]),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| embedder.embed(black_box(&texts))));
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
