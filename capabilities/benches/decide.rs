//! `decide` alone among 1,000, 10,000 and 100,000 capabilities: of few distinct bodies, as in a mesh where many run the same models, and
//! each with a body of its own. Beside it, what a new roster and a new load column cost.
//!
//! `cargo bench -p atmo-capabilities --bench decide`; compare ratios, and say what else the machine was doing.

use std::hint::black_box;
use std::sync::Arc;

use atmo_capabilities::cache::IntentCache;
use atmo_capabilities::capability::Capability;
use atmo_capabilities::embed::{EmbeddingSpace, MINILM_SPACE, quantise};
use atmo_capabilities::exemplars::SetId;
use atmo_capabilities::intent::{Intent, ModelChoice};
use atmo_capabilities::route::{Feedback, decide};
use atmo_capabilities::view::{Condition, Roster, Routable, RoutingView};
use atmo_protocol::record::{BodyVector, CapabilityBody, Cost};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Calls that the middle is taken of.
const CALLS: usize = 4_000;
const TEXT: &str = "write a function that removes duplicates from a list";

/// A vector near the middle of the space, as those of real sentences are.
fn vector(space: &EmbeddingSpace, rng: &mut ChaCha12Rng) -> Vec<f32> {
    let vector: Vec<f32> = space.mean().iter().map(|mean| mean + rng.random_range(-0.09..0.09)).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.into_iter().map(|value| value / norm).collect()
}

fn id(number: usize) -> [u8; 32] {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    id
}

/// A body with `own` vectors beside the exemplars of one kind.
fn capability(number: usize, own: usize, space: &EmbeddingSpace, rng: &mut ChaCha12Rng) -> Arc<Capability> {
    let sets: Vec<SetId> = SetId::all().collect();
    let mut vector =
        || BodyVector { text: "a model".to_owned(), space: MINILM_SPACE.to_owned(), vector: quantise(&vector(space, rng)) };
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: format!("model-{number}"),
        description: "a model".to_owned(),
        facts: Vec::new(),
        exemplars: vec![sets[number % sets.len()].id().to_owned()],
        vectors: (0..own).map(|_| vector()).collect(),
        extensions: Vec::new(),
    };
    Arc::new(Capability::read(BodyHash::from_bytes(id(number)), &body, space))
}

fn routable(number: usize, capability: &Arc<Capability>) -> Routable {
    Routable {
        id: CapabilityId { node: NodeId::from_bytes(id(number)), slug: Slug::from_name(&capability.name) },
        node_name: format!("node-{number}").into(),
        capability: Arc::clone(capability),
        mode: Mode::Participant,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: 4,
    }
}

fn condition(_: &Routable) -> Condition {
    Condition { hops: 1, ..Condition::default() }
}

fn mesh(capabilities: usize, bodies: usize, own: usize) -> Vec<Routable> {
    let space = EmbeddingSpace::minilm();
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    let bodies: Vec<Arc<Capability>> = (0..bodies).map(|number| capability(number, own, &space, &mut rng)).collect();
    (0..capabilities).map(|number| routable(number, &bodies[number % bodies.len()])).collect()
}

fn view(entries: Vec<Routable>) -> RoutingView {
    RoutingView::new(NodeId::from_bytes([9; 32]), Arc::new(Roster::new(entries, EmbeddingSpace::minilm())), condition)
}

fn benchmark(criterion: &mut Criterion) {
    let space = EmbeddingSpace::minilm();
    let mut rng = ChaCha12Rng::seed_from_u64(8);
    let feedback = Feedback::default();
    let mut group = criterion.benchmark_group("decide by meaning");
    let sizes =
        [(1_000, 50, 4), (1_000, 1_000, 1), (10_000, 500, 4), (10_000, 10_000, 1), (100_000, 1_000, 4), (100_000, 100_000, 1)];
    for (capabilities, bodies, own) in sizes.into_iter().chain([(100_000, 100_000, 4)]) {
        let view = view(mesh(capabilities, bodies, own));
        // Not one intent again and again: what a processor has learnt of its branches would flatter.
        let intent = || Intent { text: TEXT.to_owned(), vector: Some(vector(&space, &mut rng).into()), ..Intent::default() };
        let intents: Vec<Intent> = std::iter::repeat_with(intent).take(64).collect();
        let mut next = intents.iter().cycle();
        let name = BenchmarkId::new(format!("{capabilities} capabilities"), format!("{bodies} bodies of {own} own vectors"));
        let mut chance = ChaCha12Rng::seed_from_u64(9);
        group.bench_function(name, |bencher| {
            bencher.iter(|| decide(&view, black_box(next.next()?), &feedback, &mut chance).chosen)
        });
    }
    group.finish();
    single_calls(&space, &mut rng);
    others(criterion, &space, &mut rng);
}

/// Each call by itself: on a machine that does other things too, the middle of many short times is what a decision takes of a processor.
fn single_calls(space: &Arc<EmbeddingSpace>, rng: &mut ChaCha12Rng) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| "unknown".to_owned());
    println!("decide by meaning, {CALLS} single calls; load average {}", load.trim());
    for (capabilities, bodies, own) in [(1_000, 50, 4), (1_000, 1_000, 1), (10_000, 500, 4), (100_000, 1_000, 4)] {
        let view = view(mesh(capabilities, bodies, own));
        let mut calls_ns: Vec<u128> = (0..CALLS)
            .map(|_| {
                let intent = Intent { text: TEXT.to_owned(), vector: Some(vector(space, rng).into()), ..Intent::default() };
                let start = WallTime.start();
                black_box(decide(&view, &intent, &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(9)));
                WallTime.end(start).as_nanos()
            })
            .collect();
        calls_ns.sort_unstable();
        let micros = |share: usize| calls_ns[CALLS * share / 100] as f64 / 1e3;
        println!("  {capabilities:>6} capabilities, {bodies:>5} bodies: p10 {:.1} us, p50 {:.1} us", micros(10), micros(50));
    }
}

fn others(criterion: &mut Criterion, space: &Arc<EmbeddingSpace>, rng: &mut ChaCha12Rng) {
    let entries = mesh(1_000, 1_000, 1);
    let view = view(entries.clone());
    let by_name = Intent { text: TEXT.to_owned(), model: ModelChoice::Named("model-500".to_owned()), ..Intent::default() };
    let mut group = criterion.benchmark_group("1000 capabilities");
    group.bench_function("decide by name", |bencher| {
        bencher.iter(|| decide(&view, black_box(&by_name), &Feedback::default(), rng));
    });
    group.bench_function("new load column", |bencher| bencher.iter(|| view.with_conditions(condition)));
    group.bench_function("new roster", |bencher| bencher.iter(|| Roster::new(entries.clone(), Arc::clone(space))));
    group.bench_function("next roster", |bencher| bencher.iter(|| view.roster().followed_by(entries.clone())));
    let mut cache = IntentCache::default();
    cache.insert(TEXT, vector(space, rng).into());
    group.bench_function("an intent remembered", |bencher| bencher.iter(|| cache.get(black_box(TEXT))));
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
