//! What of a state counts: the one place where the model forgets something.
//!
//! Two states are one where these agree:
//! - the machine's own `Coordinator::projection`: everything but times,
//!   sequence numbers, reasons, trails, payloads, outputs, the 'stalled' mark,
//!   and attempts beyond the largest number that anything asks for;
//! - the journal: which records are durable and which are on their way, in
//!   order, with their decisions and their branches' states, again without
//!   times, reasons and trails;
//! - participants, network, client and what is left of the faults: all of it.
//!
//! Why that is sound:
//! - *Trails, reasons, outputs, 'stalled'* are shown and handed on; no branch of
//!   the code asks for them. Payloads and outputs of the model are all the same.
//! - *Sequence numbers* are compared with each other only, and the journal keeps
//!   the order in which records were asked for.
//! - *Attempts* are compared with `1`, `prepare_attempts`, `rollback_attempts`,
//!   those that compensate a commit, and `stalled_after` only; the projection counts to the largest of these.
//!   They also go into the length and the jitter of a wait, which is time.
//! - *Times* decide what a `Tick` does, so each timeout has to be possible at
//!   every moment at which it could be, in every merged state, whatever else is
//!   due: an attempt's end is `Unreachable` (the code that runs is the same,
//!   `attempt_failed` and `after_attempts`), the end of a wait between attempts
//!   is `Connected` of a participant that is connected (the same `send`),
//!   prepare's deadline and the idle limit are a `Tick` one millisecond later,
//!   when nothing else can be due (attempts and waits take 11 days, those of a
//!   recovered transaction two seconds, and a deadline can be reached no more
//!   than once a request), and a `Tick` much later fires all that is set in one
//!   go, so that the code that fires several at once is run too. A client whose
//!   wait ends is shown what a client that asks then is shown, and *every* state
//!   is checked for what it would show. What is left out: some, but not all, of
//!   the attempts' timers within one `Tick`; they come one after the other, with
//!   nothing in between.
//!
//! Where it is not: bounds (in flight, bytes, per participant, the recovery
//! window) are never reached, and what only a wrong *order of due times* could
//! show is not seen: that a timer is set too late or never. The tests of the
//! core's timers and the simulation look for those.
//!
//! Participants of one kind are interchangeable: a state is hashed as its common
//! part and the *sorted* hashes of what belongs to each participant, so that
//! states that differ by a permutation of participants are one.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::state::State;
use dtc_core::{BranchState, Projection, Record};

/// The same for equal things, in every run.
pub(crate) fn fingerprint(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// One participant's share of a state.
struct Share<'a> {
    state: &'a State,
    machine: &'a Projection,
    index: usize,
}

/// The records of the journal, durable ones first.
fn records(state: &State) -> impl Iterator<Item = (bool, &Record)> {
    let durable = state.journal.durable.values().map(|stored| (true, &stored.record));
    durable.chain(state.journal.pending.iter().map(|(_, record)| (false, record)))
}

impl Hash for Share<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let (state, index) = (self.state, self.index);
        let is_here = |participant: u32| participant as usize == index;
        state.participants[index].hash(hasher);
        for known in self.machine.participants.iter().filter(|known| is_here(known.id.0)) {
            (known.connected, known.supports_inquiry, known.compensates, known.journal)
                .hash(hasher);
        }
        for transaction in &self.machine.transactions {
            for it in transaction.branches.iter().filter(|it| is_here(it.participant.0)) {
                let kind =
                    (it.state, it.journal, it.supports_inquiry, it.sent, it.attempts, it.pace);
                let resolving = transaction.resolving.iter().find(|(branch, _)| *branch == index);
                let resolving = resolving.map(|(_, commit)| commit);
                (transaction.id, kind, it.resolved, it.notify, resolving).hash(hasher);
            }
        }
        for (durable, record) in records(state) {
            match record {
                Record::Begin(begin) => {
                    for branch in begin.branches.iter().filter(|it| is_here(it.participant.0)) {
                        (begin.id, durable, branch.supports_inquiry, branch.journal).hash(hasher);
                    }
                }
                Record::Decision(decision) => {
                    for it in decision.branches.iter().filter(|it| is_here(it.participant.0)) {
                        let kind =
                            (it.state, it.journal, it.supports_inquiry, it.resolved, it.notify);
                        (decision.id, durable, kind).hash(hasher);
                    }
                }
                Record::End(end) => end.branches.get(index).hash(hasher),
            }
        }
        for stored in state.journal.durable.values() {
            let ended: Option<Option<&BranchState>> =
                stored.end.as_ref().map(|end| end.branches.get(index));
            ended.hash(hasher);
        }
        for message in state.network.iter().filter(|it| usize::from(it.participant) == index) {
            (message.id, message.content).hash(hasher);
        }
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let machine = &self.machine;
        let share = |index| fingerprint(&Share { state: self, machine, index });
        let mut shares: Vec<_> = (0..self.participants.len()).map(share).collect();
        shares.sort_unstable();
        shares.hash(hasher);

        for it in &machine.transactions {
            (it.id, it.phase, it.branches.len(), &it.waiters, it.keyed, it.interactive)
                .hash(hasher);
            (it.commit, it.number, it.one_phase, it.commit_requested, it.outcome_visible)
                .hash(hasher);
            (it.deadline, it.recovered, it.intervened, it.is_final, it.answered).hash(hasher);
        }
        (&machine.lookups, &machine.keyed, &machine.pending).hash(hasher);
        for (durable, record) in records(self) {
            (record.id(), durable).hash(hasher);
            match record {
                Record::Begin(begin) => (0, begin.one_phase, begin.branches.len()).hash(hasher),
                Record::Decision(it) => {
                    (1, it.commit, it.number, it.ended_at.is_some()).hash(hasher);
                }
                Record::End(end) => (2, end.heuristic).hash(hasher),
            }
        }
        for stored in self.journal.durable.values() {
            stored.end.as_ref().map(|end| end.heuristic).hash(hasher);
        }
        self.journal.compensated.hash(hasher);
        (self.epoch, &self.lookups, self.client, self.crashes, self.lost_disks, self.resolutions)
            .hash(hasher);
        (self.misled, self.broken, self.journal.broken).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        fingerprint(self) == fingerprint(other)
    }
}

impl Eq for State {}
