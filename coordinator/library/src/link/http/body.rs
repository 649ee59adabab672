//! What is sent to an HTTP participant, and what its answers hold.

use bytes::Bytes;
use dtc_core::{Opaque, ParticipantId, Reason};
use dtc_proto::{
    dtc::{Payload, payload::Kind},
    json,
};
use dtc_protocol::TransactionId;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Recipient;
use crate::link::inbound;

#[derive(Serialize)]
struct Prepare<'a> {
    #[serde(flatten)]
    to: To<'a>,
    payload: Option<serde_json::Value>,
    /// The first transaction of which this is a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
    /// Its commit may be compensated.
    #[serde(skip_serializing_if = "is_false")]
    may_compensate: bool,
}

#[derive(Serialize)]
struct Decision<'a> {
    #[serde(flatten)]
    to: To<'a>,
    decision_number: u32,
    /// As prepare answered it, to the letter.
    output: Option<Box<RawValue>>,
    /// With a rollback: undo it even if it is committed.
    #[serde(skip_serializing_if = "is_false")]
    compensate: bool,
}

#[derive(Serialize)]
struct To<'a> {
    transaction_id: String,
    branch: u32,
    coordinator_id: &'a str,
    epoch: u64,
    incarnation: &'a str,
}

impl<'a> From<&Recipient<'a>> for To<'a> {
    fn from(to: &Recipient<'a>) -> Self {
        Self {
            transaction_id: to.id.to_string(),
            branch: to.branch,
            coordinator_id: &to.origin.coordinator_id,
            epoch: to.origin.epoch,
            incarnation: &to.origin.incarnation,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn prepare(
    to: &Recipient<'_>,
    payload: &Opaque,
    may_compensate: bool,
    age: TransactionId,
) -> Result<Bytes, String> {
    let payload = Payload::decode(Bytes::from_owner(payload.clone()));
    let payload = match payload.map_err(|error| format!("its payload cannot be read: {error}"))? {
        Payload { kind: None } => None,
        Payload { kind: Some(Kind::Json(object)) } => Some(as_json(&object)?),
        // It spoke gRPC when the transaction was begun.
        Payload { kind: Some(Kind::Typed(_)) } => {
            return Err("its payload is 'typed', and the participant speaks HTTP now".into());
        }
    };
    let retry_of = (age != to.id).then(|| age.to_string());
    Ok(written(&Prepare { to: to.into(), payload, retry_of, may_compensate }))
}

fn as_json(object: &prost_types::Struct) -> Result<serde_json::Value, String> {
    json::to_json(object).map_err(|misfit| {
        format!("its payload cannot be sent: {}: {}", misfit.field("payload"), misfit.problem())
    })
}

pub(super) fn decision(
    to: &Recipient<'_>,
    number: u32,
    output: Option<&Opaque>,
    compensate: bool,
) -> Bytes {
    let kept = output.and_then(|output| Payload::decode(Bytes::from_owner(output.clone())).ok());
    let output = match kept.and_then(|kept| kept.kind) {
        Some(Kind::Typed(text)) => serde_json::from_slice(&text).ok(),
        // It spoke gRPC when it voted.
        Some(Kind::Json(object)) => {
            json::to_json(&object).ok().and_then(|it| serde_json::value::to_raw_value(&it).ok())
        }
        None => None,
    };
    written(&Decision { to: to.into(), decision_number: number, output, compensate })
}

fn written(body: &impl Serialize) -> Bytes {
    // Maps with string keys and plain values only: nothing here can fail.
    serde_json::to_vec(body).map(Bytes::from).unwrap_or_default()
}

/// What prepare returned: its text is kept as it came. An error says what it is.
pub(super) fn output(body: &Bytes) -> Result<Option<Opaque>, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice::<&RawValue>(body).map_err(|error| format!("no JSON: {error}"))?;
    let kept = Payload { kind: Some(Kind::Typed(body.clone())) };
    Ok(Some(kept.encode_to_vec().into()))
}

/// The code in an answer's body, where there is one.
pub(super) fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Coded {
        code: String,
    }
    serde_json::from_slice::<Coded>(body).ok().map(|coded| coded.code)
}

/// Why prepare was refused: `{"code", "message"}`, a problem of RFC 9457, or text.
pub(super) fn refusal(from: ParticipantId, body: &[u8]) -> Reason {
    #[derive(Deserialize, Default)]
    struct Refusal {
        code: Option<String>,
        message: Option<String>,
        title: Option<String>,
        detail: Option<String>,
    }
    let (code, message) = match serde_json::from_slice::<Refusal>(body) {
        Ok(it) => (it.code, it.message.or(it.detail).or(it.title)),
        Err(_) => (None, Some(String::from_utf8_lossy(body).into_owned())),
    };
    inbound::refusal(from, &code.unwrap_or_default(), &message.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtc_proto::dtc::Origin;

    fn origin() -> Origin {
        let text = |text: &str| text.to_owned();
        Origin {
            coordinator_id: text("c"),
            epoch: 3,
            incarnation: text("i"),
            recovery_address: text(""),
        }
    }

    #[test]
    fn an_output_goes_back_as_it_came() {
        let origin = origin();
        let id = TransactionId::from_bytes([1; 16]);
        let to = Recipient { origin: &origin, id, branch: 2, trace: None };
        for text in ["{\"held\": 12345678901234567890.10}", "7", "[1,  2]", "\"x\""] {
            let kept = output(&Bytes::from(text)).unwrap();
            let body = decision(&to, 1, kept.as_ref(), false);
            let body = String::from_utf8(body.into()).unwrap();
            assert!(body.contains(&format!("\"output\":{text}")), "{body}");
            assert!(
                body.contains("\"decision_number\":1") && body.contains("\"branch\":2"),
                "{body}"
            );
        }
        assert_eq!(output(&Bytes::from(" \n")).unwrap(), None);
        assert!(output(&Bytes::from("{nonsense")).is_err());
        let none = String::from_utf8(decision(&to, 1, None, false).into()).unwrap();
        assert!(none.contains("\"output\":null"), "{none}");
    }

    #[test]
    fn a_refusal_is_read_from_json_problems_and_text() {
        for (body, code, message) in [
            ("{\"code\": \"SOLD\", \"message\": \"sold out\"}", "SOLD", "sold out"),
            ("{\"title\": \"Sold\", \"detail\": \"sold out\"}", "REFUSED", "sold out"),
            ("sold out", "REFUSED", "sold out"),
            ("", "REFUSED", ""),
        ] {
            let reason = refusal(ParticipantId(1), body.as_bytes());
            assert_eq!((reason.code.as_str(), reason.message.as_str()), (code, message));
        }
    }
}
