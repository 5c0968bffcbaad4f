//! Hard constraints: each excludes by its own name and shows its figures, and nobody slips through.

use super::*;
use crate::intent::{PromptTokens, RequestTokens};
use crate::score::fit;
use crate::score::price::Rates;
use crate::score::wait::Expected;

/// Constraints as a user writes them.
fn constraints(written: &[(&str, &str)]) -> Constraints {
    let mut constraints = Constraints::default();
    written.iter().for_each(|(name, value)| constraints.set(name, value).unwrap());
    constraints
}

fn chat(constraints: Constraints) -> Intent {
    Intent { constraints, operation: Operation::Chat, max_tokens: Some(1_000), ..ask("hello") }
}

/// A paid model in Germany that is busy, beside the small mesh.
fn shop() -> Vec<Offered> {
    let mut paid = offer(7, "llm", "mistral-large", "general chat model", &[("parameters_b", "123"), ("tools", "true")]);
    paid.routable.cost = Cost { prompt_micros_per_1k: 2_000, completion_micros_per_1k: 6_000 };
    paid.routable.labels = Arc::new([("residency".to_owned(), "eu, de".to_owned()), ("gpu".to_owned(), "h100".to_owned())]);
    paid.condition.load = Load { running: 9, waiting: 0, slots: 2, tokens_per_second: 50.0 };
    mesh().into_iter().chain([paid]).collect()
}

#[test]
fn each_constraint_excludes_by_its_name_and_shows_the_figures() {
    let view = view(&shop());
    for (name, value, of, figures) in [
        ("local_only", "true", "llama3.1:8b", "this request may not leave"),
        ("node", "node7,attic", "llama3.1:8b", "asked for (node7 or attic)"),
        ("not_node", "node7", "mistral-large", "to be left out"),
        ("label", "gpu=a100", "mistral-large", "no label gpu=a100"),
        ("label", "gpu", "llama3.1:8b", "no label gpu"),
        ("residency", "us", "mistral-large", "is in eu, de, and us"),
        ("residency", "DE", "llama3.1:8b", "does not say where it is"),
        ("model", "phi3", "llama3.1:8b", "another model than phi3"),
        ("type", "rag", "llama3.1:8b", "its type is llm, and rag"),
        ("tools", "true", "qwen2.5-coder:7b", "cannot call tools"),
        ("vision", "true", "llama3.1:8b", "takes images"),
        ("context_tokens", "9000", "llama3.1:8b", "8192 tokens is shorter than the 9000"),
        ("min_quality", "0.9", "llama3.1:8b", "quality of 0.50 is below 0.90"),
        ("require_free", "true", "mistral-large", "costs 2 in, 6 out per million"),
        ("max_cost", "0.005", "mistral-large", "up to 0.00602, over the 0.005"),
        ("max_latency_ms", "2000", "mistral-large", "ms, over the 2000 ms"),
    ] {
        let decision = decided(&view, &chat(constraints(&[(name, value)])));
        let excluded = decision.excluded.iter().find(|excluded| excluded.by == name && excluded.name.ends_with(&slug(of)));
        let excluded = excluded.unwrap_or_else(|| panic!("{name}={value} let {of} pass: {:?}", decision.excluded));
        assert!(excluded.reason.contains(figures), "{name}: {}", excluded.reason);
        assert!(decision.excluded_by.iter().any(|by| by.first.by == name && by.total > 0));
        assert_eq!(decision.excluded_by.iter().map(|by| by.total).sum::<usize>(), decision.excluded_total);
    }
}

/// What an owner says of electricity: 90 watts at 25 tokens a second are 3,600 joules, a thousandth of a kilowatt-hour, for 1,000 tokens.
const DRAWN: [(&str, &str); 2] = [("energy_watts", "90"), ("energy_micros_per_kwh", "300000")];

