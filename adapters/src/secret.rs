//! A text that must not be seen: never printed, wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// An API key.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Blanks and line ends around it are not part of it: keys come from files.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// For the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new(" sk-123\n");
        assert_eq!(secret.expose(), "sk-123");
        assert!(!format!("{secret:?}").contains("123"));
    }
}
