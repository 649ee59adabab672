//! Outgoing messages as batches of the link, bounded in count and bytes.

use std::ops::RangeInclusive;

use bytes::Bytes;
use dtc_core::{BranchOutcome, Ended, Message, Opaque};
use dtc_proto::dtc::{
    self, LinkCommit, LinkOutcome, LinkPrepare, LinkRequest, LinkRollback, Payload,
};
use dtc_protocol::TransactionId;
use prost::Message as _;

use crate::driver::Outgoing;
use crate::journal::codec::retry_of;

/// No batch of several messages is larger: receivers refuse messages of over 4 MiB.
const MAX_BYTES: usize = 1 << 20;

/// A payload or an output, as it was encoded when it came.
pub(super) fn payload(opaque: &Opaque) -> Option<Payload> {
    Payload::decode(Bytes::from_owner(opaque.clone())).ok()
}

/// Batches with all of `messages`, in order within each kind.
pub(super) fn batches(messages: impl Iterator<Item = Outgoing>) -> Vec<LinkRequest> {
    let mut batches = Vec::with_capacity(1);
    let mut batch = LinkRequest::default();
    let mut bytes = 0;
    for message in messages {
        let size = size(&message);
        if bytes > 0 && bytes + size > MAX_BYTES {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        add(&mut batch, message);
    }
    if bytes > 0 {
        batches.push(batch);
    }
    batches
}

/// About how many bytes a message takes, and no less.
fn size(outgoing: &Outgoing) -> usize {
    const FIXED: usize = 64;
    let opaque = match outgoing {
        Outgoing::Message { message: Message::Prepare { payload, .. }, .. } => Some(payload),
        Outgoing::Message { message: Message::Commit { output, .. }, .. }
        | Outgoing::Message { message: Message::Rollback { output, .. }, .. } => output.as_ref(),
        Outgoing::Outcome { outcome: BranchOutcome::Committed { output, .. }, .. } => {
            output.as_ref()
        }
        Outgoing::Outcome { .. } => None,
        Outgoing::Ended { ended: Ended { except, .. }, .. } => return FIXED * (1 + except.len()),
    };
    FIXED + opaque.map_or(0, |opaque| opaque.len())
}

fn add(batch: &mut LinkRequest, outgoing: Outgoing) {
    match outgoing {
        Outgoing::Message { id, branch, attempt, message, .. } => {
            let transaction_id = Bytes::copy_from_slice(id.as_bytes());
            match message {
                Message::Prepare { payload: it, one_phase, may_compensate, age } => {
                    let (payload, retry_of) = (payload(&it), retry_of(id, age));
                    batch.prepares.push(LinkPrepare {
                        transaction_id,
                        branch,
                        payload,
                        one_phase,
                        may_compensate,
                        retry_of,
                    });
                }
                Message::Commit { number: decision_number, output } => {
                    let output = output.as_ref().and_then(payload);
                    batch.commits.push(LinkCommit {
                        transaction_id,
                        branch,
                        decision_number,
                        output,
                        attempt,
                    });
                }
                Message::Rollback { number: decision_number, output, compensate } => {
                    let output = output.as_ref().and_then(payload);
                    batch.rollbacks.push(LinkRollback {
                        transaction_id,
                        branch,
                        decision_number,
                        output,
                        compensate,
                        attempt,
                    });
                }
            }
        }
        Outgoing::Outcome { id, branch, outcome } => {
            let (outcome, decision_number, output) = outcome_parts(&outcome);
            let transaction_id = Bytes::copy_from_slice(id.as_bytes());
            let outcome = outcome.into();
            let answer = LinkOutcome { transaction_id, branch, outcome, decision_number, output };
            batch.outcomes.push(answer);
        }
        Outgoing::Ended { ended: Ended { before, except }, .. } => {
            batch.ended_before = Bytes::copy_from_slice(before.as_bytes());
            batch.ended_except = except.iter().map(exception).collect();
        }
    }
}

/// A transaction, or the first and the last of a range.
fn exception(range: &RangeInclusive<TransactionId>) -> Bytes {
    let (first, last) = (range.start().as_bytes(), range.end().as_bytes());
    match first == last {
        true => Bytes::copy_from_slice(first),
        false => [*first, *last].concat().into(),
    }
}

/// An outcome as the wire has it: what, the decision's number, the output.
pub fn outcome_parts(outcome: &BranchOutcome) -> (dtc::BranchOutcome, u32, Option<Payload>) {
    match outcome {
        BranchOutcome::Committed { number, output } => {
            (dtc::BranchOutcome::Committed, *number, output.as_ref().and_then(payload))
        }
        BranchOutcome::Aborted { number } => (dtc::BranchOutcome::Aborted, *number, None),
        BranchOutcome::Pending => (dtc::BranchOutcome::Pending, 0, None),
        BranchOutcome::NotMine => (dtc::BranchOutcome::NotMine, 0, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_protocol::TransactionId;
    use std::time::Duration;

    fn prepare(bytes: usize) -> Outgoing {
        let kind = dtc::payload::Kind::Typed(vec![7; bytes].into());
        let payload = Payload { kind: Some(kind) }.encode_to_vec();
        Outgoing::Message {
            id: TransactionId::from_bytes([1; 16]),
            branch: 0,
            attempt: 1,
            message: Message::Prepare {
                payload: payload.into(),
                one_phase: false,
                may_compensate: false,
                age: TransactionId::from_bytes([1; 16]),
            },
            timeout: Duration::from_secs(1),
            trace: None,
        }
    }

    #[test]
    fn no_batch_grows_over_what_a_receiver_takes() {
        let messages = (0..20).flat_map(|_| [prepare(900 << 10), prepare(3 << 20)]);
        let batches = batches(messages);
        assert_eq!(batches.iter().map(|batch| batch.prepares.len()).sum::<usize>(), 40);
        assert!(batches.iter().all(|batch| batch.encoded_len() < 4 << 20));
    }

    #[test]
    fn small_messages_share_a_batch() {
        assert_eq!(batches((0..500).map(|_| prepare(64))).len(), 1);
        assert!(batches(std::iter::empty()).is_empty());
    }
}
