//! What a client is shown is never more than is durable.

use dtc_core::{Outcome, View};

use crate::environment::Environment;

impl Environment {
    pub(crate) fn check_shown(&self, view: &View) {
        let durable = self.journal.commits(view.id);
        match view.outcome {
            Outcome::Committed => assert_eq!(durable, Some(true), "shown, not durable"),
            Outcome::Aborted if view.key.is_some() => {
                assert_eq!(durable, Some(false), "a key's abort was shown, not durable");
            }
            Outcome::Aborted => assert_ne!(durable, Some(true), "shown a lie"),
            _ => {}
        }
        if view.committed {
            assert_eq!(durable, Some(true), "the flag is set, nothing is durable");
        }
    }
}
