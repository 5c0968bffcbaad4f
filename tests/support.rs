//! What the end-to-end tests stand on: real `atmo` processes, stand-in engines, and waiting for things instead of sleeping.
//!
//! The tests know the binary's command line, its JSON and its HTTP endpoint, and nothing of the crates behind them.

use std::future::Future;
use std::time::{Duration, Instant};

pub mod chaos;
pub mod command;
pub mod events;
pub mod llamafarm;
pub mod mesh;
pub mod node;
pub mod ollama;
pub mod openai;
pub mod processes;

pub use chaos::{Chaos, Step};
pub use llamafarm::{LLAMAFARM_PROJECT, MockLlamaFarm};
pub use node::{Node, Setup};
pub use ollama::MockOllama;
pub use openai::{Manner, MockOpenAi};

/// How often a condition is looked at while a test waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Long enough for anything that is not itself the subject of a time limit, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again until there is an answer, and fails the test with `what` when there is none in time.
pub async fn eventually<T>(within: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < within, "waited {within:?} in vain: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Like [`eventually`], for a condition that has nothing to hand back.
pub async fn until(within: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually(within, what, async || holds().await.then_some(())).await;
}

/// Fails the test when something does not end in time.
pub async fn in_time<T>(within: Duration, what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(within, work).await.unwrap_or_else(|_| panic!("took longer than {within:?}: {what}"))
}
