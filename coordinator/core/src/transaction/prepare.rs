//! Phase one: from the client's word to the last vote.

use alloc::{format, string::String, sync::Arc, vec::Vec};

use dtc_protocol::JournalId;

#[cfg(feature = "mutants")]
use super::mutants;
use super::{Branch, Context, Phase, RecordPurpose, Transaction, branch::Attempt};
use crate::{
    BeginBranch, BeginRecord, BranchState, ParticipantId, Reason, Record, TrailKind, Vote,
};

/// Branches without a vote that a reason names.
const NAMED: usize = 3;

impl Transaction {
    /// Starts to collect votes; the begin record goes first where it must
    /// (rule 5).
    pub(super) fn start_prepare(&mut self, context: &mut Context) {
        debug_assert!(matches!(
            self.state,
            Phase::Opening | Phase::Active | Phase::Linking | Phase::Locking
        ));
        let mut away = false;
        for branch in &mut self.branches {
            let participant = context.participants.get(branch.participant);
            branch.supports_inquiry = participant.supports_inquiry;
            away |= !participant.connected;
        }
        if away {
            return self.become_linking(context);
        }
        self.stop_linking(context);
        if !self.locks.is_empty() {
            return self.become_locking(context);
        }
        if let Some(participant) = self.known_not_to_compensate(context) {
            return self.abort_uncompensated(participant, context);
        }
        self.one_phase =
            self.commit_requested && matches!(&self.branches[..], [only] if only.one_phase);
        for branch in &mut self.branches {
            let participant = context.participants.get(branch.participant);
            // The one that is asked to commit: see `begin_record`.
            branch.journal = participant.journal.filter(|_| self.one_phase);
        }
        let all_ask = self.branches.iter().all(|branch| branch.supports_inquiry);
        // In one phase the participant decides: a run that was forgotten could
        // be done a second time under its key.
        let sync = self.interactive
            || self.id_may_be_known
            || self.holds_locks(context)
            || !all_ask
            || (self.one_phase && self.key.is_some());
        self.deadline = Some(context.now + self.options.prepare_timeout);
        if sync {
            self.state = Phase::ForcingBegin;
            self.append(self.begin_record(context), true, RecordPurpose::Logged, context);
            self.set_timer(context);
        } else {
            self.become_preparing(context);
        }
    }

    pub(super) fn begin_record(&self, context: &Context) -> Record {
        let branch = |branch: &Branch| BeginBranch {
            participant: branch.participant,
            payload: branch.payload.clone(),
            supports_inquiry: branch.supports_inquiry,
            journal: branch.journal,
        };
        // Nothing is sent before the next one.
        let sent = !matches!(self.state, Phase::Linking | Phase::Locking);
        Record::Begin(BeginRecord {
            id: self.id,
            age: self.age,
            key: self.key.clone(),
            interactive: self.interactive,
            one_phase: self.one_phase,
            attempt_timeout: self.own_attempt_timeout(context),
            begun_at: self.begun_at,
            locks: context.locks.held_by(self.owner()),
            branches: self.branches.iter().filter(|_| sent).map(branch).collect(),
            calls: self.enlist_calls(),
            trail: self.trail.events.clone(),
        })
    }

    /// Another journal is about to be asked to commit in one phase than the begin
    /// record names: a crash must not lose which.
    pub(super) fn log_again(&mut self, context: &mut Context) {
        debug_assert_eq!(self.state, Phase::Preparing);
        self.state = Phase::ForcingBegin;
        self.branches[0].attempt = Attempt::None;
        self.append(self.begin_record(context), true, RecordPurpose::Logged, context);
    }

    pub(super) fn become_preparing(&mut self, context: &mut Context) {
        debug_assert!(matches!(
            self.state,
            Phase::Opening | Phase::Active | Phase::Linking | Phase::Locking | Phase::ForcingBegin
        ));
        self.state = Phase::Preparing;
        for number in 0..self.branches.len() {
            self.branches[number].become_state(BranchState::Preparing);
            self.send(number, context);
        }
        self.set_timer(context);
        self.count_votes(context);
    }

