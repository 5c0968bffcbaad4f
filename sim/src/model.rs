//! Random sequences of actions, and what ought to hold after them by a model so simple that it can be read: who runs, who is called what, and
//! what keeps whom apart. It shares nothing with the world that it is compared with but the [`Action`]s, so that a sequence that fails
//! shrinks to a few of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::action::Action;
use crate::checks::is_shown;
use crate::scenario::Scenario;
use crate::world::World;

/// Nodes of a random world, actions done to it, and how long each is given.
const NODES_MAX: u32 = 8;
const ACTIONS_MAX: usize = 10;
/// Longer than a goodbye takes.
const PAUSE_MS_MIN: u64 = 300;
const PAUSE_MS_MAX: u64 = 8_000;
/// After this long everything is known: silence, holds, back-offs of dials, and redials by turns.
const SETTLED_MS: u64 = 90_000;
/// Clocks are off by no more than what is tolerated.
const SKEW_MS_MAX: i64 = 240_000;

/// What ought to be.
#[derive(Debug, Default)]
struct Model {
    nodes: u32,
    running: BTreeSet<u32>,
    cuts: BTreeSet<(u32, u32)>,
    walls: BTreeSet<(u8, u8)>,
    groups: u8,
    /// What each node published last in its present life.
    published: BTreeMap<u32, u64>,
}

impl Model {
    fn new(nodes: u32) -> Self {
        Self { nodes, running: (0..nodes).collect(), groups: 1, ..Self::default() }
    }

    fn act(&mut self, action: &Action, now_ms: u64) {
        match action {
            Action::Publish { node } if self.running.contains(node) => _ = self.published.insert(*node, now_ms),
            Action::Kill { node } | Action::Leave { node } => {
                self.running.remove(node);
                self.published.remove(node);
            }
            Action::Restart { node } | Action::RestartWithoutDisk { node } => _ = self.running.insert(*node),
            Action::Cut { from, to } => _ = self.cuts.insert((*from, *to)),
            Action::Mend { from, to } => _ = self.cuts.remove(&(*from, *to)),
            Action::Wall { groups, walls } => (self.groups, self.walls) = (*groups, walls.iter().copied().collect()),
            Action::Heal => {
                self.cuts.clear();
                self.walls.clear();
            }
            // They change nothing that lasts.
            Action::Publish { .. } | Action::Sleep { .. } | Action::SkewClock { .. } | Action::Slow { .. } => {}
            Action::Uplink { .. } | Action::Lose { .. } => {}
            // Not drawn: who is revoked never comes back.
            Action::Revoke { .. } => {}
        }
    }

    fn joined(&self, a: u32, b: u32) -> bool {
        let side = |node: u32| (node % u32::from(self.groups)) as u8;
        let passes = |a: u32, b: u32| !self.cuts.contains(&(a, b)) && !self.walls.contains(&(side(a), side(b)));
        passes(a, b) && passes(b, a)
    }

    /// Everyone whom `node` can reach, over others if need be.
    fn reachable(&self, node: u32) -> BTreeSet<u32> {
        let mut reached = BTreeSet::from([node]);
        loop {
            let near = |other: &u32| reached.iter().any(|one| self.joined(*one, *other));
            let more: Vec<u32> = self.running.iter().copied().filter(|other| !reached.contains(other) && near(other)).collect();
            if more.is_empty() {
                return reached;
            }
            reached.extend(more);
        }
    }
}

fn action(nodes: u32) -> impl Strategy<Value = Action> {
    let node = 0..nodes;
    let pair = (0..nodes, 0..nodes);
    prop_oneof![
        3 => node.clone().prop_map(|node| Action::Publish { node }),
        3 => node.clone().prop_map(|node| Action::Kill { node }),
        1 => node.clone().prop_map(|node| Action::Leave { node }),
        3 => node.clone().prop_map(|node| Action::Restart { node }),
        1 => node.clone().prop_map(|node| Action::RestartWithoutDisk { node }),
        2 => pair.clone().prop_map(|(from, to)| Action::Cut { from, to }),
        1 => pair.prop_map(|(from, to)| Action::Mend { from, to }),
        1 => (2_u8..4).prop_map(|groups| Action::Wall { groups, walls: vec![(0, 1), (1, 0)] }),
        1 => Just(Action::Wall { groups: 2, walls: vec![(0, 1)] }),
        2 => Just(Action::Heal),
        1 => (node.clone(), 500_u64..30_000).prop_map(|(node, for_ms)| Action::Sleep { node, for_ms }),
        1 => (node.clone(), -SKEW_MS_MAX..SKEW_MS_MAX).prop_map(|(node, by_ms)| Action::SkewClock { node, by_ms }),
        1 => (node, 1_u64..600).prop_map(|(node, every_ms)| Action::Slow { node, every_ms }),
    ]
}

fn sequences() -> impl Strategy<Value = (u32, u64, Vec<(Action, u64)>)> {
    (2..=NODES_MAX, any::<u64>()).prop_flat_map(|(nodes, seed)| {
        let steps = prop::collection::vec((action(nodes), PAUSE_MS_MIN..PAUSE_MS_MAX), 1..ACTIONS_MAX);
        (Just(nodes), Just(seed), steps)
    })
}

/// What a node shows: whom it would route to, and what each of them published.
fn shown(world: &World, observer: u32) -> BTreeMap<u32, Option<u64>> {
    let origins = world.mesh_of(observer).into_iter().flat_map(|mesh| mesh.origins()).filter(is_shown);
    let published = |labels: &[(String, String)]| labels.first().and_then(|(_, text)| text.parse().ok());
    origins.filter_map(|origin| Some((world.number_of(&origin.id)?, published(&origin.record.labels)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_the_nodes_agree_with_the_model_in_the_end((nodes, seed, steps) in sequences()) {
        let mut world = World::new(&Scenario::named("home").expect("built in"), nodes as usize, seed, 0);
        let mut model = Model::new(nodes);
        world.run_for(5_000);
        for (action, pause_ms) in &steps {
            model.act(action, world.now_ms());
            world.act(action);
            world.run_for(*pause_ms);
        }
        world.run_for(SETTLED_MS);
        for observer in &model.running {
            let ought: BTreeMap<u32, Option<u64>> =
                model.reachable(*observer).into_iter().map(|node| (node, model.published.get(&node).copied())).collect();
            prop_assert_eq!(shown(&world, *observer), ought, "as node {} of {} sees it", observer, model.nodes);
        }
        prop_assert_eq!(world.log.violations(), &[]);
    }
}
