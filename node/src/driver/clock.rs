//! The only place of the node that reads clocks for the coordinator.

use std::time::{Duration, Instant, SystemTime};

use atmo_protocol::mesh::Now;

/// With nothing to wait for, look again this often; a wake-up a minute costs nothing.
const IDLE: Duration = Duration::from_secs(60);

/// Monotonic time since the node started, beside the wall clock. A copy tells the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub fn now(&self) -> Now {
        Now { mono_ms: self.started.elapsed().as_millis() as u64, wall_ms: wall_ms() }
    }

    /// Sleeps until the monotonic moment `mono_ms`. Dropping the future loses nothing.
    pub async fn sleep_until(&self, mono_ms: Option<u64>) {
        let at = mono_ms.map_or_else(|| Instant::now() + IDLE, |ms| self.started + Duration::from_millis(ms));
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Unix milliseconds. A clock before 1970 counts as 1970.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
