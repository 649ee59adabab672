//! Records as the journal keeps them: protobuf, with participants' names.

mod call;
mod lock;
mod past;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dtc_core::{
    BeginBranch, BeginRecord, BranchState, CallKey, CommitPolicy, DecisionBranch, DecisionRecord,
    EndRecord, Intervention, Opaque, ParticipantId, Reason, Record, Time, TrailEvent,
};
use dtc_protocol::{JournalId, TransactionId};
use prost::Message;

use super::{Entry, JournalError, Keep, Stored, disk};
use crate::directory::{Directory, Names};
pub(crate) use call::enlisted;
pub use lock::DamagedSession;
use lock::{decode_locks, encode_locks};
pub(crate) use lock::{decode_session, encode_session};
pub(crate) use past::{found, lost, owes_notification, view};

/// Why what the journal holds of a transaction cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal is damaged: transaction {id}: {what}; restore it from a backup, or remove the transaction knowing that its branches may stay in doubt"
)]
pub struct Damaged {
    id: TransactionId,
    what: String,
}

impl From<Damaged> for JournalError {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged.to_string())
    }
}

/// A record as it is written.
pub(crate) fn encode(record: &Record, directory: &Directory) -> Entry {
    match record {
        Record::Begin(record) => {
            let body = encode_begin(record, directory).encode_to_vec();
            Entry::Begin { id: record.id, key: key(record.key.as_ref()), body }
        }
        Record::Decision(record) => {
            let body = encode_decision(record, directory).encode_to_vec();
            Entry::Decision { id: record.id, key: key(record.key.as_ref()), body }
        }
        Record::End(record) => {
            let body = encode_end(record).encode_to_vec();
            let unnotified = unnotified(record).next().is_some();
            let keep = Keep { operator: record.kept, unnotified };
            Entry::End { id: record.id, keep, body }
        }
    }
}

fn key(key: Option<&CallKey>) -> Option<super::Key> {
    key.map(|(key, fingerprint)| (key.to_string(), *fingerprint))
}

fn wire_key(key: Option<&CallKey>) -> (String, Bytes) {
    key.map_or_else(Default::default, |(key, fingerprint)| {
        (key.to_string(), Bytes::copy_from_slice(fingerprint))
    })
}

fn encode_begin(record: &BeginRecord, directory: &Directory) -> disk::Begin {
    let branch = |branch: &BeginBranch| disk::BeginBranch {
        participant: directory.name(branch.participant).to_string(),
        payload: Bytes::from_owner(branch.payload.clone()),
        supports_inquiry: branch.supports_inquiry,
        journal_id: journal_bytes(branch.journal),
    };
    let (request_key, fingerprint) = wire_key(record.key.as_ref());
    disk::Begin {
        request_key,
        fingerprint,
        interactive: record.interactive,
        one_phase: record.one_phase,
        retry_of: retry_of(record.id, record.age),
        attempt_timeout_us: encode_timeout(record.attempt_timeout),
        begun_at_us: record.begun_at.0,
        branches: record.branches.iter().map(branch).collect(),
        trail: encode_trail(&record.trail),
        locks: encode_locks(&record.locks),
        calls: record.calls.iter().map(call::encode).collect(),
    }
}

fn encode_decision(record: &DecisionRecord, directory: &Directory) -> disk::Decision {
    let branch = |branch: &DecisionBranch| disk::DecisionBranch {
        participant: directory.name(branch.participant).to_string(),
        state: disk::BranchState::from(branch.state).into(),
        journal_id: journal_bytes(branch.journal),
        output: branch.output.clone().map_or_else(Bytes::new, Bytes::from_owner),
        abort_reason: branch.refusal.as_ref().map(|it| encode_reason(it, directory)),
        supports_inquiry: branch.supports_inquiry,
        resolved: branch.resolved,
        notify: branch.notify,
    };
    let (request_key, fingerprint) = wire_key(record.key.as_ref());
    disk::Decision {
        request_key,
        fingerprint,
        commit: record.commit,
        decision_number: record.number,
        compensate_after: match record.policy {
            CommitPolicy::Retry => 0,
            CommitPolicy::Compensate { after } => after.max(1),
        },
        retry_of: retry_of(record.id, record.age),
        attempt_timeout_us: encode_timeout(record.attempt_timeout),
        begun_at_us: record.begun_at.0,
        decided_at_us: record.decided_at.0,
        ended_at_us: record.ended_at.map(|at| at.0),
        branches: record.branches.iter().map(branch).collect(),
        abort_reason: record.reason.as_ref().map(|it| encode_reason(it, directory)),
        interventions: record.interventions.iter().map(encode_intervention).collect(),
        trail: encode_trail(&record.trail),
        locks: encode_locks(&record.locks),
        lost: false,
        calls: record.calls.iter().map(call::encode).collect(),
    }
}

