//! How many lines strangers may cause: so many a minute of each class, then one line that counts the rest.

/// Lines of one class within [`WINDOW_MS`]. Enough to read what is tried; at 400 bytes a line, somebody who never stops needs six weeks
/// to push everything else out of the record with one class, two with all of them.
const LINES_MAX: u64 = 10;
const WINDOW_MS: u64 = 60_000;

/// What others can cause as often as they like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Connections and join codes that were refused.
    Refused,
    /// Requests to the API without a good key.
    KeyRefused,
    /// Requests that were turned away before anything ran.
    TurnedAway,
}

impl Class {
    const ALL: [Self; 3] = [Self::Refused, Self::KeyRefused, Self::TurnedAway];

    /// As it is called in the line that counts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::KeyRefused => "key_refused",
            Self::TurnedAway => "turned_away",
        }
    }
}

/// Counts events that were left out of the record.
#[derive(Debug, Default)]
pub struct Limiter([Window; Class::ALL.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Unix milliseconds; 0 where nothing was seen lately.
    since_ms: u64,
    admitted: u64,
    left_out: u64,
}

/// So many events were left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftOut {
    pub class: Class,
    pub count: u64,
    pub from_ms: u64,
}

impl Limiter {
    /// Whether there is room for one more; it is counted either way.
    pub fn admits(&mut self, class: Class, now_ms: u64) -> bool {
        let window = &mut self.0[class as usize];
        if window.left_out == 0 && window.is_over(now_ms) {
            *window = Window { since_ms: now_ms.max(1), ..Window::default() };
        }
        if window.admitted < LINES_MAX {
            window.admitted += 1;
            return true;
        }
        window.left_out += 1;
        false
    }

    /// Closes the windows that are over, or all; gives what they left out.
    pub fn close(&mut self, now_ms: u64, all: bool) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        for (class, window) in Class::ALL.into_iter().zip(&mut self.0) {
            if window.since_ms > 0 && (all || window.is_over(now_ms)) {
                let Window { since_ms, left_out: count, .. } = std::mem::take(window);
                if count > 0 {
                    left_out.push(LeftOut { class, count, from_ms: since_ms });
                }
            }
        }
        left_out
    }

    /// Whether a window is still to be closed.
    pub fn is_open(&self) -> bool {
        self.0.iter().any(|window| window.since_ms > 0)
    }
}

impl Window {
    /// A clock that was set back ends a window as well.
    fn is_over(&self, now_ms: u64) -> bool {
        now_ms < self.since_ms || now_ms - self.since_ms >= WINDOW_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let mut limiter = Limiter::default();
        assert!(!limiter.is_open());
        let admitted = (0..1000).filter(|at| limiter.admits(Class::Refused, 1_000_000 + at)).count() as u64;
        assert_eq!(admitted, LINES_MAX);
        assert!(limiter.admits(Class::KeyRefused, 1_000_500), "another class has room of its own");
        assert_eq!(limiter.close(1_000_999, false), []);
        let left_out = LeftOut { class: Class::Refused, count: 1000 - LINES_MAX, from_ms: 1_000_000 };
        assert_eq!(limiter.close(1_000_000 + WINDOW_MS, false), [left_out]);
        assert!(limiter.is_open(), "the other class began later");
        assert_eq!(limiter.close(1_000_000, true), []);
        assert!(!limiter.is_open() && limiter.admits(Class::Refused, 5));
    }
}
