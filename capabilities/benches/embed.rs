//! Placing texts with the built-in model on one thread, by each engine.
//!
//! `cargo bench -p atmo-capabilities --features rten,ort --bench embed`; ONNX Runtime runs where `ATMO_TEST_ORT` names a library of it.

use std::hint::black_box;

use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::embed::{EmbedError, Embedder};
use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};

const SHORT: &str = "write a function that removes duplicates from a list";
/// Calls of each engine that the percentiles are taken over.
const CALLS: usize = 400;

type Load = Box<dyn Fn() -> Result<Box<dyn Embedder>, EmbedError>>;

fn engines() -> Vec<(&'static str, Load)> {
    let mut engines: Vec<(&str, Load)> = vec![("rten", Box::new(|| Ok(Box::new(RtenEmbedder::load()?))))];
    match onnx_runtime() {
        Some(load) => engines.push(("ort", load)),
        None => println!("skipped: ort, because ATMO_TEST_ORT names no library of it or the feature `ort` is off"),
    }
    engines
}

#[cfg(feature = "ort")]
fn onnx_runtime() -> Option<Load> {
    use atmo_capabilities::embed::ort::OrtEmbedder;

    let library = std::env::var_os("ATMO_TEST_ORT").filter(|path| !path.is_empty()).map(std::path::PathBuf::from)?;
    Some(Box::new(move || Ok(Box::new(OrtEmbedder::load(&library)?))))
}

#[cfg(not(feature = "ort"))]
fn onnx_runtime() -> Option<Load> {
    None
}

fn benchmark(criterion: &mut Criterion) {
    let long = "the committee finds, in view of the evidence presented, that the plan holds ".repeat(40);
    let mut loaded = Vec::new();
    for (engine, load) in engines() {
        let mut group = criterion.benchmark_group(format!("embed by {engine}"));
        group.sample_size(20);
        group.bench_function("load and let go", |bencher| bencher.iter(|| load().expect("the model loads").dims()));
        let embedder = load().expect("the model loads");
        for (name, texts) in
            [("a short intent", vec![SHORT]), ("a long intent", vec![long.as_str()]), ("sixteen short intents", vec![SHORT; 16])]
        {
            group.bench_function(name, |bencher| bencher.iter(|| embedder.embed(black_box(&texts))));
        }
        group.finish();
        loaded.push((engine, embedder));
    }
    percentiles(&loaded);
}

/// Times single calls, the engines in turn, so that what else the machine does meets them alike.
fn percentiles(engines: &[(&str, Box<dyn Embedder>)]) {
    let mut calls_ms = vec![Vec::with_capacity(CALLS); engines.len()];
    for _ in 0..CALLS {
        for ((_, embedder), calls_ms) in engines.iter().zip(&mut calls_ms) {
            let start = WallTime.start();
            black_box(embedder.embed(black_box(&[SHORT]))).expect("the model runs");
            calls_ms.push(WallTime.end(start).as_secs_f64() * 1e3);
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| "unknown".to_owned());
    println!("a short intent, {CALLS} single calls, engines in turn; load average {}", load.trim());
    for ((engine, _), calls_ms) in engines.iter().zip(&mut calls_ms) {
        calls_ms.sort_by(f64::total_cmp);
        println!("  {engine:<5} p50 {:.2} ms, p99 {:.2} ms", calls_ms[CALLS / 2], calls_ms[CALLS * 99 / 100]);
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
