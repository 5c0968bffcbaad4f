use super::*;

fn run(name: &str, nodes: usize, seed: u64) -> Report {
    let scenario = Scenario::named(name).expect("built in");
    Run::new(&scenario, nodes, seed, 0).finish(|_, _| {}).0
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces: Vec<String> = [1, 1, 2].iter().map(|seed| run("home", 5, *seed).trace).collect();
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}

#[test]
fn every_figure_of_a_home_is_measured() {
    let report = run("home", 5, 1);
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.hop_exact && report.false_deaths == 0);
    let json = serde_json::to_value(&report).expect("serialises");
    let nulls = json.as_object().expect("an object").iter().filter(|(_, value)| value.to_string().contains("null"));
    assert_eq!(nulls.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn distances_over_a_line_a_ring_and_a_random_graph_equal_breadth_first_search() {
    let report = run("hops", 12, 1);
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.hop_exact);
}
