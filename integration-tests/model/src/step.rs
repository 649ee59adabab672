//! What may happen next.

use std::fmt;

use crate::{
    network::{Content, Id, Message},
    participant::Vote,
};

/// One step of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The client sends its request, or sends it again.
    Begin,
    /// Interactive: another branch.
    Enlist,
    /// Interactive: the call of the branch of this number once more.
    EnlistAgain(u8),
    /// Interactive: collect the votes.
    AskPrepare,
    /// Interactive: commit.
    AskCommit,
    /// Interactive: roll back.
    AskRollback,
    /// The journal has looked up a run's request key.
    AnswerLookup(Id),
    /// The coordinator's oldest record becomes durable.
    Sync,
    /// The coordinator is killed and starts again.
    Crash {
        /// Records that had reached the disk, and were not reported.
        survivors: u8,
    },
    /// A deadline comes.
    Deadline,
    /// Everything that was set is due.
    EverythingDue,
    /// An attempt ends without an answer.
    Unreachable {
        /// Of whom.
        participant: u8,
        /// In which transaction.
        id: Id,
    },
    /// An operator resolves a branch.
    Resolve {
        /// At whom.
        participant: u8,
        /// Of which transaction.
        id: Id,
        /// True to commit.
        commit: bool,
    },
    /// A participant is linked, or the wait for its next attempt is over.
    Connect(u8),
    /// A link breaks.
    Disconnect(u8),
    /// A participant asks about a branch that it is in doubt about.
    Ask {
        /// The participant's index.
        participant: u8,
        /// About which transaction.
        id: Id,
    },
    /// A message arrives.
    Deliver {
        /// The message.
        message: Message,
        /// What the domain says, where it is asked.
        vote: Vote,
    },
    /// A participant tries again what its domain could not do.
    RetryPending {
        /// The participant's index.
        participant: u8,
        /// Of which transaction.
        id: Id,
        /// Whether the domain can now.
        vote: Vote,
    },
    /// What a participant wrote becomes durable.
    SyncParticipant(u8),
    /// A participant is killed and starts again.
    CrashParticipant(u8),
    /// A participant starts again with an empty disk.
    LoseDisk(u8),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => write!(f, "the client sends its request"),
            Self::Enlist => write!(f, "the client enlists the next branch"),
            Self::EnlistAgain(number) => write!(f, "the client enlists branch {number} again"),
            Self::AskPrepare => write!(f, "the client asks for the votes"),
            Self::AskCommit => write!(f, "the client asks to commit"),
            Self::AskRollback => write!(f, "the client asks to roll back"),
            Self::AnswerLookup(run) => write!(f, "the journal looks up the key of run {run}"),
            Self::Sync => write!(f, "the coordinator's oldest record becomes durable"),
            Self::Crash { survivors: 0 } => write!(f, "the coordinator crashes and recovers"),
            Self::Crash { survivors } => write!(
                f,
                "the coordinator crashes, {survivors} unreported records on disk, and recovers"
            ),
            Self::Deadline => write!(f, "a deadline comes"),
            Self::EverythingDue => write!(f, "all timers are due"),
            Self::Unreachable { participant, id } => {
                write!(f, "an attempt at P{participant} for transaction {id} ends unanswered")
            }
            Self::Resolve { participant, id, commit } => {
                let what = if *commit { "commit" } else { "rollback" };
                write!(f, "the {what} of {id} at P{participant} is forced")
            }
            Self::Connect(participant) => write!(f, "P{participant} is reached (again)"),
            Self::Disconnect(participant) => write!(f, "the link to P{participant} breaks"),
            Self::Ask { participant, id } => write!(f, "P{participant}, in doubt, asks about {id}"),
            Self::Deliver { message, vote } => {
                let Message { participant, id, content } = message;
                match content {
                    Content::Request { epoch, request } => {
                        write!(f, "P{participant} gets {request} for {id} from run {epoch}")?;
                        match vote {
                            Vote::Yes => Ok(()),
                            Vote::Plain => write!(f, " and knows no one phase"),
                            Vote::No => write!(f, " and refuses"),
                            Vote::Traceless => write!(f, " and has no room"),
                            Vote::ReadOnly => write!(f, " and has nothing to change"),
                            Vote::Fails => write!(f, " and cannot do it now"),
                        }
                    }
                    Content::Answer { answer, .. } => {
                        write!(f, "the coordinator gets {answer} for {id} from P{participant}")
                    }
                }
            }
            Self::RetryPending { participant, id, vote } => {
                let fails = if *vote == Vote::Fails { ", in vain" } else { "" };
                write!(f, "P{participant} tries again what was decided of {id}{fails}")
            }
            Self::SyncParticipant(participant) => {
                write!(f, "what P{participant} wrote becomes durable")
            }
            Self::CrashParticipant(participant) => write!(f, "P{participant} crashes and recovers"),
            Self::LoseDisk(participant) => {
                write!(f, "P{participant} comes back with an empty disk")
            }
        }
    }
}
