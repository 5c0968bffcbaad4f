//! A request that was let in, read to its end.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;

use super::errors::ApiError;
use super::guard::Visitor;
use super::{Api, body};

/// What every handler that makes something takes.
pub struct Taken {
    pub visitor: Visitor,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl FromRequest<Arc<Api>> for Taken {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let visitor = parts.extensions.get().cloned().ok_or_else(|| ApiError::forbidden("nobody let this request in"))?;
        Ok(Self { visitor, headers: parts.headers, body: body::read(body, api.body_bytes).await? })
    }
}