/// A time-out as it is written; none is what is configured when it is read.
fn encode_timeout(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |timeout| u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX).max(1))
}

fn decode_timeout(micros: u64) -> Option<Duration> {
    (micros > 0).then(|| Duration::from_micros(micros))
}

fn encode_reason(reason: &Reason, directory: &Directory) -> disk::AbortReason {
    let participant = reason.participant.map(|id| directory.name(id).to_string());
    disk::AbortReason {
        code: reason.code.clone(),
        message: reason.message.clone(),
        participant: participant.unwrap_or_default(),
    }
}

fn decode_reason(reason: &disk::AbortReason, names: &dyn Names) -> Arc<Reason> {
    let participant = &reason.participant;
    Arc::new(Reason {
        code: reason.code.clone(),
        message: reason.message.clone(),
        participant: (!participant.is_empty()).then(|| names.intern(participant)),
    })
}

/// What was done by an operator, as it is written.
pub(super) fn encode_intervention(it: &Intervention) -> disk::Intervention {
    disk::Intervention {
        at_us: it.at.0,
        action: disk::InterventionAction::from(it.action).into(),
        branch: it.branch.map_or(0, |branch| branch + 1),
        reason: it.reason.to_string(),
        caller: it.caller.to_string(),
    }
}

fn decode_intervention(
    id: TransactionId,
    it: &disk::Intervention,
) -> Result<Intervention, Damaged> {
    let action = disk::InterventionAction::read(it.action)
        .ok_or_else(|| Damaged { id, what: format!("intervention {}", it.action) })?;
    let (reason, caller) = (it.reason.as_str().into(), it.caller.as_str().into());
    let (at, branch) = (Time(it.at_us), it.branch.checked_sub(1));
    Ok(Intervention { at, action, branch, reason, caller })
}

fn journal_bytes(id: Option<JournalId>) -> Bytes {
    id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()))
}

fn decode_journal(id: TransactionId, bytes: &[u8]) -> Result<Option<JournalId>, Damaged> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let journal = JournalId::from_slice(bytes);
    let what = || format!("a journal id of {} bytes, not 16", bytes.len());
    journal.map(Some).ok_or_else(|| Damaged { id, what: what() })
}

fn encode_end(record: &EndRecord) -> disk::End {
    disk::End {
        ended_at_us: record.ended_at.0,
        branches: record.branches.iter().map(|it| disk::BranchState::from(*it).into()).collect(),
        trail: encode_trail(&record.trail),
        interventions: Vec::new(),
        unnotified: unnotified(record).collect(),
    }
}

/// Branches whose participants may come back and ask.
fn unnotified(record: &EndRecord) -> impl Iterator<Item = u32> {
    let may_ask = |(number, state): (u32, &BranchState)| {
        (is_unnotified(*state) && !record.abandoned.contains(&number)).then_some(number)
    };
    (0..).zip(&record.branches).filter_map(may_ask)
}

/// Whether the participant may be in doubt about a branch that ended like this: the
/// journal that voted has not said what it did.
fn is_unnotified(state: BranchState) -> bool {
    matches!(state, BranchState::RollbackUnacknowledged | BranchState::Hazard)
}

/// An age as it is written and sent: nothing where it is the transaction's own.
pub(crate) fn retry_of(id: TransactionId, age: TransactionId) -> Bytes {
    match age == id {
        true => Bytes::new(),
        false => Bytes::copy_from_slice(age.as_bytes()),
    }
}

fn decode_age(id: TransactionId, retry_of: &[u8]) -> Result<TransactionId, Damaged> {
    match retry_of {
        [] => Ok(id),
        bytes => TransactionId::from_slice(bytes).ok_or_else(|| Damaged {
            id,
            what: format!("a retry of an id of {} bytes, not 16", bytes.len()),
        }),
    }
}

fn encode_trail(trail: &[TrailEvent]) -> Vec<disk::Trail> {
    let event = |event: &TrailEvent| disk::Trail {
        at_us: event.at.0,
        kind: disk::TrailKind::from(event.kind).into(),
        branch: event.branch.map_or(0, |branch| branch + 1),
        attempt: event.attempt,
    };
    trail.iter().map(event).collect()
}

fn decode_trail(id: TransactionId, trail: &[disk::Trail]) -> Result<Vec<TrailEvent>, Damaged> {
    let event = |event: &disk::Trail| {
        let kind = disk::TrailKind::read(event.kind)
            .ok_or_else(|| Damaged { id, what: format!("trail kind {}", event.kind) })?;
        let branch = event.branch.checked_sub(1);
        Ok(TrailEvent { at: Time(event.at_us), kind, branch, attempt: event.attempt })
    };
    trail.iter().map(event).collect()
}

