//! What a world is like and what is done to it, as a file says it.
//!
//! Built-in scenarios are such files too, compiled in, so that one reader serves both and each can be copied and changed.

use std::path::Path;

use serde::Deserialize;

use crate::adversary::Crowd;
use crate::host::HostShape;
use crate::network::LinkShape;
use crate::topology::Topology;

/// A world and its timeline.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// One line for people.
    pub about: String,
    /// What it was read from: a built-in name or a file.
    #[serde(skip)]
    pub source: String,
    /// Nodes unless the command line says otherwise, and the most that make sense.
    pub nodes: usize,
    #[serde(default)]
    pub start: Start,
    #[serde(default)]
    pub topology: Topology,
    #[serde(default)]
    pub links: LinkShape,
    #[serde(default)]
    pub hosts: HostShape,
    /// Adversaries by kind, and a share of nodes that are any of them.
    #[serde(default)]
    pub adversaries: Vec<Crowd>,
    #[serde(default)]
    pub hostile: f64,
    /// Whether taking a live node for dead violates anything.
    #[serde(default)]
    pub no_false_deaths: bool,
    pub steps: Vec<Step>,
}

/// How a mesh comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Nodes start with a few addresses and find each other.
    #[default]
    Formed,
    /// Nodes run and are linked as a random graph of few links from the first moment.
    Linked,
    /// The same, and everyone has known everything for long.
    Converged,
}

/// One thing after the other. Times are in milliseconds; shares are of the nodes that are well, and at least one of them.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Waits until those who start at the beginning have found each other.
    Form {
        within_ms: u64,
    },
    Wait {
        for_ms: u64,
    },
    /// Counts what nodes send while nothing happens.
    Steady {
        for_ms: u64,
    },
    /// Random nodes publish; measures how long their records take to the last node.
    Publish {
        count: usize,
        every_ms: u64,
    },
    /// Measures how long until 99 % of the others no longer route to the killed ones.
    Kill {
        share: f64,
        within_ms: u64,
    },
    /// Waits until every table is right; `heal` counts the time among what it took to heal.
    Converge {
        within_ms: u64,
        #[serde(default)]
        heal: bool,
    },
    /// Starts what was killed again.
    Restart {
        over_ms: u64,
        #[serde(default = "yes")]
        disk: bool,
    },
    /// Revokes some nodes, each told to a random other first, and times until nobody knows them; where a time to heal is given, walls are
    /// taken away that long after, and the time counts from then.
    Revoke {
        share: f64,
        within_ms: u64,
        heal_after_ms: Option<u64>,
    },
    /// Ends one node after the other, with a goodbye if politely, and starts each again.
    Roll {
        share: f64,
        every_ms: u64,
        down_ms: u64,
        #[serde(default)]
        politely: bool,
    },
    /// Groups of nodes, by turns, that cannot reach each other: `[[0, 1], [1, 0]]` walls 0 off from 1 both ways.
    Wall {
        groups: u8,
        walls: Vec<(u8, u8)>,
    },
    /// Cuts connections that stand, in one direction or both.
    Cut {
        count: usize,
        #[serde(default)]
        one_way: bool,
    },
    /// Takes every wall and cut away.
    Heal,
    /// Kills and starts again at random, `per_s` being a share of all nodes; publishes meanwhile, and counts what nodes send.
    Churn {
        per_s: f64,
        down_ms: u64,
        for_ms: u64,
        publish_every_ms: u64,
    },
    /// Starts those that did not start at the beginning.
    Join {
        over_ms: u64,
    },
    /// Cuts and mends the same connections.
    Flap {
        count: usize,
        times: usize,
        down_ms: u64,
        up_ms: u64,
    },
    Sleep {
        share: f64,
        for_ms: u64,
    },
    Skew {
        share: f64,
        by_ms: i64,
    },
    Slow {
        share: f64,
        every_ms: u64,
    },
    Uplink {
        share: f64,
        mbit_s: f64,
    },
    /// A share of the nodes changes its record as often as it can; counts what nodes send meanwhile.
    Hot {
        share: f64,
        every_ms: u64,
        for_ms: u64,
    },
    Lose {
        share: f64,
    },
}

fn yes() -> bool {
    true
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Files that are compiled in, by name.
        const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*];
    };
}

built_in!(
    "home",
    "office",
    "campus",
    "fleet",
    "city",
    "churn",
    "flash-crowd",
    "mass-death",
    "split",
    "rolling-restart",
    "revoked",
    "flapping-link",
    "hostile",
    "sick-observer",
    "low-sequence",
    "big-state",
    "slow-link",
    "bad-record",
    "hot-key",
    "hops",
    "weather",
    "patience",
);

/// Why there is no such scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("there is no built-in scenario {name:?} (there are {}) and no file of that name: {error}", names().join(", "))]
    Unknown { name: String, error: std::io::Error },
    #[error("{path}: {message}")]
    Malformed { path: String, message: String },
}

/// Names of the built-in scenarios.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Scenario {
    /// Every built-in scenario.
    pub fn all() -> Vec<Self> {
        names().into_iter().map(|name| Self::named(name).expect("built-in scenarios can be read")).collect()
    }

    /// A built-in scenario, or what a TOML or JSON file says.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::read(name, text);
        }
        let text = std::fs::read_to_string(name).map_err(|error| ScenarioError::Unknown { name: name.to_owned(), error })?;
        Self::read(name, &text)
    }

    /// Built-in ones are TOML.
    fn read(path: &str, text: &str) -> Result<Self, ScenarioError> {
        let is_json = Path::new(path).extension().is_some_and(|extension| extension == "json");
        let read: Result<Self, String> = if is_json {
            serde_json::from_str(text).map_err(|error| error.to_string())
        } else {
            toml::from_str(text).map_err(|error| error.to_string())
        };
        let scenario = read.map_err(|message| ScenarioError::Malformed { path: path.to_owned(), message })?;
        Ok(Self { source: path.to_owned(), ..scenario })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_scenarios_are_called_by_their_names_and_leave_no_figure_out() {
        for (scenario, name) in Scenario::all().iter().zip(names()) {
            assert_eq!(scenario.name, name);
            let has = |wanted: fn(&Step) -> bool| scenario.steps.iter().any(wanted);
            assert!(
                has(|step| matches!(step, Step::Steady { .. } | Step::Churn { .. } | Step::Hot { .. })),
                "{name} counts bytes"
            );
            assert!(has(|step| matches!(step, Step::Publish { .. })), "{name} publishes");
            assert!(has(|step| matches!(step, Step::Kill { .. })), "{name} kills");
            assert!(has(|step| matches!(step, Step::Converge { heal: true, .. })), "{name} heals");
        }
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        let text = r#"{ "name": "x", "about": "", "nodes": 5, "steps": [{ "do": "wait", "for": 5 }] }"#;
        assert!(matches!(Scenario::read("x.json", text), Err(ScenarioError::Malformed { .. })));
        assert!(Scenario::read("x.json", &text.replace("\"for\"", "\"for_ms\"")).is_ok());
        assert!(Scenario::named("no-such-scenario").is_err());
    }
}
