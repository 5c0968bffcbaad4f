//! Models that were in the mesh a while ago: asking for one of them is no mistake of the client's, it just has to wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A model that was gone for longer is unknown: its machine was switched off, not restarted.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Names remembered; the one seen longest ago goes first.
const NAMES_MAX: usize = 1024;

/// Names that clients used or were shown, and who offered them then.
#[derive(Debug, Default)]
pub struct RecentModels(Mutex<BTreeMap<String, Seen>>);

#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    node: String,
}

impl RecentModels {
    /// `node` offers `model` now.
    pub fn seen(&self, model: &str, node: &str) {
        let mut names = self.lock();
        names.insert(model.to_owned(), Seen { at: Instant::now(), node: node.to_owned() });
        if names.len() > NAMES_MAX
            && let Some(oldest) = names.iter().min_by_key(|(_, seen)| seen.at).map(|(name, _)| name.clone())
        {
            names.remove(&oldest);
        }
    }

    /// Who offered `model` last and how long ago, if that was lately.
    pub fn last(&self, model: &str) -> Option<(String, Duration)> {
        let seen = self.lock().get(model).cloned()?;
        let ago = seen.at.elapsed();
        (ago < REMEMBERED_FOR).then_some((seen.node, ago))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_up_to_its_bound() {
        let recent = RecentModels::default();
        assert_eq!(recent.last("a"), None);
        recent.seen("a", "attic");
        assert_eq!(recent.last("a").map(|(node, _)| node).as_deref(), Some("attic"));
        (0..NAMES_MAX).for_each(|number| recent.seen(&format!("m{number}"), "x"));
        assert_eq!(recent.last("a"), None, "the oldest gave way");
        assert_eq!(recent.lock().len(), NAMES_MAX);
    }
}
