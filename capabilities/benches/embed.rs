//! Placing texts with the built-in model on one thread, by each engine; and a prompt of 500 tokens, placed and decided on.
//!
//! `cargo bench -p atmo-capabilities --features rten,ort --bench embed`; ONNX Runtime runs where `ATMO_TEST_ORT` names a library of it.

use std::hint::black_box;
use std::sync::Arc;

use atmo_capabilities::capability::Capability;
use atmo_capabilities::embed::rten::RtenEmbedder;
use atmo_capabilities::embed::{EmbedError, Embedder, EmbeddingSpace};
use atmo_capabilities::exemplars::SetId;
use atmo_capabilities::intent::{Intent, PromptTokens};
use atmo_capabilities::route::{Feedback, decide};
use atmo_capabilities::view::{Condition, Roster, Routable, RoutingView};
use atmo_protocol::record::{CapabilityBody, Cost};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

const SHORT: &str = "write a function that removes duplicates from a list";
/// Calls of each engine that the percentiles are taken over.
const CALLS: usize = 400;
/// The same of a long prompt.
const LONG_CALLS: usize = 200;

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
    long_prompt(&loaded);
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

/// Somebody of every kind, each with a body of its own.
fn everybody() -> RoutingView {
    let routable = |(number, set): (usize, SetId)| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let body = CapabilityBody {
            kind: "llm".to_owned(),
            name: set.id().to_owned(),
            description: set.title().to_owned(),
            facts: Vec::new(),
            exemplars: vec![set.id().to_owned()],
            vectors: Vec::new(),
            extensions: Vec::new(),
        };
        Routable {
            id: CapabilityId { node: NodeId::from_bytes(id), slug: Slug::from_name(set.id()) },
            node_name: "node".into(),
            capability: Arc::new(Capability::read(BodyHash::from_bytes(id), &body, &EmbeddingSpace::minilm())),
            mode: Mode::Participant,
            labels: Arc::new([]),
            cost: Cost::default(),
            slots: 1,
        }
    };
    let roster = Arc::new(Roster::new(SetId::all().enumerate().map(routable), EmbeddingSpace::minilm()));
    RoutingView::new(NodeId::from_bytes([9; 32]), roster, |_| Condition::default())
}

/// A prompt of 500 tokens (by our estimate), placed and decided on: single calls, the engines in turn, another prompt each time.
fn long_prompt(engines: &[(&str, Box<dyn Embedder>)]) {
    let view = everybody();
    let (feedback, mut chance) = (Feedback::default(), ChaCha12Rng::seed_from_u64(1));
    let mut calls_ms = vec![Vec::new(); engines.len()];
    let mut tokens = 0;
    for number in 0..LONG_CALLS {
        let text = format!("summarise report {number}: ")
            + &"the committee finds in view of the evidence that the plan holds ".repeat(40);
        tokens = PromptTokens::of(&text).likely;
        for ((_, embedder), calls_ms) in engines.iter().zip(&mut calls_ms) {
            let start = WallTime.start();
            let vector = embedder.embed(&[&text]).expect("the model runs").remove(0);
            let intent = Intent { text: text.clone(), vector: Some(vector.into()), ..Intent::default() };
            black_box(decide(&view, &intent, &feedback, &mut chance));
            calls_ms.push(WallTime.end(start).as_secs_f64() * 1e3);
        }
    }
    println!("a prompt of {tokens} tokens embedded and decided on, {LONG_CALLS} single calls, engines in turn");
    for ((engine, _), calls_ms) in engines.iter().zip(&mut calls_ms) {
        calls_ms.sort_by(f64::total_cmp);
        println!("  {engine:<5} p50 {:.2} ms, p99 {:.2} ms", calls_ms[LONG_CALLS / 2], calls_ms[LONG_CALLS * 99 / 100]);
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
