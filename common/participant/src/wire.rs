//! From the wire's messages to what the kit works with, and the words for what
//! is wrong with them.

use std::str::FromStr;

use bytes::Bytes;
use dtc_proto::dtc::{self, LinkRequest, Payload, payload};
use dtc_protocol::{
    BranchId, CoordinatorId, TransactionId,
    branch::{Answer, Outcome, Request, Verdict},
    fence::Run,
};
use prost::Message as _;
use tonic::Status;

use crate::{
    Error, Refusal, ResourceManager,
    domain::{PANICKED, guarded},
    ended::{self, Ended},
};

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) coordinator: CoordinatorId,
    pub(crate) run: Run,
    pub(crate) recovery_address: String,
}

pub(crate) struct Prepare<R: ResourceManager> {
    pub(crate) branch: BranchId,
    /// The first transaction of which the branch's is a retry, or its own: smaller
    /// ids are older.
    pub(crate) age: TransactionId,
    pub(crate) payload: Result<Decoded<R>, Refusal>,
    pub(crate) one_phase: bool,
    /// Keep what is needed to undo its commit.
    pub(crate) may_compensate: bool,
}

/// A payload and its canonical encoding.
pub(crate) struct Decoded<R: ResourceManager> {
    pub(crate) message: R::Payload,
    pub(crate) bytes: Vec<u8>,
}

/// What is said of a branch after its prepare: a decision, an answer to an inquiry, or the
/// participant's own next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) branch: BranchId,
    pub(crate) request: Request,
    /// Which attempt it is; 0 where that is not counted.
    pub(crate) attempt: u32,
}

impl Decision {
    pub(crate) fn new(branch: BranchId, request: Request) -> Self {
        Self { branch, request, attempt: 0 }
    }

    pub(crate) fn commit(branch: BranchId, decision_number: u32) -> Self {
        Self::new(branch, Request::Commit { decision_number })
    }

    pub(crate) fn rollback<R: ResourceManager>(
        branch: BranchId,
        decision_number: u32,
        compensate: bool,
    ) -> Self {
        let can_compensate = R::COMPENSATES;
        Self::new(branch, Request::Rollback { decision_number, compensate, can_compensate })
    }
}

/// What is done in one transaction: decisions, then prepares.
pub(crate) struct Batch<R: ResourceManager> {
    pub(crate) decisions: Vec<Decision>,
    pub(crate) prepares: Vec<Prepare<R>>,
}

impl<R: ResourceManager> Default for Batch<R> {
    fn default() -> Self {
        Self { decisions: Vec::new(), prepares: Vec::new() }
    }
}

impl<R: ResourceManager> Batch<R> {
    pub(crate) fn is_empty(&self) -> bool {
        self.decisions.is_empty() && self.prepares.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.decisions.len() + self.prepares.len()
    }

    /// A link's message, and the transactions that it says have ended. Transactions of a
    /// link are its coordinator's.
    pub(crate) fn from_link(
        coordinator: CoordinatorId,
        request: LinkRequest,
        max_payload: usize,
    ) -> Result<(Self, Option<Ended>), Status> {
        let branch = |field: &str, transaction: &Bytes, number: u32| {
            let transaction = TransactionId::from_slice(transaction)
                .ok_or_else(|| no_id(&format!("{field}.transaction_id"), transaction))?;
            Ok::<_, Status>(BranchId { coordinator, transaction, number })
        };
        let mut batch = Self::default();
        batch.decisions.reserve(request.commits.len() + request.rollbacks.len());
        for commit in &request.commits {
            let branch = branch("commits", &commit.transaction_id, commit.branch)?;
            let number = decision_number("commits.decision_number", commit.decision_number)?;
            let decision = Decision::commit(branch, number);
            batch.decisions.push(Decision { attempt: commit.attempt, ..decision });
        }
        for rollback in &request.rollbacks {
            let branch = branch("rollbacks", &rollback.transaction_id, rollback.branch)?;
            let number = decision_number("rollbacks.decision_number", rollback.decision_number)?;
            let decision = Decision::rollback::<R>(branch, number, rollback.compensate);
            batch.decisions.push(Decision { attempt: rollback.attempt, ..decision });
        }
        for answer in &request.outcomes {
            let branch = branch("outcomes", &answer.transaction_id, answer.branch)?;
            let outcome = outcome(answer.outcome(), answer.decision_number);
            let request = |outcome| Request::Outcome { outcome, own: true };
            batch.decisions.extend(outcome.map(|it| Decision::new(branch, request(it))));
        }
        batch.prepares.reserve(request.prepares.len());
        for prepare in &request.prepares {
            let branch = branch("prepares", &prepare.transaction_id, prepare.branch)?;
            let age = match &prepare.retry_of {
                none if none.is_empty() => branch.transaction,
                bytes => TransactionId::from_slice(bytes)
                    .ok_or_else(|| no_id("prepares.retry_of", bytes))?,
            };
            batch.prepares.push(Prepare {
                branch,
                age,
                payload: decode::<R>(prepare.payload.as_ref(), max_payload),
                one_phase: prepare.one_phase,
                may_compensate: prepare.may_compensate,
            });
        }
        Ok((batch, ended_transactions(&request)?))
    }
}

