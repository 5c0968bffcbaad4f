//! What the fuzz targets of the mesh share: a cast of members with real certificates, a world that drives one [`Mesh`] among them and
//! checks it after every step, and a closed vocabulary of what may happen to it.
//!
//! Everything is drawn by the fuzzer; nothing here reads a clock or draws by itself, so one input always tells the same story.
//!
//! [`Mesh`]: atmo_protocol::mesh::Mesh

mod action;
mod cast;
mod said;
mod world;

pub use action::Action;
pub use said::Spliced;
pub use world::{Habits, World};
