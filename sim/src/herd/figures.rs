//! What a herd did, for people and for machines.

use std::fmt;

use serde::Serialize;

use super::Provider;

/// Requests of one asker after which it should know a liar.
pub const WARY_AFTER: u64 = 20;
/// What is tolerated of an honest provider, and of a liar.
const SHARE_MAX: f64 = 1.5;
const LIAR_SHARE_MAX: f64 = 2.0;
/// As long as the news of a load take to travel.
const STRETCH_MS: u64 = 200_000;

/// Shares are in units of the fair one, which goes with the slots that are there. Every attempt counts, taken or not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub attempts: u64,
    /// Attempts that found no room.
    pub busy: u64,
    /// Requests for which nobody had room.
    pub refused: u64,
    /// Of an honest provider, over the whole time.
    pub share_max: f64,
    /// Of an honest provider, over the worst of stretches as long as news take to travel.
    pub share_max_200s: f64,
    /// Of the liar, over all requests that their asker made after its first twenty.
    pub liar_share: Option<f64>,
    pub first_token_p50_ms: u64,
    pub first_token_p99_ms: u64,
    #[serde(skip)]
    slots: Vec<f64>,
    #[serde(skip)]
    liar: Option<usize>,
    #[serde(skip)]
    all: Vec<f64>,
    #[serde(skip)]
    wary: Vec<f64>,
    #[serde(skip)]
    stretch: Vec<f64>,
    #[serde(skip)]
    stretch_began_ms: u64,
    #[serde(skip)]
    first_tokens_ms: Vec<u64>,
}

impl Figures {
    pub fn new(providers: &[Provider]) -> Self {
        let none = vec![0.0; providers.len()];
        Self {
            slots: providers.iter().map(|provider| provider.slots() as f64).collect(),
            liar: providers.iter().position(Provider::lies),
            all: none.clone(),
            wary: none.clone(),
            stretch: none,
            ..Self::default()
        }
    }

    /// One attempt, the `asked`-th of its asker.
    pub fn count(&mut self, provider: usize, asked: u64, now_ms: u64) {
        if now_ms >= self.stretch_began_ms + STRETCH_MS {
            let share = self.honest_max(&self.stretch);
            self.share_max_200s = self.share_max_200s.max(share);
            self.stretch.fill(0.0);
            self.stretch_began_ms += STRETCH_MS;
        }
        self.attempts += 1;
        self.all[provider] += 1.0;
        self.stretch[provider] += 1.0;
        if asked > WARY_AFTER {
            self.wary[provider] += 1.0;
        }
    }

    pub fn first_token(&mut self, took_ms: u64) {
        self.first_tokens_ms.push(took_ms);
    }

    /// Nobody overrun by more than half, and no liar believed.
    pub fn is_good(&self) -> bool {
        self.share_max <= SHARE_MAX && self.liar_share.is_none_or(|share| share <= LIAR_SHARE_MAX)
    }

    /// Reckons what is made of the counts.
    pub fn finished(mut self) -> Self {
        self.share_max = self.honest_max(&self.all);
        self.liar_share = self.liar.map(|liar| self.share(&self.wary, liar));
        self.first_tokens_ms.sort_unstable();
        let at = |share: usize| self.first_tokens_ms.get(self.first_tokens_ms.len() * share / 100).copied().unwrap_or_default();
        (self.first_token_p50_ms, self.first_token_p99_ms) = (at(50), at(99));
        self
    }

    fn honest_max(&self, counts: &[f64]) -> f64 {
        let honest = (0..counts.len()).filter(|provider| Some(*provider) != self.liar);
        honest.map(|provider| self.share(counts, provider)).fold(0.0, f64::max)
    }

    fn share(&self, counts: &[f64], provider: usize) -> f64 {
        let fair = self.slots[provider] / self.slots.iter().sum::<f64>();
        counts[provider] / counts.iter().sum::<f64>().max(1.0) / fair
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "attempts          {}, {} found no room, {} requests refused", self.attempts, self.busy, self.refused)?;
        writeln!(f, "largest share     {:.2} x fair; {:.2} in the worst 200 s", self.share_max, self.share_max_200s)?;
        if let Some(share) = self.liar_share {
            writeln!(f, "liar              {share:.2} x fair, after each asker's first {WARY_AFTER} requests")?;
        }
        writeln!(f, "first token       {} / {} ms", self.first_token_p50_ms, self.first_token_p99_ms)
    }
}