#[test]
fn electricity_counts_as_money_does() {
    let free = offer(1, "llm", "llama3.1:8b", "general chat model", &[]);
    let drawing = offer(2, "llm", "llama3.1:8b", "general chat model", &DRAWN);
    let view = view(&[free, drawing]);
    let all = decided(&view, &chat(Constraints::default()));
    let of = |number| all.candidates.iter().find(|candidate| candidate.id.node == node(number)).expect("both are candidates");
    // 1,000 tokens that are written, ten that are read at a tenth of that each.
    assert_eq!((of(2).cost.energy.0, of(2).cost.total.0, of(1).cost.total.0), (301, 301, 0));
    assert!(of(2).factors.cost < of(1).factors.cost);
    for (name, value) in [("max_cost", "0.0003"), ("require_free", "true")] {
        let decision = decided(&view, &chat(constraints(&[(name, value)])));
        assert_eq!(decision.candidates.len(), 1);
        assert!(
            decision.excluded[0].by == name && decision.excluded[0].reason.contains("electricity"),
            "{:?}",
            decision.excluded
        );
    }
    assert_eq!(decided(&view, &chat(constraints(&[("max_cost", "0.000301")]))).candidates.len(), 2);
    let text = crate::explain::explain(&all);
    assert!(text.contains("electricity") && text.contains("0.000301 of that"), "{text}");
}

fn slug(name: &str) -> String {
    Slug::from_name(name).as_str().to_owned()
}

#[test]
fn who_passes_every_constraint_is_chosen() {
    let all = constraints(&[
        ("node", "node7"),
        ("not_node", "node1"),
        ("label", "gpu=h100,residency"),
        ("residency", "de"),
        ("model", "mistral-large"),
        ("type", "LLM"),
        ("tools", "true"),
        ("min_quality", "0.9"),
        ("max_cost", "0.00602"),
        ("max_latency_ms", "60000"),
    ]);
    assert_eq!(model_chosen(&view(&shop()), &chat(all)).as_deref(), Some("mistral-large"));
}

#[test]
fn the_prompt_and_its_answer_have_to_fit_into_the_context() {
    let prompt = |tokens| Some(PromptTokens { likely: tokens, pessimistic: tokens });
    let view = view(&mesh());
    let models = |intent: &Intent| -> Vec<String> {
        decided(&view, intent).candidates.into_iter().map(|candidate| candidate.model).collect()
    };
    let intent = Intent { prompt: prompt(8_000), max_tokens: Some(192), operation: Operation::Chat, ..ask("hello") };
    assert!(models(&intent).contains(&"llama3.1:8b".to_owned()));
    assert!(!models(&Intent { max_tokens: Some(193), ..intent.clone() }).contains(&"llama3.1:8b".to_owned()));
    let named = Intent { prompt: prompt(8_000), max_tokens: Some(9_000), ..named("llama3.1:8b") };
    assert!(!models(&named).is_empty(), "whoever names a model means its longest answer");
    assert!(models(&Intent { prompt: prompt(9_000), ..named }).is_empty());
}

#[test]
fn a_refusal_tells_of_everything_that_stood_in_the_way() {
    let refusal = |written: &[(&str, &str)]| {
        decided(&view(&shop()), &Intent { constraints: constraints(written), ..named("mistral-large") }).reason.to_string()
    };
    let one = refusal(&[("max_cost", "0.001")]);
    assert!(one.ends_with("may answer: would cost up to 0.006164, over the 0.001 allowed"), "{one}");
    let chat = chat(constraints(&[("label", "gpu"), ("require_free", "true")]));
    let several = decided(&view(&shop()), &chat).reason.to_string();
    assert!(several.contains("5 by label (its node has no label gpu), 1 by require_free (costs 2 in"), "{several}");
}

#[test]
fn vectors_are_paid_by_the_prompt_alone() {
    let mut offered = mesh();
    offered[3].routable.cost = Cost { prompt_micros_per_1k: 100, completion_micros_per_1k: 1_000_000 };
    let intent = Intent { operation: Operation::Embed, constraints: constraints(&[("max_cost", "0.0001")]), ..ask("some text") };
    assert_eq!(model_chosen(&view(&offered), &intent).as_deref(), Some("nomic-embed-text"));
}

