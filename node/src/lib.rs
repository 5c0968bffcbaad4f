//! The node: the only crate with effects, and the only one that wires the others together.
//!
//! A request's life: [`proxy`] or [`commands`] takes it in, [`execute`] routes it and tries candidates, [`provider`] runs it here or
//! [`data_plane`] carries it ([`exchange`]) to another node, whose [`serve`] gives it to that node's provider. The mesh's life: [`driver`]
//! owns the coordinator and the [`swarm`], behind the gate of [`admission`]. What both of
//! them do that somebody may have to answer for is recorded by the [`audit`].

pub mod bench;
pub mod cli;

pub mod node;

pub mod caller;
pub mod commands;
pub mod embedder;
pub mod execute;
pub mod feedback;
pub mod jobs;
pub mod keys;
pub mod prompt;
pub mod proxy;

pub mod backends;
pub mod provider;
pub mod serve;

pub mod data_plane;
pub mod exchange;

pub mod admission;
pub mod certificates;
pub mod driver;
pub mod grants;
pub mod invitations;
pub mod join;
pub mod membership;
pub mod mesh_change;
pub mod peer;
pub mod renewal;
pub mod revoke;
pub mod root_backup;
pub mod swarm;

pub mod audit;
pub mod chance;
pub mod config;
pub mod control;
pub mod doctor;
pub mod logging;
pub mod metrics;
pub mod platform;
pub mod shutdown;
pub mod store;
