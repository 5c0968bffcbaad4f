//! What a member may do, as a set.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A set of roles. Bits that this version has no name for are kept: they count when an issuer's roles are compared with what it grants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Roles(u16);

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role; the roles are consume, provide, issue and admin, separated by commas")]
pub struct UnknownRole(pub String);

const NAMES: [(Roles, &str); 4] =
    [(Roles::CONSUME, "consume"), (Roles::PROVIDE, "provide"), (Roles::ISSUE, "issue"), (Roles::ADMIN, "admin")];

impl Roles {
    /// May do nothing.
    pub const NONE: Self = Self(0);
    /// May use the capabilities of others.
    pub const CONSUME: Self = Self(1);
    /// May offer capabilities.
    pub const PROVIDE: Self = Self(1 << 1);
    /// May admit others.
    pub const ISSUE: Self = Self(1 << 2);
    /// May revoke and set policy.
    pub const ADMIN: Self = Self(1 << 3);
    /// What an invitation grants unless it says otherwise.
    pub const MEMBER: Self = Self(Self::CONSUME.0 | Self::PROVIDE.0);
    /// Every role that has a name.
    pub const ALL: Self = Self(Self::MEMBER.0 | Self::ISSUE.0 | Self::ADMIN.0);

    /// Whether every role in `other` is here too.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The roles that are in both.
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Roles {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, name) in NAMES.iter().filter(|(role, _)| self.contains(*role)) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self}, {:#06x})", self.0)
    }
}

impl FromStr for Roles {
    type Err = UnknownRole;

    /// `consume,provide`, in any order and case, spaces allowed.
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let mut roles = Self::NONE;
        for word in text.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            let named = NAMES.iter().find(|(_, name)| *name == word);
            roles = roles | named.ok_or(UnknownRole(word))?.0;
        }
        Ok(roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_written_as_they_are_read() {
        for roles in [Roles::MEMBER, Roles::ALL, Roles::ISSUE | Roles::CONSUME] {
            assert_eq!(roles.to_string().parse(), Ok(roles));
        }
        assert_eq!(Roles::MEMBER.to_string(), "consume,provide");
        assert_eq!(" Provide , consume".parse(), Ok(Roles::MEMBER));
        assert_eq!("consume,root".parse::<Roles>(), Err(UnknownRole("root".to_owned())));
        assert!("".parse::<Roles>().is_err());
    }

    #[test]
    fn a_role_without_a_name_still_counts() {
        let newer = Roles(Roles::CONSUME.0 | 1 << 9);
        assert!(!Roles::ALL.contains(newer));
        assert!(newer.contains(Roles::CONSUME));
    }
}
