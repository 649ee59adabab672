//! What participants say, as events of the machine.

use std::sync::Arc;

use dtc_core::{
    Acknowledgement, BranchOutcome, Event, Failure, Inquirer, Opaque, ParticipantId, Reason, Vote,
};
use dtc_proto::dtc::{self, LinkInquiry, LinkResponse, Payload};
use dtc_protocol::{Incarnation, JournalId, TransactionId, fence::Run};
use prost::Message as _;

use crate::driver::Outgoing;
use crate::journal::Journal;

/// Longest code and message of a participant's refusal that are kept.
const MAX_CODE: usize = 64;
const MAX_MESSAGE: usize = 1024;

/// What a response comes to: events, and answers that need no machine.
pub(super) struct Inbound {
    pub(super) events: Vec<Event>,
    pub(super) answers: Vec<Outgoing>,
}

/// Reads a response of the link; an error names what is malformed.
pub(super) fn read(
    from: ParticipantId,
    journal_id: JournalId,
    response: LinkResponse,
    journal: &dyn Journal,
) -> Result<Inbound, String> {
    let count = response.votes.len() + response.acknowledgements.len() + response.inquiries.len();
    let mut inbound = Inbound { events: Vec::with_capacity(count), answers: Vec::new() };
    for vote in response.votes {
        let id = id(&vote.transaction_id)?;
        let kind = vote.vote();
        let vote_read = self::vote(from, kind, vote.output, vote.abort_reason, vote.committed)?;
        let branch = vote.branch;
        let journal = Some(journal_id);
        let voted = Event::Voted { from, journal, id, branch, vote: vote_read };
        inbound.events.push(voted);
    }
    for answer in response.acknowledgements {
        let id = id(&answer.transaction_id)?;
        let (branch, attempt) = (answer.branch, answer.attempt);
        let acknowledgement = match answer.acknowledgement() {
            dtc::Acknowledgement::Committed => Acknowledgement::Committed,
            dtc::Acknowledgement::RolledBack => Acknowledgement::RolledBack,
            dtc::Acknowledgement::Unknown => Acknowledgement::Unknown,
            dtc::Acknowledgement::Failed if attempt > 0 => {
                let why = Failure::answered(&answer.message);
                let participant = from;
                let failed = Event::Unreachable { participant, id, branch, attempt, why };
                inbound.events.push(failed);
                continue;
            }
            dtc::Acknowledgement::Failed => Acknowledgement::Failed(answer.message),
            dtc::Acknowledgement::Unspecified => {
                return Err(format!("an acknowledgement of {id} that says nothing"));
            }
        };
        inbound.events.push(Event::Acknowledged {
            from,
            journal: Some(journal_id),
            id,
            branch,
            number: answer.decision_number,
            acknowledgement,
        });
    }
    for inquiry in response.inquiries {
        let (id, branch) = (id(&inquiry.transaction_id)?, inquiry.branch);
        if journal.was_mine(&run(&inquiry)?) {
            let (from, epoch) = (Inquirer::Link(from), inquiry.epoch);
            inbound.events.push(Event::Inquired { from, id, branch, epoch });
        } else {
            tracing::warn!(
                transaction = %id, branch, epoch = inquiry.epoch,
                "asked about a branch of a run that this journal does not know; answered: not mine"
            );
            let outcome = BranchOutcome::NotMine;
            inbound.answers.push(Outgoing::Outcome { id, branch, outcome });
        }
    }
    Ok(inbound)
}

fn id(bytes: &[u8]) -> Result<TransactionId, String> {
    TransactionId::from_slice(bytes)
        .ok_or_else(|| format!("a transaction id of {} bytes, not 16", bytes.len()))
}

fn run(inquiry: &LinkInquiry) -> Result<Run, String> {
    let bytes = &inquiry.incarnation;
    let incarnation = Incarnation::from_slice(bytes)
        .ok_or_else(|| format!("an incarnation of {} bytes, not 16", bytes.len()))?;
    Ok(Run { epoch: inquiry.epoch, incarnation })
}

/// A participant's vote.
pub(super) fn vote(
    from: ParticipantId,
    vote: dtc::Vote,
    output: Option<Payload>,
    reason: Option<dtc::AbortReason>,
    committed: bool,
) -> Result<Vote, String> {
    match vote {
        dtc::Vote::Commit => {
            // The machine refuses what is too large, and has the branch rolled back.
            let output = output.map(|output| Opaque::from(output.encode_to_vec()));
            Ok(Vote::Commit { output, committed })
        }
        dtc::Vote::ReadOnly => Ok(Vote::ReadOnly),
        dtc::Vote::Abort => {
            let reason = reason.unwrap_or_default();
            Ok(Vote::Abort(Arc::new(refusal(from, &reason.code, &reason.message))))
        }
        dtc::Vote::Unspecified => Err("a vote that says nothing".into()),
    }
}

/// Why a participant refuses, as much of it as is kept.
pub(super) fn refusal(from: ParticipantId, code: &str, message: &str) -> Reason {
    let code = cut(if code.is_empty() { "REFUSED" } else { code }, MAX_CODE);
    Reason { code, message: cut(message, MAX_MESSAGE), participant: Some(from) }
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryJournal;

    fn failed(attempt: u32) -> Event {
        let answer = dtc::LinkAcknowledgement {
            transaction_id: vec![7; 16].into(),
            acknowledgement: dtc::Acknowledgement::Failed.into(),
            message: "not now".into(),
            decision_number: 1,
            attempt,
            ..dtc::LinkAcknowledgement::default()
        };
        let response = LinkResponse { acknowledgements: vec![answer], ..LinkResponse::default() };
        let journal = JournalId::from_bytes([1; 16]);
        let read = read(ParticipantId(1), journal, response, &MemoryJournal::new()).unwrap();
        read.events.into_iter().next().unwrap()
    }

    #[test]
    fn a_failure_concerns_the_attempt_that_it_names() {
        let Event::Unreachable { attempt, why, .. } = failed(2) else { panic!() };
        assert_eq!((attempt, why.answered, &*why.what), (2, true, "not now"));
    }

    #[test]
    fn a_failure_that_names_no_attempt_concerns_the_latest() {
        let Event::Acknowledged { acknowledgement, .. } = failed(0) else { panic!() };
        assert_eq!(acknowledgement, Acknowledgement::Failed("not now".into()));
    }
}
