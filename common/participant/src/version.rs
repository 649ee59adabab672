//! Optimistic concurrency control: a row's version, and who waits on it.
//!
//! Invariants:
//! - Of two undecided branches, one never changes what the other has checked.

use std::fmt::Display;

use crate::Refusal;

/// A row that carries a version.
#[derive(Debug, Clone, Copy)]
pub struct RowVersion<'a> {
    /// As messages name it, such as `SKU 'apple'`.
    pub what: &'a str,
    /// Raised by every commit that changes the row.
    pub version: u64,
    /// Whether an undecided branch would change it.
    pub is_changing: bool,
    /// How many undecided branches have checked its version.
    pub checks: i64,
}

impl RowVersion<'_> {
    /// A branch has read `expected` and relies on it until it is decided.
    ///
    /// # Errors
    ///
    /// `VERSION_CHANGED` or `VERSION_HELD`.
    pub fn check(&self, field: impl Display, expected: u64) -> Result<(), Refusal> {
        let Self { what, version, .. } = self;
        if *version != expected {
            let message = format!("{field} is {expected}, but {what} has version {version}");
            return Err(Refusal::new("VERSION_CHANGED", message));
        }
        if self.is_changing {
            let message =
                format!("{field}: {what} would be changed by a branch that is not decided yet");
            return Err(Refusal::new("VERSION_HELD", message));
        }
        Ok(())
    }

    /// Somebody wants to change the row.
    ///
    /// # Errors
    ///
    /// `VERSION_HELD` if a branch relies on its version.
    pub fn change(&self) -> Result<(), Refusal> {
        if self.checks == 0 {
            return Ok(());
        }
        let message = format!(
            "{} may not change: a branch that is not decided yet has checked version {}",
            self.what, self.version
        );
        Err(Refusal::new("VERSION_HELD", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: RowVersion<'static> =
        RowVersion { what: "SKU 'apple'", version: 7, is_changing: false, checks: 0 };

    fn refused(checked: Result<(), Refusal>) -> (&'static str, String) {
        let refusal = checked.unwrap_err();
        (refusal.code, refusal.message)
    }

    #[test]
    fn a_version_is_held_against_the_rows_and_against_who_changes_it() {
        ROW.check("version", 7).unwrap();
        let (code, message) = refused(ROW.check("version", 6));
        let expected = "version is 6, but SKU 'apple' has version 7";
        assert_eq!((code, message.as_str()), ("VERSION_CHANGED", expected));
        let changing = RowVersion { is_changing: true, ..ROW };
        assert_eq!(refused(changing.check("version", 7)).0, "VERSION_HELD");
        assert_eq!(refused(changing.check("version", 6)).0, "VERSION_CHANGED");
    }

    #[test]
    fn a_row_whose_version_was_checked_stays_as_it_is() {
        ROW.change().unwrap();
        let (code, message) = refused(RowVersion { checks: 1, ..ROW }.change());
        assert_eq!(code, "VERSION_HELD");
        assert!(message.starts_with("SKU 'apple' may not change"), "{message}");
        assert!(message.ends_with("has checked version 7"), "{message}");
    }
}