#[test]
fn who_was_tried_is_left_out() {
    let tried = Constraints { exclude: mesh().iter().map(|one| one.routable.id.clone()).collect(), ..Constraints::default() };
    let decision = decided(&view(&mesh()), &chat(tried));
    assert!(decision.chosen.is_none() && decision.excluded_by[0].first.by == "tried" && decision.excluded_by[0].total == 5);
}

fn written() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let one = prop_oneof![
        Just(("model", "llama3.1:8b,sqlcoder".to_owned())),
        Just(("type", "embedding".to_owned())),
        Just(("node", "node1,node2,node3,node4,node5".to_owned())),
        Just(("not_node", "node2".to_owned())),
        Just(("label", "zone=z1".to_owned())),
        Just(("label", "gpu".to_owned())),
        Just(("residency", "eu".to_owned())),
        Just(("local_only", "true".to_owned())),
        Just(("tools", "true".to_owned())),
        Just(("vision", "true".to_owned())),
        Just(("require_free", "true".to_owned())),
        (1u32..9_000).prop_map(|tokens| ("context_tokens", tokens.to_string())),
        (0f64..0.1).prop_map(|cost| ("max_cost", cost.to_string())),
        (1u32..20_000).prop_map(|ms| ("max_latency_ms", ms.to_string())),
        (0f32..1.0).prop_map(|quality| ("min_quality", quality.to_string())),
    ];
    prop::collection::vec(one, 1..4)
}

/// Whether `one` satisfies `asked`, told without the filter.
fn satisfies(one: &Offered, asked: &Constraints, tokens: RequestTokens) -> bool {
    let Offered { routable, condition } = one;
    let facts = &routable.capability.facts;
    let label = |key: &str| routable.labels.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let any = |wanted: &[String], is: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == is);
    let expected = Expected::of(condition, routable.slots, &Experience::default(), tokens);
    let rates = Rates::of(&routable.cost, &facts.energy, &condition.load);
    any(&asked.models, &routable.capability.name)
        && any(&asked.kinds, &routable.capability.kind)
        && any(&asked.nodes, &routable.node_name)
        && !asked.not_nodes.iter().any(|node| **node == *routable.node_name)
        && asked
            .labels
            .iter()
            .all(|wanted| label(&wanted.key).is_some_and(|value| wanted.value.as_deref().is_none_or(|wanted| wanted == value)))
        && (asked.residency.is_empty() || label("residency").is_some_and(|place| asked.residency.contains(&place.to_owned())))
        && (!asked.local_only || routable.id.node == node(0))
        && (!asked.tools || facts.tools != Some(false))
        && (!asked.vision || facts.vision == Some(true))
        && facts.context_length.is_none_or(|tokens| tokens >= asked.context_tokens.unwrap_or(0))
        && (!asked.require_free || rates.is_free())
        && asked.max_cost_micros.is_none_or(|max| rates.estimate(tokens).total.0 <= max)
        && asked.max_latency_ms.is_none_or(|max| expected.first_token_ms <= max as f32)
        && asked.min_quality.is_none_or(|min| fit::quality_score(facts) >= min)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn filters_never_leak(offered in meshes(), text in texts(), written in written(), left_out in 0usize..12, seed in any::<u64>()) {
        let mut asked = Constraints::default();
        written.iter().for_each(|(name, value)| asked.set(name, value).unwrap());
        let left_out = offered[left_out % offered.len()].routable.id.clone();
        asked.exclude.push(left_out.clone());
        let intent = Intent { constraints: asked.clone(), ..ask(&text) };
        let decision = decide(&view(&offered), &intent, &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(seed));
        for candidate in &decision.candidates {
            let one = offered.iter().find(|one| one.routable.id == candidate.id).expect("every candidate was offered");
            prop_assert!(candidate.id != left_out && satisfies(one, &asked, intent.tokens()), "{asked:?} let {candidate:?} pass");
            prop_assert!(asked.max_cost_micros.is_none_or(|max| candidate.cost.total.0 <= max));
        }
        prop_assert!(decision.in_order().all(|candidate| candidate.fits));
        prop_assert_eq!(decision.candidates_total + decision.excluded_total, offered.len());
    }
}
