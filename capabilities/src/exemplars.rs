//! What each kind of capability is asked for: sets of example requests that live in every binary, named by id.
//!
//! A description says what a model *is*; people ask for what it *does*. Matched by description alone the right capability comes first in
//! 70 of 100 cases, with example requests of its kind in 74: less of a gain since the encoder is trained to bring both together. A node
//! that announces nothing but a name and a description inherits the examples of the kinds recognised from them. The sets are data
//! (`assets/routing/exemplars.toml`); where their texts lie in the built-in model's space is computed beforehand and checked by a test.

pub mod recognise;
pub mod vectors;

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use recognise::recognise;

static SOURCE: &str = include_str!("../assets/routing/exemplars.toml");
/// Descriptions of things with what is asked of them: their requests join the exemplars of the first kind each names.
static CORPUS: &str = include_str!("../assets/routing/corpus.txt");
static SETS: LazyLock<Vec<ExemplarSet>> = LazyLock::new(|| {
    let file: File = toml::from_str(SOURCE).expect("the exemplar file in the binary is well-formed: a test reads it");
    let mut sets = file.set;
    join_corpus(&mut sets);
    sets
});

fn join_corpus(sets: &mut [ExemplarSet]) {
    let mut kind: Option<usize> = None;
    for line in CORPUS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("= ") {
            Some(thing) => kind = thing.split_whitespace().next().and_then(|id| sets.iter().position(|set| set.id == id)),
            None => {
                if let Some(set) = kind.and_then(|place| sets.get_mut(place)) {
                    set.exemplars.push(line.to_owned());
                }
            }
        }
    }
}

/// Everything in the corpus that is described: its type, name and description.
pub(crate) fn described() -> impl Iterator<Item = &'static str> {
    CORPUS.lines().filter_map(|line| line.strip_prefix("= ")?.split_once('|')).map(|(_, described)| described)
}

static COVERED_BY: LazyLock<Vec<Vec<SetId>>> = LazyLock::new(|| {
    let broader = |set: &ExemplarSet| set.covered_by.iter().filter_map(|id| SetId::parse(id)).collect();
    SETS.iter().map(broader).collect()
});

#[derive(Deserialize)]
struct File {
    set: Vec<ExemplarSet>,
}

/// One set as the data file has it; the meaning of each field stands there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExemplarSet {
    pub id: String,
    pub title: String,
    pub needs: Needs,
    /// Whether only such requests belong there: a specialised model is never what an ordinary request falls back to.
    pub specialised: bool,
    #[serde(default)]
    pub covered_by: Vec<String>,
    pub kinds: Vec<String>,
    pub names: Vec<String>,
    pub words: Vec<String>,
    pub about: Vec<String>,
    pub exemplars: Vec<String>,
}

/// What must be at hand to answer a request of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    /// Words alone: any general language model can try.
    Text,
    /// Something that sees, hears, draws or speaks, or gives numbers instead of words.
    Modality,
    /// Documents, measurements or live information that a language model does not have.
    Data,
    /// Something that acts on the world.
    Device,
}

/// One set, by its position in the data file. Positions differ between versions: on the wire a set goes by its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(u16);

impl SetId {
    /// The set of models for anything.
    pub const GENERAL: &str = "general";

    /// The set of models that understand images.
    pub const VISION: &str = "vision";

    /// The set with this id, if this binary has it.
    pub fn parse(id: &str) -> Option<Self> {
        Self::all().find(|set| set.id() == id)
    }

    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..SETS.len() as u16).map(Self)
    }

    pub fn position(self) -> usize {
        usize::from(self.0)
    }

    pub fn set(self) -> &'static ExemplarSet {
        &SETS[self.position()]
    }

    pub fn id(self) -> &'static str {
        &self.set().id
    }

    /// What a person calls what it stands for: "image generation".
    pub fn title(self) -> &'static str {
        &self.set().title
    }

    /// Its example requests.
    pub fn texts(self) -> &'static [String] {
        &self.set().exemplars
    }

    /// What owners of such a thing say of it.
    pub fn about(self) -> &'static [String] {
        &self.set().about
    }

    pub fn needs(self) -> Needs {
        self.set().needs
    }

    /// Broader sets that take its requests while nobody offers it.
    pub fn covered_by(self) -> &'static [SetId] {
        &COVERED_BY[self.position()]
    }

    pub fn specialised(self) -> bool {
        self.set().specialised
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Exemplars of one set beyond which another one should be split off.
    const EXEMPLARS_MAX: usize = 200;

    #[test]
    fn every_set_is_complete_and_says_nothing_twice() {
        assert!(SetId::all().len() >= 100);
        let mut ids = BTreeSet::new();
        let mut texts = BTreeSet::new();
        for set in SetId::all() {
            assert!(ids.insert(set.id()), "{} stands there twice", set.id());
            assert!((12..=EXEMPLARS_MAX).contains(&set.texts().len()), "{} has {} exemplars", set.id(), set.texts().len());
            assert!(!set.title().is_empty() && !set.about().is_empty());
            assert_eq!(SetId::parse(set.id()), Some(set));
            assert_eq!(
                set.covered_by().len(),
                set.set().covered_by.len(),
                "{} is covered by a set that does not exist",
                set.id()
            );
            for text in set.texts() {
                assert!(texts.insert(text), "{text:?} stands there twice");
            }
        }
        assert!(SetId::parse(SetId::GENERAL).is_some_and(|general| !general.specialised()));
        assert_eq!(SetId::parse("no such set"), None);
    }
}
