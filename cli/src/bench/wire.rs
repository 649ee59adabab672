//! What is sent and read. Requests come encoded already, and of an answer only
//! what counts is decoded: a generator that shares the machine with what it
//! measures has to be cheap.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use dtc_proto::dtc::Outcome;
use tonic::{
    Status,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

use super::tally::Answer;

/// Encoded messages out, `U`s in.
#[derive(Debug)]
pub(crate) struct Encoded<U>(PhantomData<U>);

impl<U> Default for Encoded<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U: prost::Message + Default + Send + 'static> Codec for Encoded<U> {
    type Encode = Bytes;
    type Decode = U;
    type Encoder = AsIs;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> AsIs {
        AsIs
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::default()
    }
}

/// Sends bytes as they are.
#[derive(Debug)]
pub(crate) struct AsIs;

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

/// Of `ExecuteStreamResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Results {
    #[prost(message, repeated, tag = "1")]
    pub(crate) results: Vec<TaggedResult>,
}

/// Of `ExecuteStreamResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TaggedResult {
    #[prost(uint64, tag = "1")]
    pub(crate) tag: u64,
    #[prost(message, optional, tag = "2")]
    response: Option<Response>,
    #[prost(message, optional, tag = "3")]
    error: Option<Failure>,
}

/// Of `ExecuteResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    transaction: Option<Transaction>,
    #[prost(bool, tag = "2")]
    committed: bool,
}

/// Of `Transaction`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Transaction {
    #[prost(enumeration = "Outcome", tag = "4")]
    outcome: i32,
}

/// Of `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Failure {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl TaggedResult {
    /// What became of the transaction.
    pub(crate) fn answer(self) -> Answer {
        match (self.response, self.error) {
            (Some(response), _) => response.answer(),
            (None, Some(Failure { code, message })) => {
                Answer::from(&Status::new(code.into(), message))
            }
            (None, None) => Answer::Unknown("an empty result".into()),
        }
    }
}

impl Response {
    /// What became of the transaction.
    pub(crate) fn answer(self) -> Answer {
        match self.transaction.map(|transaction| transaction.outcome()) {
            _ if self.committed => Answer::Committed,
            Some(Outcome::Aborted) => Answer::Aborted,
            other => {
                let outcome = other.unwrap_or_default().as_str_name();
                Answer::Unknown(format!("answered as {outcome}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dtc_proto::{dtc, rpc};
    use prost::Message;

    use super::*;

    fn answer(result: dtc::execute_stream_result::Result) -> Answer {
        let result = dtc::ExecuteStreamResult { tag: 77, result: Some(result) };
        let message = dtc::ExecuteStreamResponse { results: vec![result] };
        let mut results = Results::decode(message.encode_to_vec().as_slice()).unwrap().results;
        let result = results.remove(0);
        assert_eq!(result.tag, 77);
        result.answer()
    }

    fn response(outcome: Outcome, committed: bool) -> Answer {
        let transaction = dtc::Transaction {
            id: "some".into(),
            outcome: outcome.into(),
            branches: vec![dtc::BranchStatus::default()],
            ..dtc::Transaction::default()
        };
        let response = dtc::ExecuteResponse { transaction: Some(transaction), committed };
        answer(dtc::execute_stream_result::Result::Response(response))
    }

    #[test]
    fn only_committed_counts_as_committed() {
        assert_eq!(response(Outcome::Committed, true), Answer::Committed);
        assert_eq!(response(Outcome::Aborted, false), Answer::Aborted);
        assert!(matches!(response(Outcome::Pending, false), Answer::Unknown(_)));
        assert!(matches!(response(Outcome::Committed, false), Answer::Unknown(_)));
    }

    #[test]
    fn a_refusal_is_told_from_a_failure_of_which_nothing_is_known() {
        let failed = |code: tonic::Code| {
            let status = rpc::Status { code: code.into(), message: "why".into(), details: vec![] };
            answer(dtc::execute_stream_result::Result::Error(status))
        };
        assert!(
            matches!(failed(tonic::Code::InvalidArgument), Answer::Refused(why) if why.contains("why"))
        );
        assert!(
            matches!(failed(tonic::Code::Unavailable), Answer::Unknown(why) if why.contains("why"))
        );
    }
}
