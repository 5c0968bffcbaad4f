//! Which bodies of other nodes may win a request by meaning: those whose vectors were made again from their texts.
//!
//! Done once for each body, when it is about to win for the first time; most of what a mesh offers never is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atmo_capabilities::intent::Intent;
use atmo_capabilities::route::Decision;
use atmo_capabilities::view::RoutingView;
use atmo_protocol::{BodyHash, CapabilityId};

use crate::driver::DriverHandle;
use crate::embedder::EmbedderSlot;

/// Bodies whose proof is remembered; beyond it those checked are checked again.
const REMEMBERED_MAX: usize = 16_384;
/// Bodies that one request checks; after so many liars it falls back to what is known to be true.
pub const CHECKS_MAX: usize = 4;

/// What was found out about bodies.
pub struct Proofs {
    /// By body: `None` where its vectors are its texts', else the text whose vector is not.
    known: Mutex<BTreeMap<BodyHash, Option<String>>>,
    driver: DriverHandle,
    embedder: Arc<EmbedderSlot>,
}

/// A capability that is left out for lying about where it lies.
#[derive(Debug, Clone)]
pub struct Disproved {
    pub body: BodyHash,
    pub text: String,
}

impl Proofs {
    pub fn new(driver: DriverHandle, embedder: Arc<EmbedderSlot>) -> Self {
        Self { known: Mutex::default(), driver, embedder }
    }

    /// Leaves out of `intent` everything that is known to lie.
    pub fn exclude_liars(&self, view: &RoutingView, intent: &mut Intent) {
        let known = self.lock();
        if known.values().all(Option::is_none) {
            return;
        }
        let lies = |hash: &BodyHash| known.get(hash).is_some_and(Option::is_some);
        let liars = view.entries().iter().filter(|entry| lies(&entry.capability.hash)).map(|entry| entry.id.clone());
        intent.constraints.exclude.extend(liars);
    }

    /// Whether the chosen capability, if it is another node's and won by meaning, is what it says. One that cannot be checked just now
    /// passes: what it says of itself was signed, and the next request checks it again.
    pub async fn holds(&self, view: &RoutingView, decision: &Decision) -> bool {
        let Some(candidate) = decision.chosen().filter(|candidate| candidate.probability.is_some()) else { return true };
        let Some(hash) = foreign_body(view, &candidate.id) else { return true };
        if let Some(known) = self.lock().get(&hash) {
            return known.is_none();
        }
        let Ok(Some(body)) = self.driver.body(hash).await else { return true };
        match self.embedder.disproved(body).await {
            Ok(lie) => {
                if let Some(text) = &lie {
                    tracing::warn!(capability = candidate.name, text, "its vectors are not those of its texts: it is left out");
                }
                let holds = lie.is_none();
                self.remember(hash, lie);
                holds
            }
            Err(error) => {
                tracing::warn!(%error, capability = candidate.name, "what it announces could not be checked");
                true
            }
        }
    }

    /// Everything that was found to lie, for `atmo status`.
    pub fn disproved(&self) -> Vec<Disproved> {
        let lie = |(hash, lie): (&BodyHash, &Option<String>)| Some(Disproved { body: *hash, text: lie.clone()? });
        self.lock().iter().filter_map(lie).collect()
    }

    fn remember(&self, hash: BodyHash, lie: Option<String>) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, lie| lie.is_some());
        }
        if known.len() < REMEMBERED_MAX {
            known.insert(hash, lie);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BodyHash, Option<String>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body behind a capability of another node that has vectors of its own.
fn foreign_body(view: &RoutingView, id: &CapabilityId) -> Option<BodyHash> {
    let (entry, _) = view.get(id)?;
    (id.node != view.me && !entry.capability.vectors.is_empty()).then_some(entry.capability.hash)
}
