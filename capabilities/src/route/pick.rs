//! The choice among near-equals: at random by weight, so that many who see the same stale picture do not all run to the same node.
//!
//! Everyone is drawn with a probability, not only those that a decision lists. Who can run more requests at once gets more of them, within
//! a bound that no announcement passes.

use rand::{Rng, RngExt};

use super::Scored;
use crate::score::wait;
use crate::view::RoutingView;

/// Candidates within this share of the best are as good as the best, loads aside ...
pub const NEAR_EQUAL: f32 = 0.9;
/// ... and loads included: they are old news when they arrive, so that a little more of it says less. Measured in the simulated herd: at
/// 0.9 whoever looks idle gets up to half again its share, from 0.8 down a fifth, and as many find no room as where nothing is known.
pub(super) const NEAR_IN_ALL: f32 = 0.75;
/// More slots than this weigh no more: slots are announced, and need not be there.
const SLOTS_WEIGHED_MAX: f32 = 16.0;

/// Who may be drawn, and by which weights.
pub(super) struct Draw {
    best: Scored,
    total: f32,
    pub near_equals: usize,
}

impl Draw {
    /// `None` where nobody would do.
    pub fn among(view: &RoutingView, scored: &[Scored]) -> Option<Self> {
        let fitting = scored.iter().filter(|scored| scored.fits);
        let best = *fitting.reduce(|best, scored| if scored.beats(best) { scored } else { best })?;
        let mut draw = Self { best, total: 0.0, near_equals: 0 };
        for near in scored.iter().filter(|scored| is_near(&best, scored)) {
            draw.total += weight(view, near);
            draw.near_equals += 1;
        }
        Some(draw)
    }

    /// One of `scored`, which it was made of.
    pub fn draw(&self, view: &RoutingView, scored: &[Scored], rng: &mut impl Rng) -> Scored {
        let mut left = rng.random::<f32>() * self.total;
        let drawn = scored.iter().filter(|scored| is_near(&self.best, scored)).find(|scored| {
            left -= weight(view, scored);
            left < 0.0
        });
        *drawn.unwrap_or(&self.best)
    }

    /// The probability that this one is drawn.
    pub fn chance(&self, view: &RoutingView, scored: &Scored) -> f32 {
        match is_near(&self.best, scored) {
            true if self.total > 0.0 => weight(view, scored) / self.total,
            true if self.best.position == scored.position => 1.0,
            _ => 0.0,
        }
    }
}

#[inline]
fn is_near(best: &Scored, scored: &Scored) -> bool {
    let equal_but_for_load = scored.score * best.load >= best.score * scored.load * NEAR_EQUAL;
    scored.fits && equal_but_for_load && scored.score >= best.score * NEAR_IN_ALL
}

fn weight(view: &RoutingView, scored: &Scored) -> f32 {
    let position = scored.position as usize;
    let slots = wait::slots(&view.conditions()[position], view.entries()[position].slots);
    scored.score * slots.min(SLOTS_WEIGHED_MAX)
}
