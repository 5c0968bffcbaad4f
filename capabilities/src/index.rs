//! The nearest of many vectors.

pub mod exact;

pub use exact::ExactIndex;
