//! Meshes of real processes: every test starts the `atmo` binary, speaks its command line and its HTTP endpoint, and knows nothing of
//! the crates behind them (a hostile member, which no honest binary can play, is made of the crates). Everything happens on loopback, on ports chosen by the system, in temporary folders.

mod support;

mod backends;
mod built_in_model;
mod cancelling;
mod constraints;
mod endpoint;
mod failover;
mod hostile_member;
mod joining;
mod modes;
mod python_client;
mod restarting;
mod routing;
mod starting;
mod strangers;
