//! Who gets how much of the work: models by the size of a request, equals by chance, conversations where they began, and little for who
//! does not keep its word.

use super::*;
use crate::intent::{Conversation, PromptTokens};

fn general(number: u8, name: &str, billions: &str) -> Offered {
    offer(number, "llm", name, "general chat model", &[("parameters_b", billions)])
}

fn sizes() -> Vec<Offered> {
    vec![general(1, "llama3.2:3b", "3"), general(2, "llama3.1:8b", "8"), general(3, "llama3.3:70b", "70")]
}

/// How often each node is chosen under many seeds.
fn tally(view: &RoutingView, intent: &Intent, feedback: &Feedback) -> BTreeMap<NodeId, usize> {
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    let mut tally = BTreeMap::new();
    for _ in 0..400 {
        let decision = decide(view, intent, feedback, &mut rng);
        *tally.entry(decision.chosen().unwrap().id.node).or_default() += 1;
    }
    tally
}

#[test]
fn a_greeting_does_not_wake_the_largest_model() {
    for text in ["hi", "hello there", "thanks!"] {
        let tally = tally(&view(&sizes()), &ask(text), &Feedback::default());
        assert!(!tally.contains_key(&node(3)) && tally.contains_key(&node(2)), "{text}: {tally:?}");
    }
}

#[test]
fn sixty_pages_do_not_land_on_the_smallest_model() {
    let pages = "The committee heard evidence on the costs and risks of each of the three designs. ".repeat(2_000);
    let whole = Intent { ..ask(&format!("Analyse these minutes and compare the arguments step by step.\n{pages}")) };
    let cut = ask("Analyse these minutes and compare the arguments step by step.");
    let seen_in_part = Intent { prompt: Some(PromptTokens { likely: 30_000, pessimistic: 50_000 }), ..cut };
    for intent in [whole, seen_in_part] {
        let tally = tally(&view(&sizes()), &intent, &Feedback::default());
        assert!(!tally.contains_key(&node(1)) && tally[&node(3)] > 200, "{tally:?}");
    }
}

#[test]
fn of_a_hundred_equals_everybody_is_drawn_by_its_slots_and_the_chances_add_up() {
    let mut offered: Vec<Offered> = (1..=100).map(|number| general(number, "llama3.1:8b", "8")).collect();
    offered[99].routable.slots = 6;
    offered[98].routable.slots = u16::MAX;
    let view = view(&offered);
    let tally = tally(&view, &named("llama3.1:8b"), &Feedback::default());
    assert!(tally.len() > 70, "only {} of a hundred were chosen", tally.len());
    assert!(tally[&node(99)] < 60, "slots that are only announced weigh within a bound");
    let decision = decided(&view, &named("llama3.1:8b"));
    assert_eq!(decision.near_equals, 100);
    let chosen = decision.chosen().unwrap();
    assert!(chosen.chance > 0.0 && decision.candidates.iter().any(|candidate| candidate.id == chosen.id));
}

#[test]
fn a_conversation_stays_where_it_began_until_somewhere_else_is_plainly_better_and_then_stays_there() {
    let mut offered = vec![general(1, "llama3.1:8b", "8"), general(2, "llama3.1:8b", "8"), general(3, "llama3.1:8b", "8")];
    let conversation = Conversation { head: 7, continued: true };
    let intent = Intent { conversation: Some(conversation), ..named("llama3.1:8b") };
    let mut feedback = Feedback::default();
    feedback.served(conversation, &offered[1].routable.id);
    let only = |offered: &[Offered], feedback: &Feedback, number| {
        assert_eq!(tally(&view(offered), &intent, feedback).into_keys().collect::<Vec<_>>(), [node(number)]);
    };
    only(&offered, &feedback, 2);
    let other = Intent { conversation: Some(Conversation { head: 8, continued: true }), ..intent.clone() };
    let first = Intent { conversation: Some(Conversation { continued: false, ..conversation }), ..intent.clone() };
    for elsewhere in [other, first] {
        assert_eq!(tally(&view(&offered), &elsewhere, &feedback).len(), 3, "no prefix is computed for {elsewhere:?}");
    }
    offered[1].condition.load = Load { running: 2, waiting: 2, slots: 2, tokens_per_second: 0.0 };
    offered[2].condition.hops = 4;
    only(&offered, &feedback, 1);
    feedback.served(conversation, &offered[0].routable.id);
    offered[1].condition.load = Load::default();
    only(&offered, &feedback, 1);
    offered[0].condition.standing = Standing::Dead;
    let alone = decide(&view(&offered), &intent, &feedback, &mut ChaCha12Rng::seed_from_u64(1));
    assert_eq!(alone.chosen().unwrap().factors.affinity, 1.0, "nobody is blamed for what nobody has");
}

#[test]
fn who_says_it_is_idle_and_answers_late_is_asked_less() {
    let view = view(&mesh());
    let liar = mesh()[0].routable.id.clone();
    let mut feedback = Feedback::default();
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let mut asked = 0;
    for request in 0..60u64 {
        feedback.advance(request * 5_000);
        let decision = decide(&view, &named("llama3.1:8b"), &feedback, &mut rng);
        let chosen = decision.chosen().unwrap();
        let is_liar = chosen.id == liar;
        asked += usize::from(is_liar && request >= 20);
        let (id, announced_ms) = (chosen.id.clone(), chosen.expected.announced_ms);
        feedback.answered(&id, announced_ms, if is_liar { 12_000.0 } else { announced_ms + 50.0 });
    }
    assert!(asked <= 4, "{asked} of forty requests went to who is always late");
}

#[test]
fn a_dear_provider_gets_less_than_a_cheap_one() {
    let mut offered = mesh();
    offered[0].routable.cost.completion_micros_per_1k = 3_000;
    assert_eq!(tally(&view(&offered), &named("llama3.1:8b"), &Feedback::default()).into_keys().collect::<Vec<_>>(), [node(2)]);
}