    /// A participant answered prepare. Outputs may take so many bytes of `room`;
    /// returns how many they took.
    pub(crate) fn voted(
        &mut self,
        from: ParticipantId,
        journal: Option<JournalId>,
        number: u32,
        vote: Vote,
        room: usize,
        context: &mut Context,
    ) -> usize {
        let held = |all: &[Branch]| {
            let branch = all.get(number as usize);
            branch.and_then(|branch| branch.output.as_deref()).map_or(0, <[u8]>::len)
        };
        let before = held(&self.branches);
        self.take_vote(from, journal, number, vote, room, context);
        held(&self.branches) - before
    }

    fn take_vote(
        &mut self,
        from: ParticipantId,
        journal: Option<JournalId>,
        number: u32,
        vote: Vote,
        room: usize,
        context: &mut Context,
    ) {
        let index = number as usize;
        let Some(branch) = self.branches.get_mut(index).filter(|branch| branch.participant == from)
        else {
            return;
        };
        let open = matches!(self.state, Phase::Preparing | Phase::ResolvingOnePhase);
        if !open || branch.state != BranchState::Preparing {
            // A late promise of a branch that nobody waits for: its participant is back.
            let promised = matches!(vote, Vote::Commit { committed: false, .. });
            if promised && branch.state == BranchState::RollbackUnacknowledged {
                self.send_once(index, context);
            } else if promised && matches!(branch.attempt, Attempt::Waiting(_)) && branch.notify {
                self.send(index, context);
                self.set_timer(context);
            }
            return;
        }
        #[cfg(feature = "mutants")]
        mutants::votes(&mut self.one_phase, branch, journal, &vote);
        let is_committed = matches!(vote, Vote::Commit { committed: true, .. });
        if self.state == Phase::ResolvingOnePhase && !is_committed {
            // The rollback that asks is on its way, and its answer counts: a
            // promise or a reader's vote came too late, a refusal may be of one
            // attempt among several.
            return;
        }
        // In one phase the journal that was asked may have committed, whatever another one
        // refuses: only that one may say that it did not.
        let refuses = matches!(vote, Vote::Abort(_));
        branch.journal = match self.one_phase && refuses {
            true => branch.journal.or(journal),
            false => journal.or(branch.journal),
        };
        match vote {
            Vote::Commit { output, committed } => {
                let excess = excess(from, output.as_deref(), room, context);
                // What is in excess is not kept, whatever becomes of the branch.
                branch.output = output.filter(|_| excess.is_none());
                branch.finish(BranchState::Prepared);
                self.note(context, TrailKind::VotedCommit, Some(index));
                if committed && self.one_phase {
                    return self.decided_by_participant(context);
                }
                match excess {
                    // It may commit by another attempt.
                    Some(_) if self.one_phase => return self.resolve_excess(context),
                    Some(reason) => return self.abort(Arc::new(reason), context),
                    None => {}
                }
            }
            Vote::ReadOnly => {
                branch.finish(BranchState::ReadOnly);
                self.note(context, TrailKind::VotedReadOnly, Some(index));
            }
            Vote::Abort(reason) => {
                branch.refusal = Some(reason.clone());
                // Another attempt may be under way, and not every refusal leaves
                // a tombstone that would stop it: then a rollback is owed. In one
                // phase it could commit, were it but repeated on its way here.
                let stopped = branch.attempts <= 1 && !self.one_phase;
                if stopped {
                    branch.finish(BranchState::Refused);
                }
                self.note(context, TrailKind::VotedAbort, Some(index));
                if self.one_phase && !stopped {
                    return self.resolve_one_phase(context);
                }
                return self.abort(reason, context);
            }
        }
        self.count_votes(context);
    }

    fn has_all_votes(&self) -> bool {
        let is_in = |it: &Branch| matches!(it.state, BranchState::Prepared | BranchState::ReadOnly);
        #[cfg(feature = "mutants")]
        if mutants::one_vote_is_enough() {
            return self.branches.iter().any(is_in);
        }
        self.branches.iter().all(is_in)
    }

