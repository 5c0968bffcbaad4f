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

/// A home in which something is expected that cannot be.
fn impossible(change: impl Fn(&mut Step)) -> Scenario {
    let mut scenario = Scenario::named("home").expect("built in");
    scenario.steps.iter_mut().for_each(change);
    scenario
}

#[test]
fn a_dead_node_that_is_routed_to_for_too_long_is_noticed_and_replays_to_the_same_event() {
    let scenario = impossible(|step| {
        if let Step::Kill { within_ms, .. } = step {
            *within_ms = 500;
        }
    });
    let violations = |lines_max| {
        let (_, world) = Run::new(&scenario, 5, 3, lines_max).finish(|_, _| {});
        (world.log.violations().to_vec(), world.log.lines().count())
    };
    let ((first, _), (again, lines)) = (violations(0), violations(30));
    assert!(first[0].what.contains("no route points at the dead"), "{first:?}");
    assert_eq!(first, again);
    assert_eq!(lines, 30);
}

#[test]
fn what_takes_too_long_to_converge_is_a_violation() {
    let scenario = impossible(|step| {
        if let Step::Converge { within_ms, .. } = step {
            *within_ms = 0;
        }
    });
    let mut scenario = scenario;
    scenario.steps.insert(4, Step::Wall { groups: 2, walls: vec![(0, 1), (1, 0)] });
    let (report, _) = Run::new(&scenario, 6, 1, 0).finish(|_, _| {});
    assert!(report.violations.iter().any(|what| what.contains("converge")), "{:?}", report.violations);
}

#[test]
fn a_ghost_would_be_seen() {
    let scenario = Scenario::named("home").expect("built in");
    let mut world = World::new(&scenario, 4, 1, 0);
    world.run_for(5_000);
    assert!(checks::nothing_is_resurrected(&world, 0, &[3]).is_empty());
    world.act(&Action::Kill { node: 3 });
    assert_eq!(checks::nothing_is_resurrected(&world, 0, &[3]).len(), 1, "nobody has noticed yet");
    let truth = Truth::of(&world);
    assert!(checks::live_nodes_converge(&world, &truth, 0).is_some_and(|fault| !fault.is_distance));
}

#[test]
fn strangers_forgers_and_the_expired_are_never_believed() {
    let report = run("bad-record", 20, 1);
    assert_eq!(report.violations, Vec::<String>::new());
}
