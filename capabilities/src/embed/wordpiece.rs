//! Text into the token ids that BERT models read: WordPiece (Wu et al. 2016) as `bert-base-uncased` has it.
//!
//! Lower case, accents folded, punctuation and CJK characters apart, then the longest known piece from the left. Any text gives ids; what
//! is unknown becomes `[UNK]`. Punctuation outside ASCII is told by ranges and not by the full Unicode tables.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// `[CLS]`, before every text.
const START: u32 = 101;
/// `[SEP]`, after every text.
const END: u32 = 102;
/// `[UNK]`
const UNKNOWN: u32 = 100;
/// Longer words are not taken apart: as in the model's own tokenizer.
const WORD_CHARS_MAX: usize = 100;
/// Characters of a text's end that are read for each token wanted of it: more than nearly any token has.
const CHARS_PER_TOKEN: usize = 12;

/// A vocabulary, ready to cut words.
#[derive(Debug)]
pub struct WordPiece {
    /// Pieces in order of their text, each with its id; those that continue a word without their `##`.
    starts: Vec<(&'static str, u32)>,
    continuations: Vec<(&'static str, u32)>,
}

impl WordPiece {
    /// Reads a vocabulary: one piece a line, its id is its line number.
    pub fn new(vocabulary: &'static str) -> Self {
        let (mut starts, mut continuations) = (Vec::new(), Vec::new());
        for (piece, id) in vocabulary.lines().zip(0..) {
            match piece.strip_prefix("##").filter(|rest| !rest.is_empty()) {
                Some(rest) => continuations.push((rest, id)),
                None => starts.push((piece, id)),
            }
        }
        starts.sort_unstable();
        continuations.sort_unstable();
        Self { starts, continuations }
    }

    /// The ids of `text` between `[CLS]` and `[SEP]`, at most `tokens_max` (at least 2) in all. Reads no further than it must.
    pub fn encode(&self, text: &str, tokens_max: usize) -> Vec<u32> {
        let mut ids = vec![START];
        let mut word = String::new();
        for c in text.chars().flat_map(clean).nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
            let alone = stands_alone(c);
            if c == ' ' || alone {
                self.cut(&word, &mut ids);
                word.clear();
            }
            if alone {
                self.cut(c.encode_utf8(&mut [0; 4]), &mut ids);
            } else if c != ' ' {
                word.push(c);
            }
            if ids.len() >= tokens_max {
                break;
            }
        }
        self.cut(&word, &mut ids);
        ids.truncate(tokens_max.saturating_sub(1));
        ids.push(END);
        ids
    }

    /// The ids of `text`, or of its two ends in equal parts where it has more than `tokens_max` (at least 4). Reads no more than it must.
    pub fn encode_ends(&self, text: &str, tokens_max: usize) -> Vec<u32> {
        let mut ids = self.encode(text, tokens_max + 1);
        if ids.len() <= tokens_max {
            return ids;
        }
        ids.truncate(tokens_max / 2);
        let wanted = tokens_max - ids.len();
        let start = text.char_indices().rev().nth(wanted * CHARS_PER_TOKEN).map_or(0, |(start, _)| start);
        let end = self.encode(&text[start..], wanted * CHARS_PER_TOKEN + 2);
        ids.extend(&end[end.len().saturating_sub(wanted).max(1)..]);
        ids
    }

    /// Cuts one word into the longest known pieces from the left; a word that cannot be cut is unknown as a whole.
    fn cut(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        while !rest.is_empty() {
            let known = if ids.len() == before { &self.starts } else { &self.continuations };
            let Some((piece, id)) = longest(known, rest).filter(|_| word.chars().count() <= WORD_CHARS_MAX) else {
                ids.truncate(before);
                ids.push(UNKNOWN);
                return;
            };
            ids.push(id);
            rest = &rest[piece.len()..];
        }
    }
}

/// The longest piece that `text` starts with.
fn longest(known: &[(&'static str, u32)], text: &str) -> Option<(&'static str, u32)> {
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    let ends: Vec<usize> = ends.take(WORD_CHARS_MAX).collect();
    let find = |end: &usize| known.binary_search_by(|(piece, _)| piece.cmp(&&text[..*end])).ok();
    ends.iter().rev().find_map(find).map(|place| known[place])
}

/// Controls vanish, all white space is a space.
fn clean(c: char) -> Option<char> {
    match c {
        c if c.is_whitespace() => Some(' '),
        '\u{ad}' | '\u{fffd}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => None,
        c if c.is_control() => None,
        c => Some(c),
    }
}

/// Punctuation and CJK characters are words of their own.
fn stands_alone(c: char) -> bool {
    c.is_ascii_punctuation() || is_wide_punctuation(c) || is_ideograph(c)
}

fn is_wide_punctuation(c: char) -> bool {
    matches!(c,
        '\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}' | '\u{37e}' | '\u{387}'
        | '\u{55a}'..='\u{55f}' | '\u{589}' | '\u{58a}' | '\u{5be}' | '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{66a}'..='\u{66d}' | '\u{6d4}'
        | '\u{964}' | '\u{965}' | '\u{e4f}' | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{2043}' | '\u{2045}'..='\u{2051}' | '\u{2053}'..='\u{205e}'
        | '\u{2308}'..='\u{230b}' | '\u{2768}'..='\u{2775}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{30fb}'
        | '\u{ff01}'..='\u{ff03}' | '\u{ff05}'..='\u{ff0a}' | '\u{ff0c}'..='\u{ff0f}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}' | '\u{ff20}'
        | '\u{ff3b}'..='\u{ff3d}' | '\u{ff3f}' | '\u{ff5b}' | '\u{ff5d}' | '\u{ff5f}'..='\u{ff65}')
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2ceaf}' | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vocabulary() -> WordPiece {
        WordPiece::new(include_str!("../../assets/embedder/vocab.txt"))
    }

    proptest! {
        #[test]
        fn any_text_gives_ids_within_the_bound(text in any::<String>(), tokens_max in 2usize..40) {
            thread_local!(static VOCABULARY: WordPiece = vocabulary());
            let ids = VOCABULARY.with(|vocabulary| vocabulary.encode(&text, tokens_max));
            prop_assert!((2..=tokens_max).contains(&ids.len()));
            prop_assert!(ids[0] == START && ids.last() == Some(&END) && ids.iter().all(|id| *id < 30_522));
            let ends = VOCABULARY.with(|vocabulary| vocabulary.encode_ends(&text, tokens_max.max(4)));
            prop_assert!((2..=tokens_max.max(4)).contains(&ends.len()));
            prop_assert!(ends[0] == START && ends.last() == Some(&END));
        }
    }

    #[test]
    fn of_a_long_text_both_ends_are_read() {
        let vocabulary = vocabulary();
        let long = format!("translate this {} into french", "and so on ".repeat(10_000));
        let ids = vocabulary.encode_ends(&long, 16);
        assert_eq!(ids.len(), 16);
        assert_eq!(ids[..3], vocabulary.encode("translate this", 9)[..3]);
        assert_eq!(ids[13..], vocabulary.encode("into french", 9)[1..]);
        assert_eq!(vocabulary.encode_ends("short", 16), vocabulary.encode("short", 16));
    }

    /// Ids that the model's published tokenizer gives.
    #[test]
    fn ids_are_those_of_the_published_tokenizer() {
        let vocabulary = vocabulary();
        let golden: [(&str, &[u32]); 11] = [
            ("This is an example sentence", &[101, 2023, 2003, 2019, 2742, 6251, 102]),
            (
                "Translate “Grüße, naïve café” to French!",
                &[101, 17637, 1523, 24665, 2226, 17499, 1010, 15743, 7668, 1524, 2000, 2413, 999, 102],
            ),
            (
                "def fibonacci(n): return n if n<2 else fibonacci(n-1)",
                &[
                    101, 13366, 10882, 11735, 6305, 6895, 1006, 1050, 1007, 1024, 2709, 1050, 2065, 1050, 1026, 1016, 2842,
                    10882, 11735, 6305, 6895, 1006, 1050, 1011, 1015, 1007, 102,
                ],
            ),
            ("日本語のテキスト 12.5%", &[101, 1864, 1876, 1950, 1671, 30239, 30227, 30233, 30240, 2260, 1012, 1019, 1003, 102]),
            (
                "Ẁhat’s antidisestablishmentarianism?",
                &[101, 2054, 1521, 1055, 3424, 10521, 4355, 7875, 13602, 3672, 12199, 2964, 1029, 102],
            ),
            ("tab\tnew\nline \u{0}x\u{200b}y", &[101, 21628, 2047, 2240, 1060, 2100, 102]),
            ("Привет, мир", &[101, 1194, 16856, 10325, 25529, 15290, 22919, 1010, 1191, 10325, 16856, 102]),
            ("", &[101, 102]),
            ("emoji 🙂 ok", &[101, 7861, 29147, 2072, 100, 7929, 102]),
            ("한국어", &[101, 1469, 30006, 30021, 29991, 30014, 30020, 29999, 30008, 102]),
            ("Ελληνικά άέ", &[101, 1159, 29727, 29727, 24824, 16177, 18199, 29726, 14608, 1155, 29723, 102]),
        ];
        for (text, ids) in golden {
            assert_eq!(vocabulary.encode(text, 256), ids, "{text:?}");
        }
    }

    #[test]
    fn a_word_longer_than_the_model_ever_saw_is_unknown() {
        assert_eq!(vocabulary().encode(&"a".repeat(101), 16), [START, UNKNOWN, END]);
        assert_eq!(vocabulary().encode(&"z".repeat(1 << 20), 16), [START, UNKNOWN, END]);
    }
}
