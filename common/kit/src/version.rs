//! Optimistic concurrency control: a row's version, and who waits on it.
//!
//! Invariants:
//! - Of two undecided branches, one never changes what the other has checked.

use std::fmt::Display;

use crate::Refusal;

/// A row that carries a version.
#[derive(Debug, Clone, Copy)]
pub struct Versioned<'a> {
    /// For people, such as `SKU 'apple'`.
    pub what: &'a str,
    /// Raised by every commit that changes the row.
    pub version: u64,
    /// Whether an undecided branch would change it.
    pub is_changing: bool,
    /// How many undecided branches have checked its version.
    pub checks: i64,
}

impl Versioned<'_> {
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
