use super::*;

fn herd(seed: u64) -> Herd {
    Herd { nodes: 200, providers: 20, utilisation: 0.7, seconds: 1_500, liar: false, policy: Policy::Weighed, seed }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let run = |seed| Herd { seconds: 200, ..herd(seed) }.run().to_string();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn stale_loads_send_nobody_more_than_half_again_its_fair_share() {
    for seed in [1, 2, 3] {
        let figures = herd(seed).run();
        assert!(figures.is_good() && figures.share_max_200s <= 1.5, "seed {seed}\n{figures}");
        assert!(figures.refused == 0, "seed {seed}\n{figures}");
    }
}

#[test]
fn where_everybody_offers_the_model_nobody_is_overrun_either() {
    let figures = Herd { providers: 200, seconds: 600, ..herd(4) }.run();
    assert!(figures.share_max <= 1.5, "{figures}");
}

#[test]
fn who_always_says_that_it_is_idle_is_known_after_twenty_requests() {
    for seed in [1, 2, 3] {
        let figures = Herd { liar: true, ..herd(seed) }.run();
        assert!(figures.is_good() && figures.liar_share.is_some(), "seed {seed}\n{figures}");
        let believed = Herd { liar: true, policy: Policy::Trusting, ..herd(seed) }.run();
        assert!(!believed.is_good(), "without learning it would be believed\n{believed}");
    }
}

#[test]
fn whoever_scores_best_would_be_overrun() {
    let [weighed, best] = [Policy::Weighed, Policy::Best].map(|policy| Herd { policy, ..herd(1) }.run());
    assert!(best.share_max_200s > weighed.share_max_200s && best.busy > weighed.busy, "{weighed}\n{best}");
}
