//! What the journal holds of a transaction that is not in memory, as it is shown and
//! answered.

use std::{cell::RefCell, sync::Arc};

use dtc_core::{
    BranchState, BranchView, Found, FoundBranch, Outcome, ParticipantId, Time, TransactionState,
    View,
};
use dtc_protocol::TransactionId;
use prost::Message;

use super::{
    Damaged, Entry, Keep, Newest, Stored, decode_age, decode_decision, decode_intervention,
    decode_key, decode_trail, disk, message, newest, output,
};
use crate::directory::Names;

/// Names of one transaction, with numbers that are good for it only: what ended long ago
/// is not brought back into the directory to be shown.
#[derive(Debug, Default)]
pub(crate) struct OwnNames(RefCell<Vec<Arc<str>>>);

impl Names for OwnNames {
    fn name(&self, id: ParticipantId) -> Arc<str> {
        self.0.borrow().get(id.0 as usize).cloned().unwrap_or_else(|| "?".into())
    }

    fn intern(&self, name: &str) -> ParticipantId {
        let mut names = self.0.borrow_mut();
        let known = names.iter().position(|known| **known == *name);
        let number = known.unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        ParticipantId(number as u32)
    }
}

/// A transaction as it is shown, with its own names. One that is unfinished here but not
/// in memory ended a moment ago, or is of a run before.
pub(crate) fn view(stored: &Stored) -> Result<(View, OwnNames), Damaged> {
    let names = OwnNames::default();
    let id = stored.id;
    let end = stored.end.as_ref().map(|end| message::<disk::End>(id, end)).transpose()?;
    let view = match newest(stored)? {
        Newest::Decision(decision) => decided(id, &decision, end.as_ref(), &names)?,
        Newest::Begin(begin) => {
            View { ended_at: end.map(|end| Time(end.ended_at_us)), ..begun(id, &begin)? }
        }
    };
    Ok((view, names))
}

/// The branches of an interactive one are not in its begin record.
fn begun(id: TransactionId, begin: &disk::Begin) -> Result<View, Damaged> {
    Ok(View {
        id,
        age: decode_age(id, &begin.retry_of)?,
        key: decode_key(id, &begin.request_key, &begin.fingerprint)?.map(|(key, _)| key),
        state: TransactionState::Preparing,
        outcome: Outcome::Pending,
        committed: false,
        stalled: false,
        branches: Vec::new(),
        reason: None,
        begun_at: Time(begin.begun_at_us),
        decided_at: None,
        ended_at: None,
        interventions: Vec::new(),
        trail: Vec::new(),
    })
}

fn decided(
    id: TransactionId,
    decision: &disk::Decision,
    end: Option<&disk::End>,
    names: &OwnNames,
) -> Result<View, Damaged> {
    let record = decode_decision(id, decision, names)?;
    let ends = end.map(|end| end.branches.iter().map(|state| branch_state(id, *state)));
    let ends = ends.map(Iterator::collect::<Result<Vec<_>, _>>).transpose()?.unwrap_or_default();
    let branches = record.branches.into_iter().enumerate().map(|(number, branch)| BranchView {
        participant: branch.participant,
        state: ends.get(number).copied().unwrap_or(branch.state),
        refusal: branch.refusal,
        attempts: 0,
        resolution: branch.resolved,
        notification_owed: branch.notify && end.is_none(),
    });
    let branches: Vec<_> = branches.collect();
    let (mut trail, mut interventions) = (record.trail, record.interventions);
    if let Some(end) = end {
        trail.extend(decode_trail(id, &end.trail)?);
        for done in &end.interventions {
            interventions.push(decode_intervention(id, done)?);
        }
    }
    let ended_at = end.map(|end| Time(end.ended_at_us)).or(record.ended_at);
    Ok(View {
        id,
        age: record.age,
        key: record.key.map(|(key, _)| key),
        state: match (record.commit, ended_at.is_some()) {
            (true, true) => TransactionState::Committed,
            (true, false) => TransactionState::Committing,
            (false, true) => TransactionState::Aborted,
            (false, false) => TransactionState::Aborting,
        },
        // Where its branches are not known, they say nothing.
        outcome: match decision.lost {
            true => Outcome::HeuristicHazard,
            false => Outcome::of(record.commit, branches.iter().map(|branch| branch.state)),
        },
        committed: record.commit,
        stalled: false,
        branches,
        reason: record.reason,
        begun_at: record.begun_at,
        decided_at: Some(record.decided_at),
        ended_at,
        interventions,
        trail,
    })
}

