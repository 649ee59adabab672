//! Records as the journal keeps them: protobuf, with participants' names.

mod call;
mod lock;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dtc_core::{
    BeginBranch, BeginRecord, BranchState, CallKey, CommitPolicy, DecisionBranch, DecisionRecord,
    EndRecord, Intervention, Opaque, ParticipantId, Record, Time, TrailEvent,
};
use dtc_proto::journal;
use dtc_protocol::{JournalId, TransactionId};
use prost::Message;

use super::{Entry, Keep, Stored};
use crate::{convert, directory::Directory};
pub(crate) use call::enlisted;
pub use lock::DamagedSession;
use lock::{decode_locks, encode_locks};
pub(crate) use lock::{decode_session, encode_session};

/// Why a row of the journal cannot be taken up.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal (coordinator.db) is damaged: table unfinished, row {id}: {what}; restore the file from a backup, or remove the row knowing that its branches may stay in doubt"
)]
pub struct Damaged {
    id: TransactionId,
    what: String,
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

fn encode_begin(record: &BeginRecord, directory: &Directory) -> journal::Begin {
    let branch = |branch: &BeginBranch| journal::BeginBranch {
        participant: directory.name(branch.participant).to_string(),
        payload: Bytes::from_owner(branch.payload.clone()),
        supports_inquiry: branch.supports_inquiry,
        journal_id: journal_bytes(branch.journal),
    };
    let (request_key, fingerprint) = wire_key(record.key.as_ref());
    journal::Begin {
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

fn encode_decision(record: &DecisionRecord, directory: &Directory) -> journal::Decision {
    let branch = |branch: &DecisionBranch| journal::DecisionBranch {
        participant: directory.name(branch.participant).to_string(),
        state: convert::branch_state(branch.state).into(),
        journal_id: journal_bytes(branch.journal),
        output: branch.output.clone().map_or_else(Bytes::new, Bytes::from_owner),
        abort_reason: branch.refusal.as_ref().map(|it| convert::reason(it, directory)),
        supports_inquiry: branch.supports_inquiry,
        resolved: branch.resolved,
        notify: branch.notify,
    };
    let (request_key, fingerprint) = wire_key(record.key.as_ref());
    journal::Decision {
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
        abort_reason: record.reason.as_ref().map(|reason| convert::reason(reason, directory)),
        interventions: record.interventions.iter().map(intervention).collect(),
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

/// What was done by an operator, as it is written.
pub(crate) fn intervention(it: &Intervention) -> journal::Intervention {
    journal::Intervention {
        at_us: it.at.0,
        action: convert::intervention_action(it.action).into(),
        branch: it.branch.map_or(0, |branch| branch + 1),
        reason: it.reason.to_string(),
        caller: it.caller.to_string(),
    }
}

pub(crate) fn decode_intervention(
    id: TransactionId,
    it: &journal::Intervention,
) -> Result<Intervention, Damaged> {
    let action = convert::core_intervention_action(it.action())
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

fn encode_end(record: &EndRecord) -> journal::End {
    journal::End {
        ended_at_us: record.ended_at.0,
        branches: record.branches.iter().map(|it| convert::branch_state(*it).into()).collect(),
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

fn encode_trail(trail: &[TrailEvent]) -> Vec<journal::Trail> {
    let event = |event: &TrailEvent| journal::Trail {
        at_us: event.at.0,
        kind: convert::trail_kind(event.kind).into(),
        branch: event.branch.map_or(0, |branch| branch + 1),
        attempt: event.attempt,
    };
    trail.iter().map(event).collect()
}

fn decode_trail(id: TransactionId, trail: &[journal::Trail]) -> Result<Vec<TrailEvent>, Damaged> {
    let event = |event: &journal::Trail| {
        let kind = convert::core_trail_kind(event.kind())
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
    match (&stored.decision, &stored.begin) {
        (Some(decision), _) => decode_decision(id, decision, directory).map(Record::Decision),
        (None, Some(begin)) => decode_begin(id, begin, directory).map(Record::Begin),
        (None, None) => Err(Damaged { id, what: "neither a begin nor a decision".into() }),
    }
}

fn decode_begin(
    id: TransactionId,
    begin: &journal::Begin,
    directory: &Directory,
) -> Result<BeginRecord, Damaged> {
    let branches = begin.branches.iter().map(|branch| {
        Ok(BeginBranch {
            participant: participant(id, &branch.participant, directory)?,
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

fn participant(
    id: TransactionId,
    name: &str,
    directory: &Directory,
) -> Result<ParticipantId, Damaged> {
    match name {
        "" => Err(Damaged { id, what: "a branch without a participant's name".into() }),
        name => Ok(directory.intern(name)),
    }
}

fn decode_decision(
    id: TransactionId,
    decision: &journal::Decision,
    directory: &Directory,
) -> Result<DecisionRecord, Damaged> {
    let branch = |branch: &journal::DecisionBranch| {
        let state = convert::core_branch_state(branch.state())
            .filter(|state| is_decided(decision.commit, *state))
            .ok_or_else(|| {
                let decided = if decision.commit { "commit" } else { "abort" };
                Damaged { id, what: format!("branch state {} in a {decided}", branch.state) }
            })?;
        let refusal = branch.abort_reason.as_ref();
        Ok(DecisionBranch {
            participant: participant(id, &branch.participant, directory)?,
            state,
            journal: decode_journal(id, &branch.journal_id)?,
            output: output(branch),
            refusal: refusal.map(|it| Arc::new(convert::core_reason(it, directory))),
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
        reason: reason.map(|it| Arc::new(convert::core_reason(it, directory))),
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
pub(crate) fn output(branch: &journal::DecisionBranch) -> Option<Opaque> {
    (!branch.output.is_empty()).then(|| Opaque::from(&branch.output[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_core::{HeldLock, LockMode, Reason, TrailKind};

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
        let decision = journal::Decision::decode(&body[..]).unwrap();
        Stored { id, begin: None, decision: Some(decision), end: None }
    }

    #[test]
    fn a_decision_reads_as_it_was_written() {
        let directory = Directory::default();
        let record = decision(&directory);
        let stored = stored(encode(&Record::Decision(record.clone()), &directory));
        assert_eq!(decode(&stored, &directory).unwrap(), Record::Decision(record));
    }

    #[test]
    fn a_damaged_row_is_named() {
        let directory = Directory::default();
        let mut stored = stored(encode(&Record::Decision(decision(&directory)), &directory));
        stored.decision.as_mut().unwrap().branches[0].journal_id = Bytes::from_static(b"short");
        let error = decode(&stored, &directory).unwrap_err().to_string();
        assert!(error.contains(&stored.id.to_string()), "{error}");
        assert!(error.contains("5 bytes"), "{error}");
    }
}