/// The transactions of which a link's message says that they have ended.
fn ended_transactions(request: &LinkRequest) -> Result<Option<Ended>, Status> {
    if request.ended_before.is_empty() {
        return Ok(None);
    }
    let before = TransactionId::from_slice(&request.ended_before)
        .ok_or_else(|| no_id("ended_before", &request.ended_before))?;
    let except = request.ended_except.iter().map(|bytes| {
        ended::range(bytes).ok_or_else(|| {
            let length = bytes.len();
            Status::invalid_argument(format!(
                "ended_except: {length} bytes; an id has 16, a range of them 32"
            ))
        })
    });
    Ok(Some(Ended::new(before, except.collect::<Result<_, _>>()?)))
}

/// Epochs beyond this are of no coordinator's start.
const MAX_EPOCH: u64 = 1 << 48;

impl Origin {
    pub(crate) fn parse(field: &str, origin: Option<&dtc::Origin>) -> Result<Self, Status> {
        let Some(origin) = origin else {
            return Err(Status::invalid_argument(format!(
                "{field} is missing; it names the coordinator that speaks: coordinator_id, epoch, incarnation"
            )));
        };
        // The highest that was ever sent is kept: a coordinator must be able to get above.
        if origin.epoch > MAX_EPOCH {
            return Err(Status::invalid_argument(format!(
                "{field}.epoch is {}; no coordinator was started more than {MAX_EPOCH} times",
                origin.epoch
            )));
        }
        Ok(Self {
            coordinator: uuid(&format!("{field}.coordinator_id"), &origin.coordinator_id)?,
            run: Run {
                epoch: origin.epoch,
                incarnation: uuid(&format!("{field}.incarnation"), &origin.incarnation)?,
            },
            recovery_address: origin.recovery_address.clone(),
        })
    }
}

/// The answer to an inquiry; none where that is 'pending': it is asked again.
pub(crate) fn outcome(answer: dtc::BranchOutcome, decision_number: u32) -> Option<Outcome> {
    // A coordinator that presumes the abort has no decision to number.
    let decided = |commit| Outcome::Decided(Verdict { commit, number: decision_number.max(1) });
    match answer {
        dtc::BranchOutcome::Committed => Some(decided(true)),
        dtc::BranchOutcome::Aborted => Some(decided(false)),
        dtc::BranchOutcome::NotMine => Some(Outcome::NotMine),
        dtc::BranchOutcome::Unspecified | dtc::BranchOutcome::Pending => None,
    }
}

/// The answer to a decision, as it travels.
pub(crate) fn acknowledgement(answer: Answer) -> dtc::Acknowledgement {
    match answer {
        Answer::Committed => dtc::Acknowledgement::Committed,
        Answer::RolledBack => dtc::Acknowledgement::RolledBack,
        Answer::Unknown => dtc::Acknowledgement::Unknown,
    }
}

/// Decodes a payload; what is wrong with it is a refusal.
pub(crate) fn decode<R: ResourceManager>(
    payload: Option<&Payload>,
    max: usize,
) -> Result<Decoded<R>, Refusal> {
    let size = payload.map_or(0, prost::Message::encoded_len);
    if size > max {
        let message = format!("the payload has {size} bytes, the limit is {max}");
        return Err(Refusal::new("PAYLOAD_TOO_LARGE", message));
    }
    let decoded = guarded(|| {
        let message: R::Payload = dtc_proto::decode_payload(R::descriptors(), payload)
            .map_err(|error| Refusal::new("BAD_PAYLOAD", error.to_string()))?;
        let bytes = message.encode_to_vec();
        Ok(Decoded { message, bytes })
    });
    decoded.map_err(|error| match error {
        Error::Refused(refusal) => refusal,
        error => Refusal::new(PANICKED, error.to_string()),
    })
}

/// An output as it travels; none where it is empty.
pub(crate) fn output(bytes: Vec<u8>) -> Option<Payload> {
    (!bytes.is_empty()).then(|| Payload { kind: Some(payload::Kind::Typed(bytes.into())) })
}

/// Parses an id that may have been typed.
pub(crate) fn uuid<T: FromStr<Err = dtc_protocol::ParseIdError>>(
    field: &str,
    text: &str,
) -> Result<T, Status> {
    text.parse().map_err(|error| {
        let shown: String = text.chars().take(64).collect();
        Status::invalid_argument(format!("{field}: '{shown}' is {error}"))
    })
}

