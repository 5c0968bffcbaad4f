//! Runs again what a file of reports tells of, and says what became better or worse.

use std::path::Path;

use serde_json::Value;

use crate::run_quietly;
use crate::scenario::{Scenario, ScenarioError};

/// Figures by their place in a report; smaller is better in each.
const FIGURES: [&str; 9] = [
    "/delivery_ms/p50",
    "/delivery_ms/p99",
    "/bytes_per_node_s/mean",
    "/bytes_per_node_s/p99",
    "/redundancy",
    "/last_delivery_hop",
    "/dead_removed_ms/p99",
    "/heal_ms",
    "/table_bytes",
];

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("the baseline is no list of JSON reports: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a report without scenario, nodes and seed")]
    Incomplete,
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

/// Whether no figure is worse by more than `tolerance`, and nothing is violated.
pub fn run(baseline: &Path, tolerance: f64) -> Result<bool, CompareError> {
    let text =
        std::fs::read_to_string(baseline).map_err(|error| CompareError::File { path: baseline.display().to_string(), error })?;
    let mut good = true;
    for before in reports(&text)? {
        let number = |field: &str| before[field].as_u64().ok_or(CompareError::Incomplete);
        let name = before["scenario"].as_str().ok_or(CompareError::Incomplete)?;
        let (scenario, nodes, seed) = (Scenario::named(name)?, number("nodes")? as usize, number("seed")?);
        println!("scenario {name}, {nodes} nodes, seed {seed}");
        let report = run_quietly(&scenario, nodes, seed);
        let after = serde_json::to_value(&report)?;
        report.violations.iter().for_each(|violation| println!("  VIOLATED {violation}"));
        good &= report.is_good() & FIGURES.iter().all(|figure| tell(figure, &before, &after, tolerance));
    }
    Ok(good)
}

/// One JSON object after the other, or a list of them.
fn reports(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<Result<Vec<Value>, _>>()?;
    Ok(values.into_iter().flat_map(|value| if let Value::Array(list) = value { list } else { vec![value] }).collect())
}

/// Prints one figure; whether it is within bounds.
fn tell(figure: &str, before: &Value, after: &Value, tolerance: f64) -> bool {
    let name = figure.trim_start_matches('/').replace('/', " ");
    let of = |report: &Value| report.pointer(figure).and_then(Value::as_f64);
    match (of(before), of(after)) {
        (Some(before), Some(after)) => {
            let worse = after > before * (1.0 + tolerance) + f64::EPSILON;
            let ratio = if before == 0.0 { f64::from(u8::from(after > 0.0)) } else { after / before };
            println!("  {name:<24} {before:>12.2} -> {after:>12.2}  x {ratio:.3}{}", if worse { "  WORSE" } else { "" });
            !worse
        }
        (None, _) => true,
        (Some(_), None) => {
            println!("  {name:<24} is not measured any more");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worse_figure_is_found_and_a_better_one_is_welcome() {
        let report = |heal: u64| serde_json::json!({ "heal_ms": heal });
        assert!(tell("/heal_ms", &report(100), &report(109), 0.1));
        assert!(!tell("/heal_ms", &report(100), &report(111), 0.1));
        assert!(tell("/heal_ms", &report(100), &report(10), 0.1));
        assert!(!tell("/heal_ms", &report(100), &serde_json::json!({}), 0.1));
    }

    #[test]
    fn baselines_are_lists_or_lines() {
        assert_eq!(reports("[{}, {}]").unwrap().len(), 2);
        assert_eq!(reports("{}\n{}\n{}").unwrap().len(), 3);
        assert!(reports("{").is_err());
    }
}
