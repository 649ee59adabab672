//! The network: whatever was ever sent may arrive now, once more, or never.
//! Loss, duplication and reordering are without bound.

use std::fmt;

/// A transaction, by the number of its run at the coordinator.
pub type Id = u8;

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// Its participant, whichever way it goes.
    pub participant: u8,
    /// Its transaction.
    pub id: Id,
    /// What it says.
    pub content: Content,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// To the participant.
    Request {
        /// The coordinator's run.
        epoch: u8,
        /// What it asks for.
        request: Request,
    },
    /// To the coordinator.
    Answer {
        /// The journal that says it.
        journal: u8,
        /// What it says.
        answer: Answer,
    },
}

/// From the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// Promise, or in one phase: commit.
    Prepare {
        /// Commit at once.
        one_phase: bool,
        /// What it is to do.
        payload: u8,
    },
    /// Commit.
    Commit {
        /// The decision's number.
        number: u8,
    },
    /// Roll back.
    Rollback {
        /// The decision's number.
        number: u8,
    },
    /// The decision was compensated: undo it even if it is committed.
    Compensate {
        /// The decision's number: 2, or 3 where an operator resolved it since.
        number: u8,
    },
    /// An operator, in place of a coordinator that cannot be asked.
    Resolve {
        /// To commit; else to roll back.
        commit: bool,
    },
    /// To a question: it was committed.
    AnsweredCommitted {
        /// The decision's number.
        number: u8,
    },
    /// To a question: it was aborted.
    AnsweredAborted {
        /// The decision's number.
        number: u8,
    },
    /// To a question: the coordinator does not know the run that prepared it.
    AnsweredNotMine,
    /// To a question, by another coordinator than the branch's: this was decided.
    ToldByAnother {
        /// To commit; else to abort.
        commit: bool,
    },
    /// The participant's own next attempt at a decision: never on the network.
    Retry {
        /// To commit; else to roll back.
        commit: bool,
        /// The decision's number.
        number: u8,
    },
}

/// From a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// A durable promise.
    Yes {
        /// What was promised.
        payload: u8,
        /// In one phase: done.
        committed: bool,
    },
    /// A vote to abort.
    No,
    /// Nothing changed.
    ReadOnly,
    /// The branch is committed.
    Committed {
        /// Of the decision that is answered.
        number: u8,
    },
    /// The branch is rolled back.
    RolledBack {
        /// Of the decision that is answered.
        number: u8,
    },
    /// The branch is unknown.
    Unknown {
        /// Of the decision that is answered.
        number: u8,
    },
}

/// All messages that were ever sent, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Network(Vec<Message>);

impl Network {
    /// Sends a message.
    pub(crate) fn send(&mut self, message: Message) {
        if let Err(place) = self.0.binary_search(&message) {
            self.0.insert(place, message);
        }
    }

    /// The coordinator's run is over, and with it the connections on which its
    /// answers were to come.
    pub(crate) fn cut_answers(&mut self) {
        self.0.retain(|message| matches!(message.content, Content::Request { .. }));
    }

    /// Drops what a participant would refuse from now on, because it comes from
    /// a run before `seen`. That one phase was asked for is what properties look for.
    pub(crate) fn drop_stale(&mut self, participant: usize, seen: u8) {
        let one_phase = |request| matches!(request, Request::Prepare { one_phase: true, .. });
        self.0.retain(|message| match message.content {
            Content::Request { epoch, request, .. } => {
                usize::from(message.participant) != participant
                    || epoch >= seen
                    || one_phase(request)
            }
            Content::Answer { .. } => true,
        });
    }

    /// All that was sent.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.0.iter()
    }
}

impl Request {
    /// Whether it tells of the decision to commit.
    pub fn tells_commit(self) -> bool {
        matches!(
            self,
            Self::Commit { .. }
                | Self::AnsweredCommitted { .. }
                | Self::Retry { commit: true, .. }
                | Self::Resolve { commit: true }
        )
    }

    /// Whether it tells of the decision to abort.
    pub fn tells_abort(self) -> bool {
        matches!(
            self,
            Self::Rollback { .. }
                | Self::Compensate { .. }
                | Self::AnsweredAborted { .. }
                | Self::Retry { commit: false, .. }
                | Self::Resolve { commit: false }
        )
    }
}

impl Answer {
    /// Whether it answers a decision.
    pub fn acknowledges(self) -> bool {
        matches!(self, Self::Committed { .. } | Self::RolledBack { .. } | Self::Unknown { .. })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare { one_phase: false, payload: 0 } => write!(f, "prepare"),
            Self::Prepare { one_phase: true, .. } => write!(f, "prepare, in one phase"),
            Self::Prepare { payload, .. } => write!(f, "prepare of payload {payload}"),
            Self::Commit { number } => write!(f, "commit #{number}"),
            Self::Rollback { number } => write!(f, "rollback #{number}"),
            Self::Compensate { number } => write!(f, "rollback #{number}, committed or not"),
            Self::Resolve { commit: true } => write!(f, "an operator's commit"),
            Self::Resolve { commit: false } => write!(f, "an operator's rollback"),
            Self::AnsweredCommitted { number } => write!(f, "the answer 'committed' #{number}"),
            Self::AnsweredAborted { number } => write!(f, "the answer 'aborted' #{number}"),
            Self::AnsweredNotMine => write!(f, "the answer 'not mine'"),
            Self::ToldByAnother { commit: true } => write!(f, "another's answer 'committed'"),
            Self::ToldByAnother { commit: false } => write!(f, "another's answer 'aborted'"),
            Self::Retry { number, .. } => write!(f, "decision #{number}, tried again"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes { committed: true, .. } => write!(f, "the vote 'commit', committed"),
            Self::Yes { .. } => write!(f, "the vote 'commit'"),
            Self::No => write!(f, "the vote 'abort'"),
            Self::ReadOnly => write!(f, "the vote 'read-only'"),
            Self::Committed { number } => write!(f, "'committed' #{number}"),
            Self::RolledBack { number } => write!(f, "'rolled back' #{number}"),
            Self::Unknown { number } => write!(f, "'unknown' #{number}"),
        }
    }
}
