//! Which conversation a request belongs to, so that its next turn finds the prefix that some engine has computed already.

/// A conversation by its head: everything up to its first user message, which all of its turns begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Hash of the head.
    pub head: u64,
    /// Whether something was said after the head; a first turn has no prefix that anybody computed for it.
    pub continued: bool,
}

impl Conversation {
    /// Of the messages of a chat as (role, text), in order; `None` where no user says anything.
    pub fn of<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut messages = messages.into_iter();
        for (role, text) in messages.by_ref() {
            for part in [role, text] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            if role == "user" {
                let (head, _) = hasher.finalize().as_bytes().split_first_chunk().map(|(head, rest)| (*head, rest.len()))?;
                return Some(Self { head: u64::from_le_bytes(head), continued: messages.next().is_some() });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_one_conversation_share_their_head_and_others_do_not() {
        let first = [("system", "be brief"), ("user", "hello")];
        let second = [first[0], first[1], ("assistant", "hi"), ("user", "and now?")];
        let (one, two) = (Conversation::of(first).unwrap(), Conversation::of(second).unwrap());
        assert!(one.head == two.head && !one.continued && two.continued);
        assert_ne!(Conversation::of([("system", "be"), ("user", "brief hello")]).unwrap().head, one.head);
        assert_eq!(Conversation::of([("system", "be brief")]), None);
    }
}
