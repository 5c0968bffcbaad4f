//! How similar a query is to each of many vectors.
//!
//! An exact scan over int8 vectors. It reads 384 bytes a vector, so that a thousand capabilities take some ten microseconds; graphs (HNSW)
//! pay from about 20,000 vectors on and are not here.

pub mod dot;
pub mod exact;
pub mod rows;
pub mod signature;

pub use exact::{Evidence, ExactIndex};
pub use rows::{Query, Rows};
