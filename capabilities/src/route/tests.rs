//! What a decision must hold to, whatever is offered and whatever is asked.

mod constrained;
mod explained;
mod screened;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_protocol::record::{CapabilityBody, Cost, Load};
use atmo_protocol::{BodyHash, CapabilityId, Mode, NodeId, Slug};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::capability::{Capability, embedded};
use crate::embed::scripted::ScriptedEmbedder;
use crate::embed::{Embedder, EmbeddingSpace};
use crate::explain::explain;
use crate::intent::{Constraints, Operation};
use crate::view::{Condition, Roster, Routable, Standing};

/// One capability with everything about it.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    routable: Routable,
    condition: Condition,
}

fn capability(kind: &str, name: &str, description: &str, facts: &[(&str, &str)]) -> Arc<Capability> {
    let body = CapabilityBody {
        kind: kind.to_owned(),
        name: name.to_owned(),
        description: description.to_owned(),
        facts: facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    };
    let body = embedded(body, &ScriptedEmbedder).unwrap();
    let hash = blake3::hash(format!("{body:?}").as_bytes());
    Arc::new(Capability::read(BodyHash::from_bytes(*hash.as_bytes()), &body, &EmbeddingSpace::scripted()))
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn offer(number: u8, kind: &str, name: &str, description: &str, facts: &[(&str, &str)]) -> Offered {
    let routable = Routable {
        id: CapabilityId { node: node(number), slug: Slug::from_name(name) },
        node_name: format!("node{number}").into(),
        capability: capability(kind, name, description, facts),
        mode: Mode::Participant,
        labels: Arc::new([("zone".to_owned(), format!("z{}", number % 2))]),
        cost: Cost::default(),
        slots: 2,
    };
    Offered { routable, condition: Condition { hops: 1, ..Condition::default() } }
}

fn view(offered: &[Offered]) -> RoutingView {
    let roster = Arc::new(Roster::new(offered.iter().map(|offered| offered.routable.clone()), EmbeddingSpace::scripted()));
    let condition = |routable: &Routable| {
        let one = offered.iter().find(|offered| offered.routable.id == routable.id).expect("every entry was offered");
        one.condition
    };
    RoutingView::new(node(0), roster, condition)
}

fn ask(text: &str) -> Intent {
    let vector = ScriptedEmbedder.embed(&[text]).unwrap().remove(0);
    Intent { text: text.to_owned(), vector: Some(vector.into()), ..Intent::default() }
}

fn named(name: &str) -> Intent {
    Intent { text: "hello".into(), model: ModelChoice::parse(name), operation: Operation::Chat, ..Intent::default() }
}

fn decided(view: &RoutingView, intent: &Intent) -> Decision {
    decide(view, intent, &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(1))
}

fn model_chosen(view: &RoutingView, intent: &Intent) -> Option<String> {
    decided(view, intent).chosen().map(|chosen| chosen.model.clone())
}

/// A small mesh of different things.
fn mesh() -> Vec<Offered> {
    vec![
        offer(
            1,
            "llm",
            "llama3.1:8b",
            "general chat model",
            &[("parameters_b", "8"), ("context_length", "8192"), ("tools", "true")],
        ),
        offer(
            2,
            "llm",
            "llama3.1:8b",
            "general chat model",
            &[("parameters_b", "8"), ("context_length", "8192"), ("tools", "true")],
        ),
        offer(3, "llm", "qwen2.5-coder:7b", "code model", &[("parameters_b", "7"), ("tools", "false")]),
        offer(4, "embedding", "nomic-embed-text", "text embeddings", &[]),
        offer(5, "llm", "atmo-tiny", "demonstration model", &[("parameters_b", "0.003"), ("demonstration", "true")]),
    ]
}

#[test]
fn nothing_offered_is_said_at_once() {
    let decision = decided(&view(&[]), &ask("hello"));
    assert_eq!(decision.refusal(), Some(&Refusal::NothingOffered));
    assert!(explain(&decision).contains("nobody"));
}

#[test]
fn what_is_asked_for_by_meaning_is_found() {
    let view = view(&mesh());
    let intent = ask("write a Python function that removes duplicates from a list while keeping the order");
    assert_eq!(model_chosen(&view, &intent).as_deref(), Some("qwen2.5-coder:7b"));
    assert_eq!(decided(&view, &intent).reason, Reason::Matched);
}

#[test]
fn the_demonstration_model_answers_only_where_no_other_general_model_can() {
    let mut offered = mesh();
    let intent = ask("demonstration model");
    let decision = decided(&view(&offered), &intent);
    assert!(decision.candidates.iter().all(|candidate| candidate.model != "atmo-tiny"));
    assert!(decision.excluded.iter().any(|excluded| excluded.reason.contains("stands aside")));
    let named = Intent { model: ModelChoice::Named("atmo-tiny".into()), ..intent.clone() };
    assert_eq!(model_chosen(&view(&offered), &named).as_deref(), Some("atmo-tiny"));
    offered.retain(|one| one.routable.capability.name != "llama3.1:8b");
    assert_eq!(model_chosen(&view(&offered), &intent).as_deref(), Some("atmo-tiny"));
}

#[test]
fn an_ordinary_request_falls_back_to_a_general_model_but_never_to_a_specialised_one() {
    let mut offered = mesh();
    let intent = ask("zyx wvu tsr qpo");
    let decision = decided(&view(&offered), &intent);
    assert_eq!(decision.chosen().unwrap().model, "llama3.1:8b");
    assert_eq!(decision.reason.to_string(), "fallback: general");
    offered.retain(|one| one.routable.capability.name != "llama3.1:8b");
    assert_eq!(
        model_chosen(&view(&offered), &intent).as_deref(),
        Some("atmo-tiny"),
        "the demonstration model is better than nobody"
    );
    offered.retain(|one| one.routable.capability.name != "atmo-tiny");
    assert_eq!(decided(&view(&offered), &intent).refusal(), Some(&Refusal::NothingFits));
}

#[test]
fn what_needs_a_device_nobody_offers_is_refused_by_its_name() {
    let decision = decided(&view(&mesh()), &ask("switch off the lamp in the bedroom"));
    assert_eq!(decision.refusal(), Some(&Refusal::Missing { needs: "home devices" }));
    assert_eq!(decision.reason.to_string(), "needs home devices; nobody in the mesh offers that");
    let mut offered = mesh();
    offered.push(offer(6, "home", "lights", "lights in the house", &[]));
    let chat = Intent { operation: Operation::Chat, ..ask("switch off the lamp in the bedroom") };
    let refusal = decided(&view(&offered), &chat).refusal().unwrap().to_string();
    assert!(refusal.contains("home devices") && refusal.contains("does not answer chat requests"), "{refusal}");
}

#[test]
fn without_a_vector_a_general_model_answers() {
    let decision = decided(&view(&mesh()), &Intent { vector: None, ..ask("write a Python function") });
    assert_eq!(decision.chosen().unwrap().model, "llama3.1:8b");
}

#[test]
fn the_demonstration_model_loses_to_any_other_even_a_full_one() {
    let mut offered = mesh();
    for one in &mut offered[..2] {
        one.condition.load = Load { running: 2, waiting: 6, slots: 2, tokens_per_second: 1.0 };
        one.condition.hops = 5;
    }
    assert_eq!(model_chosen(&view(&offered), &ask("hello there, how is it going?")).as_deref(), Some("llama3.1:8b"));
}

#[test]
fn a_full_provider_loses_to_its_free_equal() {
    let mut offered = mesh();
    offered[0].condition.load = Load { running: 2, waiting: 0, slots: 2, tokens_per_second: 0.0 };
    for seed in 0..50 {
        let decision =
            decide(&view(&offered), &named("llama3.1:8b"), &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(seed));
        assert_eq!(decision.chosen().unwrap().id.node, node(2));
    }
    let mut feedback = Feedback::default();
    let id = offered[1].routable.id.clone();
    (0..4).for_each(|_| feedback.started(&id));
    let decision = decide(&view(&offered), &named("llama3.1:8b"), &feedback, &mut ChaCha12Rng::seed_from_u64(1));
    assert_eq!(decision.chosen().unwrap().id.node, node(1), "four requests of our own are a queue of four");
}

#[test]
fn equals_share_the_work() {
    let view = view(&mesh());
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let first = (0..400).filter(|_| {
        let decision = decide(&view, &named("llama3.1:8b"), &Feedback::default(), &mut rng);
        decision.chosen().unwrap().id.node == node(1)
    });
    assert!((150..250).contains(&first.count()));
}

#[test]
fn a_named_model_is_found_by_name_by_pin_and_by_slug_without_a_vector() {
    let view = view(&mesh());
    for name in ["llama3.1:8b", "node1/llama3.1:8b"] {
        let decision = decided(&view, &named(name));
        assert_eq!(decision.reason, Reason::Named);
        assert_eq!(decision.chosen().unwrap().factors.similarity, 1.0);
    }
    assert_eq!(decided(&view, &named("node2/llama3.1:8b")).chosen().unwrap().id.node, node(2));
    assert_eq!(decided(&view, &named("node1/llama3.1:8b")).candidates.len(), 1);
    let short = format!("{}/llama3.1:8b", node(2).short());
    assert_eq!(decided(&view, &named(&short)).chosen().unwrap().id.node, node(2));
}

#[test]
fn unknown_and_ambiguous_names_are_refused_with_what_was_near() {
    let mut offered = mesh();
    let decision = decided(&view(&offered), &named("llama3.1:8"));
    assert_eq!(decision.refusal(), Some(&Refusal::NoSuchModel { name: "llama3.1:8".into(), near: vec!["llama3.1:8b".into()] }));
    for one in &mut offered[..2] {
        one.routable.node_name = "twin".into();
    }
    let refusal = decided(&view(&offered), &named("twin/llama3.1:8b")).refusal().cloned();
    assert!(matches!(refusal, Some(Refusal::Ambiguous { candidates, .. }) if candidates.len() == 2));
}

#[test]
fn an_open_circuit_and_a_dead_node_are_left_out() {
    let mut offered = mesh();
    offered[0].condition.standing = Standing::Dead;
    let mut feedback = Feedback::default();
    feedback.set(
        offered[1].routable.id.clone(),
        Experience { breaker: Breaker::Open { retry_in_ms: 1_500 }, ..Experience::default() },
    );
    let decision = decide(&view(&offered), &named("llama3.1:8b"), &feedback, &mut ChaCha12Rng::seed_from_u64(1));
    assert!(matches!(decision.refusal(), Some(Refusal::AllExcluded(_))));
    let reasons: Vec<&str> = decision.excluded.iter().map(|excluded| excluded.reason.as_str()).collect();
    assert_eq!(reasons, ["its node is gone", "failed repeatedly; tried again in 1.5 s"]);
}

#[test]
fn embedding_requests_go_to_embedding_models_whatever_the_text_says() {
    let intent = Intent { operation: Operation::Embed, ..ask("write a Python function") };
    assert_eq!(model_chosen(&view(&mesh()), &intent).as_deref(), Some("nomic-embed-text"));
}

/// The promises made of the built-in model, with the real embedder.
#[cfg(feature = "rten")]
#[test]
fn the_demonstration_model_alone_answers_words_and_nothing_else() {
    let embedder = crate::embed::rten::RtenEmbedder::load().unwrap();
    let space = EmbeddingSpace::minilm();
    let mut demonstration = offer(0, "llm", "atmo-tiny", "", &[]).routable;
    let body = CapabilityBody {
        kind: "llm".to_owned(),
        name: "atmo-tiny".to_owned(),
        description: "Built-in demonstration model: greets, knows a few capitals and sums, answers questions about the mesh"
            .to_owned(),
        facts: vec![("demonstration".to_owned(), "true".to_owned())],
        exemplars: Vec::new(),
        vectors: Vec::new(),
        extensions: Vec::new(),
    };
    let body = embedded(body, &embedder).unwrap();
    demonstration.capability = Arc::new(Capability::read(BodyHash::from_bytes([1; 32]), &body, &space));
    let view = RoutingView::new(node(0), Arc::new(Roster::new([demonstration], space)), |_| Condition::default());
    let asked = |text: &str| {
        let vector = embedder.embed(&[text]).unwrap().remove(0);
        decided(
            &view,
            &Intent { text: text.to_owned(), vector: Some(vector.into()), operation: Operation::Chat, ..Intent::default() },
        )
    };
    for text in
        ["hello", "what is the capital of France?", "summarise this contract", "write a limerick about rust", "12 + 30", ""]
    {
        assert!(asked(text).chosen().is_some(), "{text:?}: {}", asked(text).reason);
    }
    for (text, needs) in [
        ("turn on the living room lights", "lights and blinds"),
        ("transcribe the recording of yesterday's meeting", "speech recognition"),
        ("draw me a picture of a cat on the moon", "image generation"),
        ("what is the temperature in the cellar right now?", "sensor readings"),
    ] {
        assert_eq!(asked(text).refusal(), Some(&Refusal::Missing { needs }), "{text:?}");
    }
}

fn meshes() -> impl Strategy<Value = Vec<Offered>> {
    let names = ["llama3.1:8b", "qwen2.5-coder:7b", "nomic-embed-text", "whisper-large", "atmo-tiny", "sqlcoder"];
    let facts: [&[(&str, &str)]; 3] = [
        &[("parameters_b", "8"), ("context_length", "8192"), ("tools", "true"), ("vision", "true")],
        &[("parameters_b", "70"), ("context_length", "2048"), ("tools", "false"), ("quality", "0.9")],
        &[],
    ];
    let one =
        (0..names.len(), 0..facts.len(), 0u16..5, 0u8..6, 0u32..20_000).prop_map(move |(which, known, running, hops, price)| {
            let kind = if which == 2 { "embedding" } else { "llm" };
            let mut offered = offer(0, kind, names[which], "", facts[known]);
            offered.condition.load.running = running;
            offered.condition.hops = hops;
            offered.routable.cost.completion_micros_per_1k = price.saturating_sub(5_000);
            offered
        });
    prop::collection::vec(one, 1..12).prop_map(|mut offered| {
        for (number, one) in (1..).zip(&mut offered) {
            one.routable.id.node = node(number);
            one.routable.node_name = format!("node{number}").into();
            one.routable.labels = labels(number);
        }
        offered
    })
}

fn labels(number: u8) -> Arc<[(String, String)]> {
    let residency = [("residency", "eu"), ("residency", "us"), ("gpu", "a100")][usize::from(number) % 3];
    let zone = format!("z{}", number % 2);
    [("zone", zone.as_str()), residency].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("write a SQL query".to_owned()),
        Just("hello".to_owned()),
        Just("transcribe this audio recording".to_owned())
    ]
}

