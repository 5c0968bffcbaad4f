//! `decide` among a thousand capabilities with bodies of their own, and what comparing alone costs done naively.
//!
//! `cargo bench -p atmo-capabilities --bench decide`

use std::hint::black_box;
use std::sync::Arc;

use atmo_capabilities::capability::Capability;
use atmo_capabilities::embed::{EmbeddingSpace, MINILM_SPACE, quantise};
use atmo_capabilities::exemplars::SetId;
use atmo_capabilities::intent::{Intent, ModelChoice};
use atmo_capabilities::route::{Feedback, decide};
use atmo_capabilities::view::{Condition, Roster, Routable, RoutingView};
use atmo_protocol::record::{BodyVector, CapabilityBody, Cost};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

const CAPABILITIES: usize = 1_000;

/// A vector near the middle of the space, as those of real sentences are.
fn vector(space: &EmbeddingSpace, rng: &mut ChaCha12Rng) -> Vec<f32> {
    let vector: Vec<f32> = space.mean().iter().map(|mean| mean + rng.random_range(-0.09..0.09)).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.into_iter().map(|value| value / norm).collect()
}

fn routable(number: usize, space: &EmbeddingSpace, rng: &mut ChaCha12Rng) -> (Routable, Vec<f32>) {
    let own = vector(space, rng);
    let sets: Vec<SetId> = SetId::all().collect();
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: format!("model-{number}"),
        description: "a model".to_owned(),
        facts: Vec::new(),
        exemplars: vec![sets[number % sets.len()].id().to_owned()],
        vectors: vec![BodyVector { text: "a model".to_owned(), space: MINILM_SPACE.to_owned(), vector: quantise(&own) }],
        extensions: Vec::new(),
    };
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let routable = Routable {
        id: CapabilityId { node: NodeId::from_bytes(id), slug: Slug::from_name(&body.name) },
        node_name: format!("node-{number}").into(),
        capability: Arc::new(Capability::read(BodyHash::from_bytes(id), &body, space)),
        mode: Mode::Participant,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: 4,
    };
    (routable, own)
}

fn benchmark(criterion: &mut Criterion) {
    let space = EmbeddingSpace::minilm();
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    let (entries, vectors): (Vec<Routable>, Vec<Vec<f32>>) =
        (0..CAPABILITIES).map(|number| routable(number, &space, &mut rng)).unzip();
    let condition = |_: &Routable| Condition { hops: 1, ..Condition::default() };
    let view =
        RoutingView::new(NodeId::from_bytes([9; 32]), Arc::new(Roster::new(entries.clone(), Arc::clone(&space))), condition);
    let asked = vector(&space, &mut rng);
    let text = "write a function that removes duplicates from a list".to_owned();
    let by_meaning = Intent { text: text.clone(), vector: Some(asked.clone().into()), ..Intent::default() };
    let by_name = Intent { text, model: ModelChoice::Named("model-500".to_owned()), ..Intent::default() };
    let feedback = Feedback::default();
    let mut group = criterion.benchmark_group("1000 capabilities");
    group.bench_function("decide by meaning", |bencher| {
        bencher.iter(|| decide(&view, black_box(&by_meaning), &feedback, &mut rng))
    });
    group.bench_function("decide by name", |bencher| bencher.iter(|| decide(&view, black_box(&by_name), &feedback, &mut rng)));
    group.bench_function("new load column", |bencher| bencher.iter(|| view.with_conditions(condition)));
    group.bench_function("new roster", |bencher| bencher.iter(|| Roster::new(entries.clone(), Arc::clone(&space))));
    let exemplars = vectors.iter().cycle().take(SetId::all().map(|set| set.texts().len()).sum()).cloned().collect::<Vec<_>>();
    let naive = |rows: &[Vec<f32>]| {
        rows.iter().map(|row| row.iter().zip(&asked).fold(0.0, |sum, (a, b)| sum + a * b)).fold(0f32, f32::max)
    };
    group.bench_function("naive f32 comparison of the same vectors", |bencher| {
        bencher.iter(|| naive(black_box(&vectors)).max(naive(black_box(&exemplars))));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
