//! What a model is made of.

use clap::ValueEnum;

/// How the client uses the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Use {
    /// One call for the whole transaction.
    OneShot,
    /// The same under a request key, sent twice.
    Keyed,
    /// A single branch, committed by its participant in one call.
    OnePhase,
    /// One phase under a request key, sent twice.
    KeyedOnePhase,
    /// `Begin`, `Enlist`, `Prepare`, then `Commit` or `Rollback`.
    Interactive,
    /// Two transactions that lock the same before anything is done.
    Locked,
    /// No coordinator of ours: participants get every message that there is, from
    /// an old and a new run, with both decision numbers and two payloads.
    AnyCoordinator,
}

/// Which participants ask when in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Asking {
    /// All of them: nothing is written before the decision.
    All,
    /// None: a begin record goes first.
    None,
    /// The first does, the others do not.
    First,
}

/// The bounds and the faults of a model.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Participants, each with one branch of every transaction.
    pub participants: usize,
    /// Crashes of any nodes, together.
    pub crashes: u8,
    /// How it is used.
    pub usage: Use,
    /// Who asks when in doubt.
    pub asking: Asking,
    /// Votes to abort, which leave a tombstone.
    pub refusals: bool,
    /// Votes to abort that leave nothing behind (no room).
    pub traceless: bool,
    /// Read-only votes.
    pub read_only: bool,
    /// Branches that are read-only at one time and not at another.
    pub fickle: bool,
    /// Attempts of rollback at a participant that asks.
    pub rollback_attempts: u32,
    /// Promises of participants that do not know one phase.
    pub plain: bool,
    /// Links that break while both ends live.
    pub broken_links: bool,
    /// Attempts of prepare; 0 for no limit.
    pub prepare_attempts: u32,
    /// Participants that come back with an empty disk, together.
    pub lost_disks: u8,
    /// Attempts that fail and are repeated.
    pub retries: bool,
    /// Answers that outlive the run of the coordinator that asked. (On a stream or
    /// a call they don't.)
    pub stray_answers: bool,
    /// Requests are dropped once their participant refuses their run for good.
    pub drop_stale: bool,
    /// An interactive client asks for the votes of all before it asks to commit.
    pub orderly: bool,
    /// Without deadlines and acknowledgements: what they lead to is not looked at.
    pub brief: bool,
    /// Several requests may share one write of a participant.
    pub batches: bool,
    /// The domain may fail to do what was decided; the participant tries again.
    pub domain_fails: bool,
    /// How often An operator resolves a branch.
    pub resolutions: u8,
    /// Failed attempts of commit after which it is compensated; 0 for none.
    pub compensate_after: u32,
    /// Crashes are the coordinator's only.
    pub coordinator_crashes: bool,
    /// A single branch is promised first, too: its participant knows no one phase.
    pub two_phases: bool,
    /// Interactive: each branch is enlisted under a key, and the call may be repeated.
    pub enlist_keys: bool,
}

impl Setup {
    /// Everything that may go wrong, but for lost disks and broken links.
    pub fn new(usage: Use, participants: usize, crashes: u8) -> Self {
        let one_phase = matches!(usage, Use::OnePhase | Use::KeyedOnePhase);
        Self {
            participants,
            crashes,
            usage,
            asking: Asking::All,
            refusals: true,
            traceless: false,
            read_only: true,
            fickle: false,
            rollback_attempts: 1,
            plain: one_phase,
            broken_links: false,
            prepare_attempts: 0,
            lost_disks: 0,
            retries: true,
            stray_answers: false,
            drop_stale: false,
            orderly: false,
            brief: false,
            batches: false,
            domain_fails: usage == Use::AnyCoordinator,
            resolutions: 0,
            compensate_after: 0,
            coordinator_crashes: false,
            two_phases: false,
            enlist_keys: false,
        }
    }

    /// A network and nodes that never fail: what Gray and Lamport's TwoPhase has.
    pub fn faultless(participants: usize) -> Self {
        Self {
            asking: Asking::None,
            read_only: false,
            retries: false,
            orderly: true,
            ..Self::new(Use::Interactive, participants, 0)
        }
    }

    /// Whether a participant asks when in doubt.
    pub fn supports_inquiry(&self, participant: usize) -> bool {
        match self.asking {
            Asking::All => true,
            Asking::None => false,
            Asking::First => participant == 0,
        }
    }

    /// Whether requests carry a key.
    pub fn is_keyed(&self) -> bool {
        matches!(self.usage, Use::Keyed | Use::KeyedOnePhase)
    }

    /// Whether a participant may commit with no decision of the coordinator.
    pub fn is_one_phase(&self) -> bool {
        self.participants == 1 && self.usage != Use::AnyCoordinator && !self.two_phases
    }

    /// How often the client sends its request.
    pub fn requests(&self) -> u8 {
        match self.usage {
            Use::AnyCoordinator => 0,
            Use::Keyed | Use::KeyedOnePhase | Use::Locked => 2,
            Use::OneShot | Use::OnePhase | Use::Interactive => 1,
        }
    }
}