fn score_of(decision: &Decision, id: &CapabilityId) -> f32 {
    decision.candidates.iter().find(|candidate| candidate.id == *id).map_or(0.0, |candidate| candidate.score)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_what_is_offered_does_not_matter(offered in meshes(), text in texts()) {
        let mut turned = offered.clone();
        turned.reverse();
        prop_assert_eq!(decided(&view(&offered), &ask(&text)), decided(&view(&turned), &ask(&text)));
    }

    #[test]
    fn a_score_is_the_product_of_its_factors_and_each_factor_a_share(offered in meshes(), text in texts()) {
        for candidate in decided(&view(&offered), &ask(&text)).candidates {
            prop_assert!((candidate.factors.product() - candidate.score).abs() < 1e-6);
            prop_assert!(candidate.factors.named().iter().all(|(_, factor)| (0.0..=1.0).contains(factor)), "{:?}", candidate.factors);
        }
    }

    #[test]
    fn getting_worse_never_raises_a_score(offered in meshes(), text in texts(), load in 0u16..9, hops in 0u8..9, price in 0u32..9_999) {
        let mut worse = offered.clone();
        worse[0].condition.load.running += load;
        worse[0].condition.hops += hops;
        worse[0].routable.cost.completion_micros_per_1k += price;
        let id = &offered[0].routable.id;
        let (before, after) = (decided(&view(&offered), &ask(&text)), decided(&view(&worse), &ask(&text)));
        prop_assert!(score_of(&after, id) <= score_of(&before, id) + 1e-6);
    }

    #[test]
    fn any_intent_and_any_vector_is_decided(offered in meshes(), text in any::<String>(), vector in prop::collection::vec(any::<f32>(), 0..400), name in any::<String>()) {
        let view = view(&offered);
        decided(&view, &Intent { text: text.clone(), vector: Some(vector.into()), ..Intent::default() });
        decided(&view, &Intent { text, model: ModelChoice::Named(name), ..Intent::default() });
    }
}
