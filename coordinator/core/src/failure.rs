//! Why an attempt came to nothing.

use alloc::{string::String, sync::Arc};

/// Characters of a failure's text that are kept.
const MAX_TEXT: usize = 240;

/// What ended an attempt, where that was no answer of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The participant answered, with something that says nothing about the branch. It
    /// can be reached: the wait before the next attempt outlasts a new link.
    pub answered: bool,
    /// In words, as a person reads them.
    pub what: Arc<str>,
}

impl Failure {
    /// The participant answered with an error.
    pub fn answered(what: &str) -> Self {
        Self { answered: true, what: brief(what) }
    }

    /// Nobody answered, or the message was never handed over.
    pub fn lost(what: &str) -> Self {
        Self { answered: false, what: brief(what) }
    }
}

/// As much of a text as is kept, on one line.
pub(crate) fn brief(text: &str) -> Arc<str> {
    let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = one_line.take(MAX_TEXT).collect();
    text.trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_failure_is_short_and_on_one_line() {
        let failure = Failure::answered(&"a\n".repeat(1000));
        assert_eq!(failure.what.chars().count(), MAX_TEXT - 1);
        assert!(!failure.what.contains('\n'));
    }
}
