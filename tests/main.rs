//! Meshes of real processes: every test starts the `atmo` binary, speaks its command line and its HTTP endpoint, and knows nothing of
//! the crates behind them (a hostile member, which no honest binary can play, is made of the crates). Everything happens on loopback, on ports chosen by the system, in temporary folders.

mod support;

mod auditing;
mod backends;
mod built_in_model;
mod cancelling;
mod connections;
mod constraints;
mod conversing;
mod dialects;
mod endpoint;
mod failover;
mod fairness;
mod hostile_member;
mod jobs;
mod joining;
mod keys;
mod misbehaving;
mod modes;
mod observing;
mod python_client;
mod quotes;
mod rerank_and_speech;
mod restarting;
mod revoking;
mod routing;
mod rude_clients;
mod starting;
mod strangers;
mod trusting;
