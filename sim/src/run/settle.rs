//! Waiting until every table is right, cheaply: whoever was wrong last is asked first.

use rand::seq::SliceRandom;

use super::{Run, STEP_MS};
use crate::checks::{self, Fault};
use crate::truth::Truth;

/// Worlds larger than this are looked at through a sample while they settle, and looked through once at the end.
const EXHAUSTIVE_MAX: usize = 2_000;
/// That sample.
const SAMPLE: usize = 200;

impl Run<'_> {
    /// Waits until every table is right; how long that took. Otherwise says what is wrong.
    pub(super) fn settle(&mut self, within_ms: u64) -> Option<u64> {
        let begun_ms = self.world.now_ms();
        let observers = self.settlers();
        self.witness = 0;
        loop {
            let fault = self.first_fault(&observers);
            let took_ms = self.world.now_ms() - begun_ms;
            match fault {
                None => return Some(took_ms),
                Some(fault) if took_ms >= within_ms => {
                    self.unsettled(&fault, took_ms);
                    return None;
                }
                Some(_) => self.advance(STEP_MS),
            }
        }
    }

    fn settlers(&mut self) -> Vec<u32> {
        let mut well = self.world.well();
        if well.len() > EXHAUSTIVE_MAX {
            well.shuffle(&mut self.world.rng);
            well.truncate(SAMPLE);
        }
        well
    }

    fn first_fault(&mut self, observers: &[u32]) -> Option<Fault> {
        let truth = Truth::of(&self.world);
        for step in 0..observers.len() {
            let at = (self.witness + step) % observers.len();
            if let Some(fault) = checks::live_nodes_converge(&self.world, &truth, observers[at]) {
                self.witness = at;
                return Some(fault);
            }
        }
        None
    }

    fn unsettled(&mut self, fault: &Fault, took_ms: u64) {
        if fault.is_distance {
            self.report.hop_exact = false;
            self.world.violate(format!("distances equal breadth-first search: after {took_ms} ms {}", fault.what));
        } else {
            self.world.violate(format!("all live, connected nodes converge: after {took_ms} ms {}", fault.what));
        }
    }

    /// Every table of a large world, once.
    pub(super) fn look_through(&mut self) {
        let well = self.world.well();
        if well.len() > EXHAUSTIVE_MAX {
            self.witness = 0;
            if let Some(fault) = self.first_fault(&well) {
                self.unsettled(&fault, 0);
            }
        }
    }
}