pub(crate) fn decision_number(field: &str, number: u32) -> Result<u32, Status> {
    match number {
        0 => Err(Status::invalid_argument(format!(
            "{field}: 0 is no decision's number; the first decision is 1"
        ))),
        number => Ok(number),
    }
}

fn no_id(field: &str, bytes: &Bytes) -> Status {
    let shown: String = bytes.iter().take(24).map(|byte| format!("{byte:02x}")).collect();
    let length = bytes.len();
    Status::invalid_argument(format!("{field}: '{shown}' has {length} bytes; an id has 16"))
}

#[cfg(test)]
mod tests {
    use dtc_proto::dtc::{LinkPrepare, LinkRollback};
    use shop_proto::TakePayment;

    use super::*;
    use crate::Vote;

    const COORDINATOR: CoordinatorId = CoordinatorId::from_bytes([1; 16]);

    struct Nothing;

    impl ResourceManager for Nothing {
        const NAME: &'static str = "nothing";
        const SCHEMA: &'static str = "";
        type Payload = TakePayment;
        type Output = ();

        fn descriptors() -> &'static dtc_proto::Descriptors {
            &shop_proto::DESCRIPTORS
        }

        fn prepare(
            &self,
            _: &rusqlite::Transaction<'_>,
            _: &BranchId,
            _: &TakePayment,
        ) -> Result<Vote<()>, Error> {
            Ok(Vote::ReadOnly)
        }

        fn commit(
            &self,
            _: &rusqlite::Transaction<'_>,
            _: &BranchId,
            _: &TakePayment,
            (): &(),
        ) -> Result<(), Error> {
            Ok(())
        }

        fn rollback(
            &self,
            _: &rusqlite::Transaction<'_>,
            _: &BranchId,
            _: &TakePayment,
            (): &(),
        ) -> Result<(), Error> {
            Ok(())
        }
    }

    fn id(number: u8) -> Bytes {
        vec![number; 16].into()
    }

    fn from_link(request: LinkRequest) -> Result<Batch<Nothing>, Status> {
        Batch::from_link(COORDINATOR, request, 1000).map(|(batch, _)| batch)
    }

    #[test]
    fn a_rollback_on_a_link_keeps_its_attempt_and_whether_it_compensates() {
        let rollback = LinkRollback {
            transaction_id: id(2),
            branch: 3,
            decision_number: 2,
            attempt: 4,
            compensate: true,
            output: None,
        };
        let request = LinkRequest { rollbacks: vec![rollback], ..LinkRequest::default() };
        let transaction = TransactionId::from_bytes([2; 16]);
        let branch = BranchId { coordinator: COORDINATOR, transaction, number: 3 };
        let expected = Decision { attempt: 4, ..Decision::rollback::<Nothing>(branch, 2, true) };
        assert_eq!(from_link(request).unwrap().decisions, [expected]);
    }

    #[test]
    fn a_prepare_on_a_link_is_as_old_as_what_it_tries_again() {
        let age = |retry_of: Bytes| {
            let prepare = LinkPrepare { transaction_id: id(2), retry_of, ..LinkPrepare::default() };
            let request = LinkRequest { prepares: vec![prepare], ..LinkRequest::default() };
            from_link(request).map(|batch| batch.prepares[0].age)
        };
        assert_eq!(age(Bytes::new()).unwrap(), TransactionId::from_bytes([2; 16]));
        assert_eq!(age(id(1)).unwrap(), TransactionId::from_bytes([1; 16]));
        let error = age(Bytes::from_static(&[1; 5])).unwrap_err();
        assert!(error.message().starts_with("prepares.retry_of: "), "{error}");
    }

    #[test]
    fn an_epoch_that_no_coordinator_has_is_refused() {
        let parsed = |epoch| {
            let id = "00000000-0000-4000-8000-000000000001".to_owned();
            let (coordinator_id, incarnation) = (id.clone(), id);
            let origin =
                dtc::Origin { coordinator_id, epoch, incarnation, ..dtc::Origin::default() };
            Origin::parse("origin", Some(&origin)).map(|origin| origin.run.epoch)
        };
        assert_eq!(parsed(MAX_EPOCH).unwrap(), MAX_EPOCH);
        for epoch in [MAX_EPOCH + 1, u64::MAX] {
            let error = parsed(epoch).unwrap_err();
            let expected = format!("origin.epoch is {epoch}; ");
            assert!(error.message().starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_payload_may_be_as_large_as_the_limit() {
        let take = TakePayment { account: "a".into(), ..TakePayment::default() };
        let kind = Some(payload::Kind::Typed(take.encode_to_vec().into()));
        let payload = Payload { kind };
        let size = payload.encoded_len();
        assert_eq!(decode::<Nothing>(Some(&payload), size).ok().unwrap().message, take);
        let refusal = decode::<Nothing>(Some(&payload), size - 1).err().unwrap();
        assert_eq!(refusal.code, "PAYLOAD_TOO_LARGE");
    }
}
