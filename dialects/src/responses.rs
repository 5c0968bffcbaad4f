//! To be written.

use serde_json::{Value, json};

use crate::Fault;

pub fn fault(fault: &Fault<'_>) -> Value {
    json!({ "error": fault.message })
}