fn decode_key(
    id: TransactionId,
    key: &str,
    fingerprint: &[u8],
) -> Result<Option<CallKey>, Damaged> {
    read_key(key, fingerprint).map_err(|what| Damaged { id, what })
}

fn read_key(key: &str, fingerprint: &[u8]) -> Result<Option<CallKey>, String> {
    if key.is_empty() {
        return Ok(None);
    }
    match fingerprint.try_into() {
        Ok(fingerprint) => Ok(Some((key.into(), fingerprint))),
        Err(_) => Err(format!("a fingerprint of {} bytes, not 32", fingerprint.len())),
    }
}

/// An unfinished transaction's newest record, for the machine to take up.
pub(crate) fn decode(stored: &Stored, directory: &Directory) -> Result<Record, Damaged> {
    let id = stored.id;
    match newest(stored)? {
        Newest::Decision(decision) => {
            decode_decision(id, &decision, directory).map(Record::Decision)
        }
        Newest::Begin(begin) => decode_begin(id, &begin, directory).map(Record::Begin),
    }
}

/// The record of a transaction that counts, beside its end.
enum Newest {
    Begin(disk::Begin),
    Decision(disk::Decision),
}

fn newest(stored: &Stored) -> Result<Newest, Damaged> {
    let id = stored.id;
    match (&stored.decision, &stored.begin) {
        (Some(decision), _) => message(id, decision).map(Newest::Decision),
        (None, Some(begin)) => message(id, begin).map(Newest::Begin),
        (None, None) => Err(Damaged { id, what: "neither a begin nor a decision".into() }),
    }
}

/// A body as its message.
fn message<M: Message + Default>(id: TransactionId, body: &[u8]) -> Result<M, Damaged> {
    M::decode(body).map_err(|cause| Damaged { id, what: cause.to_string() })
}

fn decode_begin(
    id: TransactionId,
    begin: &disk::Begin,
    names: &dyn Names,
) -> Result<BeginRecord, Damaged> {
    let branches = begin.branches.iter().map(|branch| {
        Ok(BeginBranch {
            participant: participant(id, &branch.participant, names)?,
            payload: Opaque::from(&branch.payload[..]),
            supports_inquiry: branch.supports_inquiry,
            journal: decode_journal(id, &branch.journal_id)?,
        })
    });
    if begin.one_phase && begin.branches.len() != 1 {
        let what = format!("one phase with {} branches, not 1", begin.branches.len());
        return Err(Damaged { id, what });
    }
    Ok(BeginRecord {
        id,
        age: decode_age(id, &begin.retry_of)?,
        key: decode_key(id, &begin.request_key, &begin.fingerprint)?,
        interactive: begin.interactive,
        one_phase: begin.one_phase,
        attempt_timeout: decode_timeout(begin.attempt_timeout_us),
        begun_at: Time(begin.begun_at_us),
        locks: decode_locks(&begin.locks).map_err(|what| Damaged { id, what })?,
        branches: branches.collect::<Result<_, _>>()?,
        calls: call::decode_all(id, &begin.calls)?,
        trail: decode_trail(id, &begin.trail)?,
    })
}

fn participant(id: TransactionId, name: &str, names: &dyn Names) -> Result<ParticipantId, Damaged> {
    match name {
        "" => Err(Damaged { id, what: "a branch without a participant's name".into() }),
        name => Ok(names.intern(name)),
    }
}

fn decode_decision(
    id: TransactionId,
    decision: &disk::Decision,
    names: &dyn Names,
) -> Result<DecisionRecord, Damaged> {
    let branch = |branch: &disk::DecisionBranch| {
        let state = disk::BranchState::read(branch.state)
            .filter(|state| is_decided(decision.commit, *state))
            .ok_or_else(|| {
                let decided = if decision.commit { "commit" } else { "abort" };
                Damaged { id, what: format!("branch state {} in a {decided}", branch.state) }
            })?;
        let refusal = branch.abort_reason.as_ref();
        Ok(DecisionBranch {
            participant: participant(id, &branch.participant, names)?,
            state,
            journal: decode_journal(id, &branch.journal_id)?,
            output: output(branch),
            refusal: refusal.map(|it| decode_reason(it, names)),
            supports_inquiry: branch.supports_inquiry,
            resolved: branch.resolved,
            notify: branch.notify,
        })
    };
    if decision.decision_number == 0 {
        return Err(Damaged { id, what: "decision number 0".into() });
    }
    let reason = decision.abort_reason.as_ref();
    let interventions = decision.interventions.iter().map(|it| decode_intervention(id, it));
    Ok(DecisionRecord {
        id,
        age: decode_age(id, &decision.retry_of)?,
        key: decode_key(id, &decision.request_key, &decision.fingerprint)?,
        commit: decision.commit,
        number: decision.decision_number,
        policy: match decision.compensate_after {
            0 => CommitPolicy::Retry,
            after => CommitPolicy::Compensate { after },
        },
        attempt_timeout: decode_timeout(decision.attempt_timeout_us),
        begun_at: Time(decision.begun_at_us),
        decided_at: Time(decision.decided_at_us),
        ended_at: decision.ended_at_us.map(Time),
        locks: decode_locks(&decision.locks).map_err(|what| Damaged { id, what })?,
        branches: decision.branches.iter().map(branch).collect::<Result<_, _>>()?,
        calls: call::decode_all(id, &decision.calls)?,
        reason: reason.map(|it| decode_reason(it, names)),
        interventions: interventions.collect::<Result<_, _>>()?,
        trail: decode_trail(id, &decision.trail)?,
    })
}

