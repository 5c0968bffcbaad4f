//! From what a mesh believes to what can be routed to.
//!
//! Bodies are read once each and shared by everyone who offers the same thing. When nothing but load, hops, round trips or standings
//! changed, a new view shares the old roster and its index. Nodes that are suspected or dead stay in, flagged, so that people can ask for
//! them; routing looks at the flag.

use std::collections::BTreeMap;
use std::sync::Arc;

use atmo_protocol::config::UNREACHABLE;
use atmo_protocol::gradient;
use atmo_protocol::mesh::{Mesh, Now, OriginView};
use atmo_protocol::record::{Load, Offered};
use atmo_protocol::{BodyHash, NodeId};

use crate::capability::Capability;
use crate::embed::EmbeddingSpace;
use crate::view::{Condition, Roster, Routable, RoutingView, Standing, UNHEARD_MS};

/// Reads a mesh into views.
#[derive(Debug)]
pub struct Catalogue {
    space: Arc<EmbeddingSpace>,
    /// Every body that the roster names, read.
    capabilities: BTreeMap<BodyHash, Arc<Capability>>,
    /// Generations of the mesh that `view` shows.
    shown: Option<(u64, u64)>,
    view: Arc<RoutingView>,
}

impl Catalogue {
    pub fn new(me: NodeId, space: Arc<EmbeddingSpace>) -> Self {
        let view = Arc::new(RoutingView::empty(me, Arc::clone(&space)));
        Self { space, capabilities: BTreeMap::new(), shown: None, view }
    }

    pub fn view(&self) -> Arc<RoutingView> {
        Arc::clone(&self.view)
    }

    /// Whether the mesh has changed since the view was made.
    pub fn is_stale(&self, mesh: &Mesh) -> bool {
        self.shown != Some(generations(mesh))
    }

    /// Makes a new view of the mesh as it is now.
    pub fn refresh(&mut self, mesh: &Mesh, now: Now) -> Arc<RoutingView> {
        let (roster, conditions) = generations(mesh);
        let same_roster = self.shown.is_some_and(|(shown, _)| shown == roster);
        let of = |entry: &Routable| condition(mesh, entry, now);
        let mut view =
            if same_roster { self.view.with_conditions(of) } else { RoutingView::new(self.view.me, self.roster(mesh), of) };
        view.made_ms = now.mono_ms;
        self.view = Arc::new(view);
        self.shown = Some((roster, conditions));
        self.view()
    }

    fn roster(&mut self, mesh: &Mesh) -> Arc<Roster> {
        let before = std::mem::take(&mut self.capabilities);
        let mut entries = Vec::new();
        for origin in mesh.origins() {
            let (name, labels) = (Arc::from(origin.record.name.as_str()), Arc::from(origin.record.labels.as_slice()));
            for offered in &origin.record.capabilities {
                if let Some(capability) = self.capability(mesh, offered.body, &before) {
                    entries.push(routable(&origin, offered, capability, Arc::clone(&name), Arc::clone(&labels)));
                }
            }
        }
        Arc::new(self.view.roster().followed_by(entries))
    }

    fn capability(
        &mut self,
        mesh: &Mesh,
        hash: BodyHash,
        before: &BTreeMap<BodyHash, Arc<Capability>>,
    ) -> Option<Arc<Capability>> {
        if let Some(read) = self.capabilities.get(&hash) {
            return Some(Arc::clone(read));
        }
        let read = match before.get(&hash) {
            Some(read) => Arc::clone(read),
            None => Arc::new(Capability::read(hash, &mesh.body(&hash)?.body, &self.space)),
        };
        self.capabilities.insert(hash, Arc::clone(&read));
        Some(read)
    }
}

fn generations(mesh: &Mesh) -> (u64, u64) {
    (mesh.roster_generation(), mesh.condition_generation())
}

fn routable(
    origin: &OriginView<'_>,
    offered: &Offered,
    capability: Arc<Capability>,
    node_name: Arc<str>,
    labels: Arc<[(String, String)]>,
) -> Routable {
    let id = atmo_protocol::CapabilityId { node: origin.id, slug: offered.slug.clone() };
    Routable { id, node_name, capability, mode: origin.record.mode, labels, cost: offered.cost, slots: offered.slots }
}

fn condition(mesh: &Mesh, entry: &Routable, now: Now) -> Condition {
    let Some(origin) = mesh.origin(&entry.id.node) else {
        return Condition { hops: UNREACHABLE, standing: Standing::Dead, ..Condition::default() };
    };
    let unheard = (Load { slots: entry.slots, ..Load::default() }, u64::from(UNHEARD_MS));
    let (load, age_ms) = origin.load(&entry.id.slug, now).unwrap_or(unheard);
    Condition {
        hops: origin.hops.unwrap_or(UNREACHABLE),
        load,
        load_age_ms: u32::try_from(age_ms).unwrap_or(UNHEARD_MS),
        rtt_ms: origin.rtt_ms.map(|ms| ms as f32),
        standing: standing(origin.standing),
    }
}

/// The standing as routing knows it: who is quarantined is as good as dead.
pub fn standing(standing: gradient::Standing) -> Standing {
    match standing {
        gradient::Standing::Alive => Standing::Alive,
        gradient::Standing::Suspected => Standing::Suspected,
        gradient::Standing::Dead(_) | gradient::Standing::Quarantined => Standing::Dead,
    }
}
