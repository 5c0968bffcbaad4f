//! Judging bodies, which is quick, comes to what judging every entry comes to.

use super::*;

/// What an entry of the small mesh goes through.
fn fates() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0usize..5, 0u8..12), 1..150)
}

fn fated(fates: &[(usize, u8)]) -> (RoutingView, Feedback) {
    let (mesh, mut feedback) = (mesh(), Feedback::default());
    let mut offered = Vec::new();
    for ((which, fate), number) in fates.iter().zip(1u8..) {
        let mut one = mesh[*which].clone();
        one.routable.id.node = node(number);
        one.routable.node_name = format!("node{number}").into();
        let id = one.routable.id.clone();
        match fate {
            0 => one.condition.standing = Standing::Dead,
            1 => one.condition.hops = crate::view::UNREACHABLE_HOPS,
            2 | 3 => {
                feedback.set(id, Experience { breaker: Breaker::Open { retry_in_ms: 1_500 }, ..Experience::default() });
                one.condition.standing = if *fate == 2 { Standing::Dead } else { Standing::Suspected };
            }
            4 => feedback.started(&id),
            5 => feedback.answered(&id, 100.0, 9_000.0),
            load => one.condition.load.running = u16::from(*load) - 6,
        }
        offered.push(one);
    }
    (view(&offered), feedback)
}

fn intents() -> impl Strategy<Value = Intent> {
    let texts = prop_oneof![Just("write a Python function"), Just("hello there, how is it going?"), Just("zyx wvu tsr qpo")];
    (texts, any::<bool>(), any::<bool>(), prop::option::of(1u32..10_000)).prop_map(|(text, tools, embed, context_tokens)| {
        let operation = if embed { Operation::Embed } else { Operation::Chat };
        Intent { operation, constraints: Constraints { tools, context_tokens, ..Constraints::default() }, ..ask(text) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn judging_bodies_is_judging_entries(fates in fates(), intent in intents(), seed in any::<u64>()) {
        let (view, feedback) = fated(&fates);
        let decided = |intent: &Intent| decide(&view, intent, &feedback, &mut ChaCha12Rng::seed_from_u64(seed));
        // Nobody fails it, but it has to be asked of every entry.
        let constraints = Constraints { max_latency_ms: Some(u32::MAX), ..intent.constraints.clone() };
        let one_by_one = decided(&Intent { constraints, ..intent.clone() });
        let by_bodies = decided(&intent);
        prop_assert_eq!(by_bodies.candidates_total + by_bodies.excluded_total, fates.len());
        prop_assert_eq!(by_bodies, one_by_one);
    }
}
