//! A model asked for by name: never a matter of meaning, so the embedder need not even be loaded.

use super::decision::{NAMES_MAX, Refusal};
use super::filter::is_node;
use crate::view::{Roster, Routable};

/// Positions of all entries that `name` means: a model's name, else `node/slug`, else a slug.
///
/// A model's name may belong to many entries, all equally meant. A pin or a slug that leaves open *which model* is meant is refused.
pub fn positions(roster: &Roster, name: &str) -> Result<Vec<u32>, Refusal> {
    let exact = roster.named(name);
    if !exact.is_empty() {
        return Ok(exact.to_vec());
    }
    if let Some((node, slug)) = name.rsplit_once('/') {
        let pinned = find(roster, |entry| entry.id.slug.as_str() == slug && is_node(entry, node));
        if !pinned.is_empty() {
            return one_node(roster, name, pinned);
        }
    }
    let with_slug = find(roster, |entry| entry.id.slug.as_str() == name);
    if with_slug.is_empty() { Err(unknown(roster, name)) } else { one_model(roster, name, with_slug) }
}

fn find(roster: &Roster, is_meant: impl Fn(&Routable) -> bool) -> Vec<u32> {
    (0u32..).zip(roster.entries()).filter(|(_, entry)| is_meant(entry)).map(|(position, _)| position).collect()
}

/// A pin means one capability of one node.
fn one_node(roster: &Roster, name: &str, meant: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    if meant.len() == 1 { Ok(meant) } else { Err(ambiguous(roster, name, &meant)) }
}

/// A slug means one model, on however many nodes.
fn one_model(roster: &Roster, name: &str, meant: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    let model = |position: &u32| &roster.entries()[*position as usize].capability.name;
    let same = meant.iter().all(|position| model(position) == model(&meant[0]));
    if same { Ok(meant) } else { Err(ambiguous(roster, name, &meant)) }
}

/// Candidates by the ids of their nodes, since their names do not tell them apart.
fn ambiguous(roster: &Roster, name: &str, meant: &[u32]) -> Refusal {
    let pin = |position: &u32| {
        let entry = &roster.entries()[*position as usize];
        format!("{}/{} ({} on {})", entry.id.node.short(), entry.id.slug, entry.capability.name, entry.node_name)
    };
    Refusal::Ambiguous { name: name.to_owned(), candidates: meant.iter().take(NAMES_MAX).map(pin).collect() }
}

fn unknown(roster: &Roster, name: &str) -> Refusal {
    let mut near: Vec<(usize, &str)> = roster.names().filter_map(|known| Some((nearness(name, known)?, known))).collect();
    near.sort_unstable();
    Refusal::NoSuchModel {
        name: name.to_owned(),
        near: near.into_iter().take(NAMES_MAX).map(|(_, known)| known.to_owned()).collect(),
    }
}

/// How many edits lie between two names; `None` where they are not alike. A part of the other is near.
fn nearness(asked: &str, known: &str) -> Option<usize> {
    /// Characters of a name that are compared.
    const CHARS_MAX: usize = 64;
    let [asked, known] = [asked, known].map(|name| name.chars().take(CHARS_MAX).flat_map(char::to_lowercase).collect::<String>());
    if asked.is_empty() {
        return None;
    }
    if known.contains(&asked) || asked.contains(&known) {
        return Some(0);
    }
    Some(edits(&asked, &known)).filter(|edits| *edits * 3 <= asked.chars().count())
}

/// Levenshtein distance, in one row.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_near() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert!(nearness("qwen2.5:7", "qwen2.5:7b").is_some());
        assert!(nearness("qwem2.5:7b", "qwen2.5:7b").is_some());
        assert!(nearness("llama", "whisper").is_none());
        assert!(nearness("", "whisper").is_none());
    }
}
