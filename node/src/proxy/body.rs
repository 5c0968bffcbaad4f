//! Reads a request's body: bounded in size, and cut when it stops arriving.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::errors::ApiError;

/// A body that sends nothing for so long is not coming.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The whole of it, however steadily it trickles.
const WHOLE_MAX: Duration = Duration::from_secs(300);

/// The whole body, of at most `bytes_max`.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(ApiError::too_large());
    }
    let reading = read_pieces(Limited::new(body, bytes_max));
    tokio::time::timeout(WHOLE_MAX, reading).await.unwrap_or_else(|_| Err(ApiError::too_slow()))
}

async fn read_pieces(mut body: Limited<Body>) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    let mut only: Option<Bytes> = None;
    loop {
        let frame = tokio::time::timeout(PAUSE_MAX, body.frame()).await.map_err(|_| ApiError::too_slow())?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => ApiError::too_large(),
            None => ApiError::invalid(None, "the request ended before its body did"),
        })?;
        let Ok(piece) = frame.into_data() else { continue };
        // Most bodies come in one piece, which need not be copied.
        match only.take() {
            None if whole.is_empty() => only = Some(piece),
            first => {
                whole.extend_from_slice(&first.unwrap_or_default());
                whole.extend_from_slice(&piece);
            }
        }
    }
    Ok(only.unwrap_or_else(|| whole.into()))
}
