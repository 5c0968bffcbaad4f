//! Requests about keys of the API, answered by the running node or, without one, by a command on the folder itself.

use serde_json::{Value, json};

use crate::control::{CommandError, KeyRequest, Request};
use crate::keys::{KeyError, Keys};
use crate::membership::date::rfc3339;

/// What a request about keys is answered with, whoever holds them.
pub fn answer(keys: &Keys, request: Request) -> Result<Value, CommandError> {
    match request {
        Request::KeyCreate(KeyRequest { name, limits }) => {
            let (key, stored) = keys.create(&name, limits)?;
            Ok(json!({ "key": key, "id": stored.id, "name": stored.name }))
        }
        Request::KeyRevoke { key } => {
            keys.revoke(&key).map(|stored| json!({ "id": stored.id, "name": stored.name })).map_err(Into::into)
        }
        _ => {
            let shown = keys.list().into_iter().map(|key| {
                json!({
                    "id": key.id,
                    "name": key.name,
                    "created": rfc3339(key.created_s * 1000),
                    "per_minute": key.limits.per_minute,
                    "concurrent": key.limits.concurrent,
                    "models": if key.limits.models.is_empty() { Value::Null } else { key.limits.models.into() },
                })
            });
            Ok(json!({ "keys": shown.collect::<Vec<_>>() }))
        }
    }
}

impl From<KeyError> for CommandError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Name | KeyError::ZeroLimit | KeyError::TooManyModels => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
