//! What the node tells about itself and its mesh.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use atmo_capabilities::capability::given_texts;
use atmo_capabilities::view::{Condition, Routable, Standing};
use atmo_protocol::{BodyHash, Mode, NodeId, Roles};
use serde_json::{Value, json};

use crate::audit;
use crate::backends::BackendStatus;
use crate::control::CommandError;
use crate::driver::{Contact, KnownNode};
use crate::membership::{mesh_json, rfc3339, role_names};
use crate::mesh_change;
use crate::node::Node;
use crate::revoke::KnownMember;

pub async fn status(node: &Node) -> Result<Value, CommandError> {
    let nodes = node.driver.nodes().await.map_err(CommandError::failed)?;
    let listen = node.driver.listening().await.map_err(CommandError::failed)?;
    let members = node.driver.members().await.map_err(CommandError::failed)?;
    let tally = node.driver.tally().await.map_err(CommandError::failed)?;
    let current = node.current();
    let membership = &current.membership;
    let peers = nodes.iter().filter(|other| is_reached(node, other)).count();
    let in_touch = |contact: Contact| nodes.iter().filter(|other| other.contact == Some(contact)).count();
    let open_circuits: Vec<String> = node.executor.experiences.open_circuits().iter().map(|id| node.name_of(id)).collect();
    Ok(json!({
        "node_id": node.id.to_string(),
        "name": node.name,
        "mode": node.mode,
        "data_dir": node.store.dir(),
        "mesh": mesh_json(&membership.mesh, membership.name.as_deref()),
        "private": membership.is_private(),
        "roles": role_names(membership.member.roles),
        "revoked": revoked(node),
        "certificate": membership.member.lineage.last().map(|own| format!("{}@{}", own.serial, own.issuer)),
        "certificate_expires_at": rfc3339(membership.member.expires_ms),
        "peers": peers,
        "links": in_touch(Contact::Link),
        "connections": in_touch(Contact::Link) + in_touch(Contact::Connection),
        "capabilities": reachable(node).count(),
        "api": node.api,
        "listen": listen,
        "embedder": node.executor.embedder.state(),
        "backends": backends(node),
        "open_circuits": open_circuits,
        "distrusted": distrusted(node),
        "refused": tally,
        "audit": node.store.audit().state(),
        "running": node.executor.provider.load().0,
        "warnings": warnings(node, &nodes).into_iter().chain(root_in_danger(node, &members)).collect::<Vec<_>>(),
        "uptime_s": node.started.elapsed().as_secs(),
        "resident_bytes": crate::platform::resident_bytes(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// Capabilities whose announcements are not what they should be, with what is wrong.
fn distrusted(node: &Node) -> Vec<Value> {
    let lies: BTreeMap<_, _> = node.executor.proofs.disproved().into_iter().map(|lie| (lie.body, lie.text)).collect();
    let wrong = |entry: &Routable| match lies.get(&entry.capability.hash) {
        Some(text) => Some(format!("left out: the vector of {text:?} is that of another text")),
        None if entry.capability.vectors_refused > 0 => {
            let refused = entry.capability.vectors_refused;
            Some(format!("{refused} of its vectors are malformed, of another embedding space or too many, and are not used"))
        }
        None => None,
    };
    let found = entries(node).filter_map(|(entry, _)| Some((wrong(&entry)?, entry)));
    found.map(|(why, entry)| json!({ "name": entry.shown(), "node_id": entry.id.node.to_string(), "why": why })).collect()
}

/// As the backends say of themselves, unless requests say otherwise.
fn backends(node: &Node) -> Vec<BackendStatus> {
    let mut statuses = node.backends.statuses();
    for status in statuses.iter_mut().filter(|status| status.state == "up") {
        if let Some(trouble) = node.executor.provider.trouble(&status.name) {
            status.state = "degraded";
            let ago = trouble.at.elapsed().as_secs();
            status.detail = Some(format!("its last request failed {ago} s ago: {}", trouble.message));
        }
    }
    statuses
}

/// What the user should know without asking.
fn warnings(node: &Node, nodes: &[KnownNode]) -> Vec<String> {
    let ended = revoked(node).map(|told| {
        format!("{told}: the mesh refuses it, and it serves itself alone; `atmo leave`, then join with a new code if you are given one")
    });
    let mut warnings: Vec<String> = match ended {
        Some(ended) => vec![ended],
        None => roles(node).into_iter().chain(alone(node, nodes)).collect(),
    };
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for other in nodes.iter().map(|other| &other.view).filter(|other| other.standing == Standing::Alive) {
        *names.entry(&other.name).or_default() += 1;
    }
    let shared = names.into_iter().filter(|(_, count)| *count > 1);
    warnings
        .extend(shared.map(|(name, count)| format!("{count} nodes are called `{name}`: tell them apart with `atmo up --name`")));
    let demonstration_alone = {
        let mut models = reachable(node).filter(|(entry, _)| entry.capability.can_chat()).peekable();
        models.peek().is_some() && models.all(|(entry, _)| entry.capability.facts.demonstration)
    };
    warnings.extend(audit(node));
    if demonstration_alone {
        warnings.push(
            "the only model in the mesh is the built-in demonstration model: start Ollama or another engine for real answers"
                .into(),
        );
    }
    warnings
}

/// What is missing in the record, and why.
fn audit(node: &Node) -> Option<String> {
    let audit::State { lost, problem, .. } = node.store.audit().state();
    match (lost, problem) {
        (0, None) => None,
        (lost, Some(problem)) => Some(format!("the audit cannot be written ({problem}); {lost} events are missing so far")),
        (lost, None) => {
            Some(format!("{lost} events are missing in the audit since this start; `atmo audit list --kind lost` says when"))
        }
    }
}

/// While the only copy of a shared mesh's root lies here, and nobody else could go on without it.
fn root_in_danger(node: &Node, members: &[KnownMember]) -> Option<String> {
    let membership = &node.current().membership;
    let heir =
        |known: &KnownMember| known.id != node.id && known.roles.is_some_and(|roles| roles.contains(Roles::ISSUE | Roles::ADMIN));
    let is_shared = membership.shared || members.iter().any(|known| known.id != node.id);
    if !membership.founded_here || !is_shared || members.iter().any(heir) {
        return None;
    }
    let exported = node.store.state().ok()?.root_exported;
    (exported != Some(membership.mesh.to_string())).then(|| {
        "the mesh's root key is on this machine alone: `atmo mesh backup` writes it to a file, or `atmo grant NODE \
         consume,provide,issue,admin` lets another member go on without this one"
            .to_owned()
    })
}

/// How this node's membership was ended, if it was.
fn revoked(node: &Node) -> Option<String> {
    node.gate.own_revocation().map(|revocation| crate::revoke::told(&revocation, &node.id))
}

/// What the certificate keeps this node from.
fn roles(node: &Node) -> Vec<String> {
    let roles = node.current().membership.member.roles;
    let offers: usize = node.backends.statuses().iter().map(|backend| backend.offers).sum();
    let mut warnings = Vec::new();
    if !roles.contains(Roles::PROVIDE) && offers > 0 {
        warnings.push(format!(
            "this node's certificate lacks the role `provide`: it offers nothing, and the {offers} capabilities of its backends can be asked \
             by nobody, itself included; to change that, `atmo grant {} consume,provide` on an admin",
            node.name
        ));
    }
    if !roles.contains(Roles::CONSUME) {
        warnings.push("this node's certificate lacks the role `consume`: it serves others and asks only itself".to_owned());
    }
    warnings
}

/// A member that reaches nobody should say whom it tried.
fn alone(node: &Node, nodes: &[KnownNode]) -> Option<String> {
    const SHOWN_MAX: usize = 3;
    let current = node.current();
    if nodes.iter().any(|other| is_reached(node, other)) || node.mode == Mode::Standalone {
        return None;
    }
    let mut known: BTreeMap<NodeId, Vec<String>> = mesh_change::known_nodes(&node.store, &current).into_iter().collect();
    let others = nodes.iter().map(|other| &other.view).filter(|other| other.id != node.id);
    known.extend(others.map(|other| (other.id, other.addresses.clone())));
    if known.is_empty() {
        return None;
    }
    let tried: Vec<&str> = known.values().flatten().map(String::as_str).take(SHOWN_MAX).collect();
    let label = current.membership.label();
    Some(format!(
        "a member of the mesh {label}, and none of its {} other known nodes can be reached; tried: {}",
        known.len(),
        tried.join(", ")
    ))
}

pub async fn nodes(node: &Node, all: bool) -> Result<Value, CommandError> {
    let nodes = node.driver.nodes().await.map_err(CommandError::failed)?;
    let members = node.driver.members().await.map_err(CommandError::failed)?;
    let roles: BTreeMap<NodeId, Roles> = members.into_iter().filter_map(|known| Some((known.id, known.roles?))).collect();
    let here = |other: &&KnownNode| all || other.view.id == node.id || is_reached(node, other);
    let one = |other: &KnownNode| one_node(node, other, roles.get(&other.view.id).copied());
    Ok(nodes.iter().filter(here).map(one).collect())
}

fn is_reached(node: &Node, other: &KnownNode) -> bool {
    let other = &other.view;
    other.id != node.id && other.standing == Standing::Alive && other.hops.is_some()
}

fn one_node(node: &Node, known: &KnownNode, roles: Option<Roles>) -> Value {
    let other = &known.view;
    json!({
        "id": other.id.to_string(),
        "name": other.name,
        "mode": other.mode,
        "roles": roles.map(role_names),
        "hops": other.hops,
        "state": other.standing,
        "this": other.id == node.id,
        "capabilities": other.capabilities,
        "rtt_ms": other.rtt_ms,
        "contact": known.contact,
        "addresses": other.addresses,
        "labels": other.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        "age_ms": other.age_ms,
    })
}

/// What can be routed to now.
fn reachable(node: &Node) -> impl Iterator<Item = (Routable, Condition)> {
    entries(node).filter(|(_, condition)| condition.standing == Standing::Alive)
}

fn entries(node: &Node) -> impl Iterator<Item = (Routable, Condition)> {
    let view = node.executor.view.load_full();
    (0..view.entries().len()).map(move |place| (view.entries()[place].clone(), view.conditions()[place]))
}

pub async fn capabilities(node: &Node, all: bool) -> Result<Value, CommandError> {
    let mut texts: BTreeMap<BodyHash, Value> = BTreeMap::new();
    let mut told = Vec::new();
    for (entry, condition) in entries(node).filter(|(_, condition)| all || condition.standing == Standing::Alive) {
        let given = match texts.entry(entry.capability.hash) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let body = node.driver.body(*unknown.key()).await.map_err(CommandError::failed)?;
                unknown.insert(body.map_or(Value::Null, |body| given_texts(&body).into()))
            }
        };
        let mut one = one_capability((entry, condition));
        one["texts"] = given.clone();
        told.push(one);
    }
    Ok(told.into())
}

fn one_capability((entry, condition): (Routable, Condition)) -> Value {
    let load = condition.load;
    let slots = load.slots.max(entry.slots).max(1);
    json!({
        "id": format!("{}/{}", entry.node_name, entry.id.slug),
        "node": &*entry.node_name,
        "node_id": entry.id.node.to_string(),
        "type": entry.capability.kind,
        "name": entry.capability.name,
        "description": entry.capability.description,
        "hops": condition.hops,
        "state": condition.standing,
        "load": (f32::from(load.running) + f32::from(load.waiting)) / f32::from(slots),
        "running": load.running,
        "waiting": load.waiting,
        "slots": slots,
        "tokens_per_second": load.tokens_per_second,
        "load_age_ms": condition.load_age_ms,
        "rtt_ms": condition.rtt_ms,
        "cost": entry.cost,
        "demonstration": entry.capability.facts.demonstration,
        "context_length": entry.capability.facts.context_length,
        "labels": entry.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
    })
}

pub async fn doctor(node: &Node) -> Result<Value, CommandError> {
    status(node).await
}
