//! The figures that a gossip protocol is judged by, as a table of Markdown: one row per size.

use std::thread;

use crate::report::Report;
use crate::run_quietly;
use crate::scenario::Scenario;

/// What a row is made of: an ordinary life, a third dead at once, halves that find each other again.
const SCENARIOS: [&str; 3] = ["fleet", "mass-death", "split"];

const HEAD: &str = "\
| nodes | delivery p50 / p99 | redundancy | last hop | killed one gone, p50 / p99 | 30 % dead, converged | halves healed, converged \
| bytes/s per node, mean (p99) | bytes per known node | false deaths | real time |
|---|---|---|---|---|---|---|---|---|---|---|";

/// Prints a row for each size; whether everything held that ought to.
pub fn print(sizes: &[usize], seed: u64) -> bool {
    println!("{HEAD}");
    let mut good = true;
    for nodes in sizes {
        good &= print_row(*nodes, seed);
    }
    good
}

fn print_row(nodes: usize, seed: u64) -> bool {
    let run = |name: &str| run_quietly(&Scenario::named(name).expect("a built-in scenario"), nodes, seed);
    let reports: Vec<Report> = thread::scope(|scope| {
        let runs = SCENARIOS.map(|name| scope.spawn(move || run(name)));
        runs.into_iter().map(|run| run.join().expect("a world that panics is a bug")).collect()
    });
    let [life, death, split] = &reports[..] else { return false };
    println!("{}", row(life, death, split));
    let violations = reports.iter().flat_map(|report| report.violations.iter().map(|what| (&report.scenario, what)));
    violations.map(|(scenario, what)| eprintln!("VIOLATED {scenario}, {nodes} nodes: {what}")).count() == 0
}

fn row(life: &Report, death: &Report, split: &Report) -> String {
    let ms = |value: Option<u64>| value.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let cells = [
        life.nodes.to_string(),
        format!("{} / {}", ms(life.delivery_ms.p50()), ms(life.delivery_ms.p99())),
        number(life.redundancy, 2),
        number(life.last_delivery_hop, 1),
        format!("{} / {}", ms(life.dead_removed_ms.p50()), ms(life.dead_removed_ms.p99())),
        ms(death.heal_ms),
        ms(split.heal_ms),
        format!("{} ({})", number(life.bytes_per_node_s.mean, 0), number(life.bytes_per_node_s.p99, 0)),
        life.table_bytes.map_or("-".to_owned(), |bytes| bytes.to_string()),
        [life, death, split].iter().map(|report| report.false_deaths).sum::<u64>().to_string(),
        format!("{:.1} s", life.wall_ms as f64 / 1_000.0),
    ];
    format!("| {} |", cells.join(" | "))
}
