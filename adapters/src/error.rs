//! What can go wrong in an engine, sorted by what the caller should do about it.

use std::time::Duration;

/// Why a backend did not answer. Nothing was executed unless the variant says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Not reachable, or it went away before the first byte: another candidate may be tried.
    #[error("{backend} is not reachable: {cause}")]
    Unreachable { backend: String, cause: String },
    /// It answered with something that is not its protocol (HTML with status 200, broken JSON): another candidate may be tried.
    #[error("{backend} answered with {found}, not with what the OpenAI API promises")]
    NotTheProtocol { backend: String, found: String },
    /// It failed by itself (5xx, a crashed worker): another candidate may be tried before the first byte.
    #[error("{backend} failed: {cause}")]
    Failed { backend: String, cause: String },
    /// It has no room now: another candidate may be tried, or the same one after a while.
    #[error("{backend} is busy")]
    Busy {
        backend: String,
        /// What it asked callers to wait, where it said (RFC 9110, `Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The time for the request ran out. The engine was told to stop.
    #[error("{backend} did not answer in time")]
    TimedOut { backend: String },
    /// The backend does not offer this: ask `describe` again.
    #[error("{backend} does not offer `{slug}`")]
    NotOffered { backend: String, slug: String },
}