    fn count_votes(&mut self, context: &mut Context) {
        if !self.has_all_votes() {
            return;
        }
        if let Some(participant) = self.not_known_to_compensate(context) {
            return self.abort_uncompensated(participant, context);
        }
        if self.commit_requested {
            self.become_deciding(context);
        } else {
            self.state = Phase::Prepared;
            self.touch(context);
            self.answer(context);
        }
    }

    /// Whether its only participant may have committed it, with no decision of this machine.
    pub(super) fn may_be_committed(&self) -> bool {
        #[cfg(feature = "mutants")]
        if mutants::lost_answers_abort() {
            return false;
        }
        self.one_phase && self.branches.iter().any(|branch| branch.sent)
    }

    /// The deadline of prepare has come, or a branch has had all its attempts.
    pub(super) fn give_up_prepare(&mut self, code: &'static str, context: &mut Context) {
        if self.may_be_committed() {
            return self.resolve_one_phase(context);
        }
        let mut branches = self.branches.iter();
        let participant = branches.find(|branch| is_silent(branch)).map(|it| it.participant);
        let message = match self.state {
            Phase::ForcingBegin => String::from("the begin record was not durable in time"),
            _ => self.silence(context),
        };
        let waited = context.now.since(self.begun_at);
        let message = format!("{message} ({waited:.1?} since the transaction was begun)");
        self.abort(Arc::new(Reason { code: code.into(), message, participant }), context);
    }

    /// One phase, and a promise that cannot be kept here.
    fn resolve_excess(&mut self, context: &mut Context) {
        self.branches[0].become_state(BranchState::Preparing);
        self.resolve_one_phase(context);
    }

    /// Who has not voted, and what was heard of each last.
    fn silence(&self, context: &mut Context) -> String {
        let all = (0..).zip(&self.branches).filter(|(_, branch)| is_silent(branch));
        let silent: Vec<(u32, &Branch)> = all.collect();
        let named = silent.iter().take(NAMED).map(|(number, branch)| {
            let why = if branch.sent { "has not voted" } else { "cannot be reached" };
            let away = context.participants.get(branch.participant).away.as_deref();
            let heard = branch.heard(away);
            format!("branch {number} {why} after {} attempts{heard}", branch.attempts)
        });
        let mut message = named.collect::<Vec<_>>().join(", ");
        if silent.len() > NAMED {
            message += &format!(", nor have {} other branches", silent.len() - NAMED);
        }
        message
    }

    /// One phase, and no answer: asks the participant by a rollback, which it
    /// answers with 'committed' if it was, and which closes the branch if not.
    fn resolve_one_phase(&mut self, context: &mut Context) {
        debug_assert_eq!(self.state, Phase::Preparing);
        self.state = Phase::ResolvingOnePhase;
        self.deadline = None;
        self.branches[0].attempts = 0;
        self.branches[0].attempt = Attempt::None;
        self.send(0, context);
        self.set_timer(context);
    }
}

/// Why an output is not taken: decided transactions hold theirs until all is
/// acknowledged, so that a vote is the last moment to refuse one.
fn excess(
    from: ParticipantId,
    output: Option<&[u8]>,
    room: usize,
    context: &Context,
) -> Option<Reason> {
    let (bytes, limit) = (output?.len(), context.config.max_output);
    let (code, message) = if bytes > limit {
        let message =
            format!("prepare returned {bytes} bytes; the limit is {limit} (--max-output)");
        ("OUTPUT_TOO_LARGE", message)
    } else if bytes > room {
        let all = context.config.max_in_flight_bytes;
        let message = format!(
            "prepare returned {bytes} bytes, and outputs of unfinished transactions leave room for {room} \
             (--max-in-flight-bytes is {all}); try again when some have ended"
        );
        ("TOO_MANY_OUTPUTS", message)
    } else {
        return None;
    };
    Some(Reason { code: code.into(), message, participant: Some(from) })
}

fn is_silent(branch: &Branch) -> bool {
    matches!(branch.state, BranchState::Enlisted | BranchState::Preparing)
}
