//! What a mesh can do, and which of it an intent should go to.
//!
//! Knows no sockets, HTTP, clocks or runtimes: embedding is a pure function, routing is one pure function over an immutable view, and
//! the [`coordinator`] composes them with the mesh into one state machine that the node and the simulator run alike.

pub mod cache;
pub mod capability;
pub mod catalogue;
pub mod coordinator;
pub mod embed;
pub mod exemplars;
pub mod explain;
pub mod index;
pub mod intent;
pub mod proof;
pub mod route;
pub mod score;
pub mod view;
