//! The words that a request shares with what a capability says of itself: names, places and terms of art, which vectors blur.
//!
//! A word counts by its first letters, so that "printing" meets "printer", and by how rare it is among the descriptions in this binary. The
//! overlap is a cosine: who lists many words has little of each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use crate::exemplars::{self, SetId};

/// Letters by which a word is known.
const LETTERS: usize = 5;
/// Different words of a text that are read; a description has far fewer.
const WORDS_MAX: usize = 400;
/// Words that say nothing of what is wanted.
const EMPTY: [&str; 44] = [
    "a", "an", "the", "of", "and", "or", "to", "in", "on", "for", "with", "from", "is", "are", "was", "be", "it", "its", "this",
    "that", "by", "at", "as", "into", "i", "my", "me", "we", "our", "you", "your", "can", "do", "does", "what", "which", "how",
    "who", "please", "would", "could", "will", "have", "has",
];

/// How many of the descriptions in this binary have a word, and how many descriptions there are.
static SEEN: LazyLock<(HashMap<u64, f32>, f32)> = LazyLock::new(|| {
    let mut seen = HashMap::new();
    let kinds = SetId::all().map(|set| set.about().join(" "));
    let told: Vec<String> = exemplars::described().map(str::to_owned).chain(kinds).collect();
    for text in &told {
        words(text).into_iter().for_each(|word| *seen.entry(word).or_default() += 1.0);
    }
    (seen, told.len() as f32)
});

/// The words of everything in this binary that is described or asked for.
static KNOWN: LazyLock<HashSet<u64>> = LazyLock::new(|| {
    let of_set = |set: SetId| set.about().iter().chain(set.texts()).map(String::as_str);
    let texts = SetId::all().flat_map(of_set).chain(exemplars::described());
    texts.flat_map(words).chain(EMPTY.iter().map(|word| hashed(word))).collect()
});

/// Different words with their weights: a unit vector, or nothing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Words(Box<[(u64, f32)]>);

impl Words {
    pub fn of(text: &str) -> Self {
        let (seen, told) = &*SEEN;
        let rarity = |word: &u64| ((told + 1.0) / (seen.get(word).copied().unwrap_or_default() + 1.0)).ln();
        let mut weighed: Vec<(u64, f32)> = words(text).into_iter().map(|word| (word, rarity(&word))).collect();
        let length = weighed.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt().max(f32::EPSILON);
        weighed.iter_mut().for_each(|(_, weight)| *weight /= length);
        Self(weighed.into())
    }
}

/// Which bodies have a word.
#[derive(Debug, Clone, Default)]
pub struct WordIndex {
    bodies: usize,
    /// For each word, the bodies with the weight it has there.
    having: BTreeMap<u64, Vec<(u32, f32)>>,
}

impl WordIndex {
    /// Adds bodies behind the others.
    pub fn extend<'a>(&mut self, bodies: impl Iterator<Item = &'a Words>) {
        for words in bodies {
            for (word, weight) in &words.0 {
                self.having.entry(*word).or_default().push((self.bodies as u32, *weight));
            }
            self.bodies += 1;
        }
    }

    /// The share of the words of `text` that are known: in this binary, or from what a body says of itself. Of what has no words nothing is
    /// known. Where vectors say something of what is not understood, it is chance.
    pub fn known(&self, text: &str) -> f32 {
        let (mut known, mut total) = (0, 0);
        for word in spelled(&text.to_lowercase()).take(WORDS_MAX).map(hashed) {
            total += 1;
            known += u32::from(KNOWN.contains(&word) || self.having.contains_key(&word));
        }
        if total == 0 { 0.0 } else { known as f32 / total as f32 }
    }

    /// For each body in order, how much of `asked` it says, from 0 to 1.
    pub fn overlaps(&self, asked: &Words) -> Vec<f32> {
        let mut overlaps = vec![0.0; self.bodies];
        for (word, weight) in &asked.0 {
            for (body, theirs) in self.having.get(word).into_iter().flatten() {
                overlaps[*body as usize] += weight * theirs;
            }
        }
        overlaps
    }
}

/// The different words of a text, as hashes in order.
fn words(text: &str) -> Vec<u64> {
    let lower = text.to_lowercase();
    let telling = spelled(&lower).filter(|word| !EMPTY.contains(word));
    let mut words: Vec<u64> = telling.take(WORDS_MAX).map(hashed).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// The words of a text, in lower case, that have more than one letter.
fn spelled(lower: &str) -> impl Iterator<Item = &str> {
    lower.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().nth(1).is_some())
}

/// FNV-1a of the first letters.
fn hashed(word: &str) -> u64 {
    let end = word.char_indices().nth(LETTERS).map_or(word.len(), |(end, _)| end);
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    word.as_bytes()[..end].iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(asked: &str, told: &str) -> f32 {
        let mut index = WordIndex::default();
        index.extend([Words::of(told)].iter());
        index.overlaps(&Words::of(asked))[0]
    }

    proptest! {
        #[test]
        fn any_two_texts_overlap_by_a_share(asked in any::<String>(), told in any::<String>()) {
            prop_assert!((-1e-4..=1.0001).contains(&overlap(&asked, &told)));
        }
    }

    #[test]
    fn what_people_ask_for_is_known_and_what_a_cat_types_is_not() {
        let mut index = WordIndex::default();
        for text in ["what is it", "Write a poem about the sea", "fix this bug", "slow"] {
            assert_eq!(index.known(text), 1.0, "{text}");
        }
        for text in ["asdf qwer", "zzzz", "...", "", "1"] {
            assert_eq!(index.known(text), 0.0, "{text}");
        }
        index.extend([Words::of("the Qwertz 3000 printer")].iter());
        assert_eq!(index.known("qwertz"), 1.0, "somebody is called that");
    }

    #[test]
    fn rare_words_in_common_count_whatever_their_ending() {
        assert!(overlap("is my print done", "Octoprint 3D printer") > 0.2);
        assert!((overlap("the same", "the same") - 1.0).abs() < 1e-5);
        assert_eq!(overlap("of the", "of the"), 0.0);
        assert!(overlap("metformin", "metformin") > overlap("metformin", "metformin and everything else there is to say"));
    }
}
