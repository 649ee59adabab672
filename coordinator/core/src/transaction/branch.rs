//! A branch, as its transaction keeps it.

use alloc::{format, string::String, sync::Arc};

use dtc_protocol::JournalId;

use crate::{BranchState, Opaque, ParticipantId, Reason, Time};

#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) participant: ParticipantId,
    pub(super) payload: Opaque,
    /// The payload's length when it came; the payload itself is dropped at the decision.
    pub(super) bytes: usize,
    pub(super) state: BranchState,
    /// The journal that voted, or was asked to commit in one phase.
    pub(super) journal: Option<JournalId>,
    pub(super) output: Option<Opaque>,
    pub(super) refusal: Option<Arc<Reason>>,
    /// Whether its participant asks when in doubt; known once prepare starts.
    pub(super) supports_inquiry: bool,
    /// What was decided of it by an operator, durably.
    pub(super) resolved: Option<bool>,
    /// Its participant is still to be notified of that, and nobody waits for it.
    pub(super) notify: bool,
    /// An operator says that it never will be.
    pub(super) abandoned: bool,
    /// Its participant can commit in one call.
    pub(super) one_phase: bool,
    /// Whether a prepare may have reached its participant.
    pub(super) sent: bool,
    /// Attempts of the message that is owed.
    pub(super) attempts: u32,
    pub(super) attempt: Attempt,
    /// The number of the newest attempt, counted over all messages of this run.
    pub(super) made: u32,
    /// Attempts of the message that were cut off by their time-out.
    pub(super) cut: u32,
    /// The newest attempt was answered with an error.
    pub(super) answered: bool,
    /// What was heard last of attempts that came to nothing.
    pub(super) heard: Option<Arc<str>>,
}

/// Where the branch is between two attempts of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Nothing is owed.
    None,
    /// Sent; it ends then.
    Running(Time),
    /// The next one begins then.
    Waiting(Time),
}

impl Attempt {
    pub(super) fn due(self) -> Option<Time> {
        match self {
            Self::None => None,
            Self::Running(at) | Self::Waiting(at) => Some(at),
        }
    }
}

impl Branch {
    pub(super) fn new(participant: ParticipantId, payload: Opaque) -> Self {
        Self {
            participant,
            bytes: payload.len(),
            payload,
            state: BranchState::Enlisted,
            journal: None,
            output: None,
            refusal: None,
            supports_inquiry: false,
            resolved: None,
            notify: false,
            abandoned: false,
            one_phase: false,
            sent: false,
            attempts: 0,
            attempt: Attempt::None,
            made: 0,
            cut: 0,
            answered: false,
            heard: None,
        }
    }

    /// Attempts so far; one with a longer time-out counts for as many of the first.
    pub(super) fn tries(&self) -> u32 {
        let longer = (1_u32 << self.cut.min(16)) - 1 - self.cut.min(16);
        self.attempts.saturating_add(longer)
    }

    /// What was heard last of the attempts that came to nothing.
    pub(super) fn heard(&self, away: Option<&str>) -> String {
        match self.heard.as_deref().or(away) {
            Some(what) => format!("; last answer: {what}"),
            None => "; nothing was heard".into(),
        }
    }

    /// Enters a state in which a message is owed, or none.
    pub(super) fn become_state(&mut self, state: BranchState) {
        self.state = state;
        self.attempts = 0;
        self.cut = 0;
        self.attempt = Attempt::None;
    }

    /// Reaches a state in which nothing is owed; its attempts stay on show.
    pub(super) fn finish(&mut self, state: BranchState) {
        self.state = state;
        self.attempt = Attempt::None;
        self.notify = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_with_a_longer_timeout_counts_for_as_many_of_the_first() {
        // Attempts of one, two and four times the time, that were cut off, and two others.
        let tried =
            Branch { attempts: 5, cut: 3, ..Branch::new(ParticipantId(0), Opaque::default()) };
        assert_eq!(tried.tries(), 1 + 2 + 4 + 2);
    }
}