/// Whether a decision's record can hold a branch in this state.
fn is_decided(commit: bool, state: BranchState) -> bool {
    use BranchState::{
        Asserted, Committed, Committing, Enlisted, Hazard, Heuristic, ReadOnly, Refused,
        RollbackUnacknowledged, RolledBack, RollingBack,
    };
    match commit {
        true => {
            matches!(state, Committing | Committed | ReadOnly | Heuristic | Hazard | Asserted)
        }
        false => matches!(
            state,
            Enlisted
                | Refused
                | ReadOnly
                | RollingBack
                | RolledBack
                | RollbackUnacknowledged
                | Heuristic
                | Hazard
                | Asserted
        ),
    }
}

/// What prepare returned, as the decision has it.
fn output(branch: &disk::DecisionBranch) -> Option<Opaque> {
    (!branch.output.is_empty()).then(|| Opaque::from(&branch.output[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_core::{HeldLock, LockMode, TrailKind};

    fn decision(directory: &Directory) -> DecisionRecord {
        let inventory = directory.intern("inventory");
        let reason = Arc::new(Reason {
            code: "OUT_OF_STOCK".into(),
            message: "none left".into(),
            participant: Some(inventory),
        });
        DecisionRecord {
            id: TransactionId::from_bytes([7; 16]),
            age: TransactionId::from_bytes([6; 16]),
            key: Some(("order-1".into(), [9; 32])),
            commit: false,
            number: 1,
            policy: CommitPolicy::Compensate { after: 3 },
            attempt_timeout: Some(Duration::from_secs(10)),
            begun_at: Time(1),
            decided_at: Time(2),
            ended_at: Some(Time(4)),
            locks: vec![HeldLock { key: "a".into(), mode: LockMode::Exclusive, token: 9 }],
            branches: vec![DecisionBranch {
                participant: inventory,
                state: BranchState::Refused,
                journal: Some(JournalId::from_bytes([3; 16])),
                output: Some(Opaque::from(&b"out"[..])),
                refusal: Some(reason.clone()),
                supports_inquiry: true,
                resolved: Some(false),
                notify: true,
            }],
            calls: vec![dtc_core::EnlistCall { key: ("b".into(), [8; 32]), branch: 0 }],
            interventions: vec![Intervention {
                at: Time(3),
                action: dtc_core::InterventionAction::Rollback,
                branch: Some(0),
                reason: "gone".into(),
                caller: "ada".into(),
            }],
            reason: Some(reason),
            trail: vec![TrailEvent {
                at: Time(1),
                kind: TrailKind::VotedAbort,
                branch: Some(0),
                attempt: 1,
            }],
        }
    }

    fn stored(entry: Entry) -> Stored {
        let Entry::Decision { id, body, .. } = entry else { panic!("no decision") };
        Stored { id, begin: None, decision: Some(body), end: None }
    }

    #[test]
    fn a_decision_reads_as_it_was_written() {
        let directory = Directory::default();
        let record = decision(&directory);
        let stored = stored(encode(&Record::Decision(record.clone()), &directory));
        assert_eq!(decode(&stored, &directory).unwrap(), Record::Decision(record));
    }

    /// Where this fails, files of before are not read as they were written: raise the format
    /// of dtc-store.
    #[cfg(feature = "sqlite")]
    #[test]
    fn the_format_is_the_one_that_its_number_stands_for() {
        let directory = Directory::default();
        let written = encode_decision(&decision(&directory), &directory).encode_to_vec();
        assert_eq!((written.len(), dtc_store::checksum(&[&written])), (275, 857_812_344));
    }

    #[test]
    fn a_damaged_row_is_named() {
        let directory = Directory::default();
        let mut written = encode_decision(&decision(&directory), &directory);
        written.branches[0].journal_id = Bytes::from_static(b"short");
        let id = TransactionId::from_bytes([7; 16]);
        let stored = Stored { id, begin: None, decision: Some(written.encode_to_vec()), end: None };
        let error = decode(&stored, &directory).unwrap_err().to_string();
        assert!(error.contains(&stored.id.to_string()), "{error}");
        assert!(error.contains("5 bytes"), "{error}");
    }
}
