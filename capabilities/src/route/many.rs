//! Decisions among more bodies than are scored in full.

use std::sync::Arc;

use atmo_protocol::record::{BodyVector, CapabilityBody, Cost, OWN_VECTORS_MAX, QuantizedVector};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::capability::Capability;
use crate::embed::{EmbeddingSpace, MINILM_SPACE, quantise};
use crate::exemplars::SetId;
use crate::view::{Condition, Roster, Routable};

const BODIES: u64 = 600;

/// A vector near the middle of the space, as those of real sentences are; the same for the same seed.
fn vector(seed: u64) -> Vec<f32> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let space = EmbeddingSpace::minilm();
    let vector: Vec<f32> = space.mean().iter().map(|mean| mean + rng.random_range(-0.09..0.09)).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.into_iter().map(|value| value / norm).collect()
}

fn body(number: u64, vectors: Vec<QuantizedVector>) -> CapabilityBody {
    let sets: Vec<SetId> = SetId::all().collect();
    let own = |vector| BodyVector { text: "a model".to_owned(), space: MINILM_SPACE.to_owned(), vector };
    CapabilityBody {
        kind: "llm".to_owned(),
        name: format!("model-{number}"),
        description: "a model".to_owned(),
        facts: Vec::new(),
        exemplars: vec![sets[number as usize % sets.len()].id().to_owned()],
        vectors: vectors.into_iter().map(own).collect(),
        extensions: Vec::new(),
    }
}

fn offered(number: u64, body: &CapabilityBody) -> Routable {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Routable {
        id: CapabilityId { node: NodeId::from_bytes(id), slug: Slug::from_name(&body.name) },
        node_name: format!("node-{number}").into(),
        capability: Arc::new(Capability::read(BodyHash::from_bytes(id), body, &EmbeddingSpace::minilm())),
        mode: Mode::Participant,
        labels: Arc::new([]),
        cost: Cost::default(),
        slots: 4,
    }
}

fn ordinary(number: u64) -> Routable {
    offered(number, &body(number, vec![quantise(&vector(number))]))
}

fn view(roster: Roster) -> RoutingView {
    RoutingView::new(NodeId::from_bytes([255; 32]), Arc::new(roster), |_| Condition { hops: 1, ..Condition::default() })
}

fn roster(offered: impl IntoIterator<Item = Routable>) -> Roster {
    Roster::new(offered, EmbeddingSpace::minilm())
}

fn decided(view: &RoutingView, asked: Vec<f32>) -> Decision {
    let intent = Intent { text: "analyse this".to_owned(), vector: Some(asked.into()), ..Intent::default() };
    decide(view, &intent, &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(1))
}

fn probability(decision: &Decision, model: &str) -> Option<f32> {
    decision.candidates.iter().find(|candidate| candidate.model == model)?.probability
}

#[test]
fn who_means_just_that_is_found_among_many() {
    let view = view(roster((0..BODIES).map(ordinary)));
    for number in (0..BODIES).step_by(37) {
        let decision = decided(&view, vector(number));
        let model = format!("model-{number}");
        assert!(probability(&decision, &model).is_some(), "{model}");
        assert_eq!(decision.candidates_total, BODIES as usize);
    }
}

#[test]
fn a_roster_that_grew_and_shrank_decides_like_a_new_one() {
    let mut churned = roster((0..BODIES).map(ordinary));
    for step in 1..8 {
        churned = churned.followed_by((step * 150..step * 150 + BODIES).map(ordinary));
        assert!(churned.bodies().len() <= 2 * BODIES as usize + 64, "tombstones are cleared away");
    }
    let (churned, new) = (view(churned), view(roster((1_050..1_050 + BODIES).map(ordinary))));
    for number in (900..1_650).step_by(50) {
        let (churned, new) = (decided(&churned, vector(number)), decided(&new, vector(number)));
        assert_eq!(churned.candidates.first().map(|best| &best.id), new.candidates.first().map(|best| &best.id));
        assert_eq!((churned.candidates_total, &churned.reason), (new.candidates_total, &new.reason));
    }
}

#[test]
fn the_order_of_many_does_not_matter() {
    let (there, back) = (view(roster((0..BODIES).map(ordinary))), view(roster((0..BODIES).rev().map(ordinary))));
    for asked in 0..20 {
        assert_eq!(decided(&there, vector(asked * 7)), decided(&back, vector(asked * 7)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_thousand_vectors_do_no_more_than_the_best_of_a_few(asked in any::<u64>(), extra in prop::collection::vec(any::<u64>(), 0..1_000)) {
        let others = || (1..20).map(ordinary);
        let near: Vec<f32> = vector(asked).iter().zip(vector(asked ^ 1)).map(|(a, b)| a + b).collect();
        let norm = near.iter().map(|value| value * value).sum::<f32>().sqrt();
        let near = quantise(&near.iter().map(|value| value / norm).collect::<Vec<_>>());
        let modest = body(0, vec![near.clone()]);
        let greedy = body(0, std::iter::once(near.clone()).chain(extra.iter().map(|seed| quantise(&vector(*seed)))).collect());
        let repeated = body(0, vec![near; 1 + extra.len()]);
        let asked_of = |body: &CapabilityBody| {
            let offered = offered(0, body);
            assert!(offered.capability.vectors.len() <= OWN_VECTORS_MAX);
            assert_eq!(offered.capability.vectors.len() + offered.capability.vectors_refused, body.vectors.len());
            let decision = decided(&view(roster(others().chain([offered]))), vector(asked));
            probability(&decision, "model-0")
        };
        let [modest, greedy, repeated] = [modest, greedy, repeated].map(|body| asked_of(&body).unwrap_or(0.0));
        // Six at most count at all, so that saying the same again weighs against what its kind says, and no further.
        let full = asked_of(&body(0, vec![quantise(&vector(asked)); OWN_VECTORS_MAX])).unwrap_or(0.0);
        prop_assert!(greedy <= full + 1e-4 && repeated <= full + 1e-4, "{modest} {greedy} {repeated} {full}");
    }

    #[test]
    fn what_is_no_unit_vector_changes_nothing(scale in any::<f32>(), values in prop::collection::vec(any::<i8>(), 0..400), asked in any::<u64>()) {
        let announced = QuantizedVector { scale, values };
        let readable = EmbeddingSpace::minilm().read(MINILM_SPACE, &announced).is_ok();
        let with = |body: &CapabilityBody| decided(&view(roster((1..20).map(ordinary).chain([offered(0, body)]))), vector(asked));
        let (odd, plain) = (with(&body(0, vec![announced])), with(&body(0, Vec::new())));
        prop_assert!(readable || odd == plain);
        prop_assert!(odd.candidates.iter().all(|candidate| candidate.score.is_finite()));
    }
}
