//! `atmo bench`: what this node adds to a request, measured against asking the engine directly.
//!
//! Everything runs on loopback in processes of their own: a mock engine that answers at once, nginx where it is installed, one node before
//! the mock, and a node that asks another node. Rounds are interleaved, so that a noisy machine is noisy for everybody, and differences
//! are taken within a round.

pub mod client;
pub mod mock;
pub mod processes;
pub mod proxy;
