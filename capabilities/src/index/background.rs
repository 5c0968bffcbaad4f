//! Graphs that are built while requests go on.
//!
//! The index says when one is due; whoever owns threads takes the [`GraphJob`] to one of them and runs it. Until then, and for what was
//! added since, every row is looked at. Nothing waits, and a job that is lost costs speed and no answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::graph::Graph;
use super::rows::Rows;

/// The graphs of one index and of those that continue it, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Graphs(Vec<Arc<Slot>>);

/// One graph, built or to be built.
#[derive(Debug)]
struct Slot {
    /// It is to know the rows before this one.
    rows: usize,
    taken: AtomicBool,
    graph: OnceLock<Graph>,
}

/// A graph to be built, away from where requests are answered: a millisecond or two for every vector.
#[derive(Debug)]
pub struct GraphJob {
    rows: Rows,
    mean: Arc<[f32]>,
    slot: Arc<Slot>,
}

impl GraphJob {
    /// Builds the graph. The index that gave the job, and those that continue it, use it from then on.
    pub fn run(self) {
        let graph = Graph::build(&self.rows, &self.mean);
        // It is empty: a job is given out once.
        let _ = self.slot.graph.set(graph);
    }
}

impl Graphs {
    /// The newest that is built.
    pub fn ready(&self) -> Option<&Graph> {
        self.0.iter().rev().find_map(|slot| slot.graph.get())
    }

    /// Asks for another graph once there is a quarter more than the newest knows, and forgets those that a newer one has replaced.
    pub fn grow(&mut self, rows: usize) {
        let known = self.0.last().map_or(0, |slot| slot.rows);
        if rows > known + known / 4 {
            self.0.push(Arc::new(Slot { rows, taken: AtomicBool::new(false), graph: OnceLock::new() }));
        }
        let newest_built = self.0.iter().rposition(|slot| slot.graph.get().is_some()).unwrap_or(0);
        self.0.drain(..newest_built);
        // Between the one in use and the newest asked for none is needed, unless somebody is building it.
        let last = self.0.len().saturating_sub(1);
        let mut place = 0;
        self.0.retain(|slot| {
            place += 1;
            place - 1 == last || slot.taken.load(Ordering::Relaxed)
        });
    }

    /// The newest, to be built, unless somebody has it already.
    pub fn job(&self, rows: &Rows, mean: &Arc<[f32]>) -> Option<GraphJob> {
        let slot = self.0.last()?;
        let first = !slot.taken.swap(true, Ordering::Relaxed);
        first.then(|| GraphJob { rows: rows.clone(), mean: Arc::clone(mean), slot: Arc::clone(slot) })
    }
}
