//! Explanations: the machine's parses and adds up, the person's fits on a screen.

use super::*;
use crate::explain::{COLUMNS, Explanation};

fn machine(decision: &Decision) -> Explanation {
    serde_json::from_str(&serde_json::to_string(decision).unwrap()).unwrap()
}

#[test]
fn the_json_says_what_others_rely_on() {
    let decision = decided(&view(&mesh()), &ask("hello there, how is it going?"));
    let json = serde_json::to_value(&decision).unwrap();
    for key in ["capability", "node", "model", "score", "hops"] {
        assert!(json["chosen"].get(key).is_some() && json["candidates"][0].get(key).is_some(), "{key}");
    }
    for key in ["similarity", "distance", "load", "cost"] {
        assert!(json["candidates"][0]["factors"].get(key).is_some(), "{key}");
    }
    for key in ["reason", "candidates_total", "excluded", "excluded_total", "excluded_by", "runner_up", "margin", "changes"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(serde_json::to_value(&decision.candidates[0]).unwrap(), json["candidates"][0]);
}

/// A near and a far provider: the far one is behind by its hops alone.
fn two(hops: u8) -> Vec<Offered> {
    let mut offered = mesh()[..2].to_vec();
    offered[1].condition.hops = hops;
    offered
}

#[test]
fn a_screen_names_the_runner_up_the_draw_and_what_would_have_changed_the_choice() {
    let text = explain(&decided(&view(&two(1)), &named("llama3.1:8b")));
    assert!(text.contains("drawn among 2 near-equals with a chance of 50 %, +0.000 to the next"), "{text}");
    let mut offered = two(4);
    let mut paid = offered[1].clone();
    paid.routable.id.node = node(9);
    paid.routable.cost.completion_micros_per_1k = 900_000;
    let constraints = Constraints { max_cost_micros: Some(100), ..Constraints::default() };
    let intent = Intent { constraints, ..named("llama3.1:8b") };
    let text = explain(&decided(&view(&[offered[0].clone(), offered[1].clone(), paid]), &intent));
    for part in
        ["> node1/", "* node2/", "would be first if its distance were", "if its wait rose above", "max_cost", "over the 0.0001"]
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    offered[1].condition.load = Load { running: 2, waiting: 0, slots: 2, tokens_per_second: 20.0 };
    let text = explain(&decided(&view(&offered), &named("llama3.1:8b")));
    assert!(text.contains("no single factor would have put node2/llama3.1:8b first"), "{text}");
}

#[test]
fn a_change_that_is_made_changes_the_choice() {
    let mut offered = two(1);
    offered[0].condition.hops = 2;
    offered[1].condition.load = Load { running: 2, waiting: 1, slots: 2, tokens_per_second: 20.0 };
    let before = decided(&view(&offered), &named("llama3.1:8b"));
    let change = machine(&before).changes.into_iter().find(|change| change.factor == "load").unwrap();
    let runner_up = before.runner_up().unwrap();
    assert!(change.capability == runner_up.name && runner_up.id.node == node(2) && change.now < change.needed);
    offered[1].condition.load = Load { slots: 2, ..Load::default() };
    let after = decided(&view(&offered), &named("llama3.1:8b"));
    assert!(after.candidates[0].id.node == node(2) && after.candidates[0].factors.load >= change.needed);
}

#[test]
fn who_nearly_fits_is_told_with_what_it_lacks() {
    let mut offered = mesh();
    offered.retain(|one| one.routable.capability.name == "nomic-embed-text");
    let decision = decided(&view(&offered), &ask("zyx wvu tsr qpo"));
    assert!(decision.chosen.is_none());
    assert!(explain(&decision).contains("would do if it fitted with a probability of 0.5"), "{}", explain(&decision));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_machines_form_parses_and_adds_up(offered in meshes(), text in texts(), seed in any::<u64>()) {
        let decision = decide(&view(&offered), &ask(&text), &Feedback::default(), &mut ChaCha12Rng::seed_from_u64(seed));
        let explanation = machine(&decision);
        prop_assert_eq!(&explanation, &Explanation::of(&decision));
        for row in &explanation.candidates {
            let product: f32 = row.factors.named().iter().map(|(_, factor)| factor).product();
            prop_assert!((product - row.score).abs() <= 1e-5 * row.score.max(1e-3), "{product} is not {}", row.score);
        }
        if let Some(chosen) = &explanation.chosen {
            let chances: f32 = explanation.candidates.iter().map(|row| row.chance).sum();
            prop_assert!((chances - 1.0).abs() < 1e-4 && chosen.chance > 0.0, "{chances}");
            let runner_up = explanation.runner_up.as_ref();
            prop_assert_eq!(runner_up.map(|runner_up| chosen.score - runner_up.score), explanation.margin);
            prop_assert!(runner_up.is_none_or(|runner_up| runner_up.node_id != chosen.node_id && runner_up.chance <= 1.0));
        }
        for change in &explanation.changes {
            prop_assert!((0.0..=1.0).contains(&change.needed) && change.text.contains(&change.capability));
        }
        let counted: usize = explanation.excluded_by.iter().map(|by| by.total).sum();
        prop_assert!(counted == explanation.excluded_total && explanation.excluded.len() <= counted);
    }

    #[test]
    fn the_persons_form_fits_on_a_screen(mut offered in meshes(), text in texts(), name in any::<String>(), tools in any::<bool>()) {
        let longest = "evil\u{1b}[2J\n".repeat(30);
        offered[0].routable.node_name = format!("{name}{longest}").into();
        let constraints = Constraints { tools, nodes: vec![longest.clone()], ..Constraints::default() };
        for intent in [ask(&text), Intent { constraints, ..ask(&text) }, named(&longest)] {
            let text = explain(&decided(&view(&offered), &intent));
            prop_assert!(text.lines().count() <= 24 && text.ends_with('\n'), "{text}");
            prop_assert!(text.lines().all(|line| line.chars().count() <= COLUMNS && !line.chars().any(char::is_control)), "{text}");
        }
    }
}