fn branch_state(id: TransactionId, number: i32) -> Result<BranchState, Damaged> {
    let what = || format!("branch state {number} at its end");
    disk::BranchState::read(number).ok_or_else(|| Damaged { id, what: what() })
}

/// What is answered about a branch. Nothing where there is no decision: the transaction is
/// not in memory, so that none will come.
pub(crate) fn found(stored: &Stored, number: u32) -> Result<Found, Damaged> {
    let Newest::Decision(decision) = newest(stored)? else { return Ok(Found::Nothing) };
    if decision.lost {
        return Ok(Found::Forgotten);
    }
    let branch = decision.branches.get(number as usize);
    Ok(Found::Branch(FoundBranch {
        commit: decision.commit,
        number: decision.decision_number,
        output: branch.and_then(output),
        known: branch.is_some(),
        resolved: branch.and_then(|branch| branch.resolved),
    }))
}

/// Whether the participant of a branch that has ended was never notified of the outcome.
pub(crate) fn owes_notification(stored: &Stored, number: u32) -> Result<bool, Damaged> {
    let Some(end) = &stored.end else { return Ok(false) };
    let end: disk::End = message(stored.id, end)?;
    Ok(end.unnotified.contains(&number))
}

/// Ends what a restored journal holds as begun with an outcome that nobody knows, so that
/// neither is a branch that may have been committed rolled back, nor a key used again.
pub(crate) fn lost(stored: &Stored, now: Time) -> Result<[Entry; 2], Damaged> {
    let id = stored.id;
    let begin = match &stored.begin {
        Some(begin) => message(id, begin)?,
        None => disk::Begin::default(),
    };
    let hazard: i32 = disk::BranchState::Hazard.into();
    let branches: Vec<_> = begin
        .branches
        .into_iter()
        .map(|branch| disk::DecisionBranch {
            participant: branch.participant,
            state: hazard,
            supports_inquiry: branch.supports_inquiry,
            ..disk::DecisionBranch::default()
        })
        .collect();
    let end = disk::End {
        ended_at_us: now.0,
        branches: vec![hazard; branches.len()],
        ..disk::End::default()
    };
    let key = decode_key(id, &begin.request_key, &begin.fingerprint)?;
    let decision = disk::Decision {
        request_key: begin.request_key,
        fingerprint: begin.fingerprint,
        decision_number: 1,
        begun_at_us: begin.begun_at_us,
        decided_at_us: now.0,
        branches,
        abort_reason: Some(disk::AbortReason {
            code: "RESTORED".into(),
            message: "the journal was restored from a backup that holds no decision; whether it \
                      committed is not known"
                .into(),
            participant: String::new(),
        }),
        trail: begin.trail,
        retry_of: begin.retry_of,
        lost: true,
        ..disk::Decision::default()
    };
    // Nobody can be notified of what nobody knows.
    let keep = Keep { operator: true, unnotified: false };
    Ok([
        Entry::Decision { id, key: super::key(key.as_ref()), body: decision.encode_to_vec() },
        Entry::End { id, keep, body: end.encode_to_vec() },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_holds_as_begun_is_a_hazard_with_no_branches_too() {
        let begin = Some(disk::Begin::default().encode_to_vec());
        let id = TransactionId::from_bytes([7; 16]);
        let stored = Stored { id, begin, decision: None, end: None };
        let [decision, end] = lost(&stored, Time(9)).unwrap();
        let (Entry::Decision { body: decision, .. }, Entry::End { body: end, .. }) =
            (decision, end)
        else {
            panic!("neither");
        };
        let stored = Stored { id, begin: None, decision: Some(decision), end: Some(end) };
        let (view, _) = view(&stored).unwrap();
        assert_eq!((view.outcome, view.ended_at), (Outcome::HeuristicHazard, Some(Time(9))));
        assert_eq!(found(&stored, 0).unwrap(), Found::Forgotten);
    }
}
