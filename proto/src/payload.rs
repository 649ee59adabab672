//! Payloads: protobuf bytes from programs, JSON objects from people.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::{Struct, Value, value::Kind};
use serde_json::{Map, Number};

use crate::dtc::{Payload, payload};

/// The largest whole number up to which a double holds every whole number: 2^53 - 1.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// Characters.
const SHOWN: usize = 300;

/// Of everything that is on the wire.
pub static DESCRIPTORS: Descriptors = Descriptors::new(crate::FILE_DESCRIPTOR_SET);

/// What messages look like: for payloads that people type as JSON, and for
/// reflection.
#[derive(Debug)]
pub struct Descriptors {
    encoded: &'static [u8],
    pool: OnceLock<DescriptorPool>,
}

impl Descriptors {
    /// From the encoded `FileDescriptorSet` that a build made.
    pub const fn new(encoded: &'static [u8]) -> Self {
        Self { encoded, pool: OnceLock::new() }
    }

    /// As it was given.
    pub fn encoded(&self) -> &'static [u8] {
        self.encoded
    }

    fn pool(&self) -> &DescriptorPool {
        self.pool.get_or_init(|| {
            DescriptorPool::decode(self.encoded)
                .expect("the descriptor set that the build made can be decoded")
        })
    }
}

/// Why a payload is not the message that was expected.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Neither typed bytes nor JSON was sent.
    #[error("the payload is empty; expected {expected} as 'json' or 'typed'")]
    Missing {
        /// Full name of the message.
        expected: String,
    },
    /// The typed bytes cannot be decoded.
    #[error("the payload's typed bytes are no {expected}: {cause}")]
    Typed {
        /// Full name of the message.
        expected: String,
        /// What the decoder says.
        cause: prost::DecodeError,
    },
    /// The JSON object does not fit the message.
    #[error("the payload's json is no {expected}: {cause}")]
    Json {
        /// Full name of the message.
        expected: String,
        /// What the decoder says.
        cause: String,
    },
    /// A whole number in the JSON object that a double cannot hold exactly.
    #[error(
        "the payload's json has {value} at '{field}', which a JSON number cannot hold exactly; send it as a string"
    )]
    Inexact {
        /// Path to the number, such as `lines[0].quantity`.
        field: String,
        /// The number as it came.
        value: f64,
    },
}

/// Decodes a payload into the message that a participant expects.
///
/// # Errors
///
/// [`PayloadError`] says what is wrong with the payload, and where.
pub fn decode_payload<M: Message + Name + Default>(
    payload: Option<&Payload>,
) -> Result<M, PayloadError> {
    decode_payload_of(&DESCRIPTORS, payload)
}

/// As [`decode_payload`], for a message with descriptors of its own.
///
/// # Errors
///
/// As [`decode_payload`].
pub fn decode_payload_of<M: Message + Name + Default>(
    descriptors: &Descriptors,
    payload: Option<&Payload>,
) -> Result<M, PayloadError> {
    let expected = M::full_name;
    match payload.and_then(|payload| payload.kind.as_ref()) {
        None => Err(PayloadError::Missing { expected: expected() }),
        Some(payload::Kind::Typed(bytes)) => M::decode(bytes.clone())
            .map_err(|cause| PayloadError::Typed { expected: expected(), cause }),
        Some(payload::Kind::Json(object)) => {
            let json_error =
                |cause: String| PayloadError::Json { expected: expected(), cause: cut(&cause) };
            let descriptor = descriptors
                .pool()
                .get_message_by_name(&expected())
                .ok_or_else(|| json_error("no such message is known here".into()))?;
            let object = to_json_object(object, "")?;
            let mut track = serde_path_to_error::Track::new();
            let object = serde_path_to_error::Deserializer::new(object, &mut track);
            let message = DynamicMessage::deserialize(descriptor, object);
            let message = message.map_err(|error| {
                let path = track.path().to_string();
                json_error(format!("at '{}': {error}", cut(&path)))
            })?;
            M::decode(message.encode_to_vec().as_slice())
                .map_err(|error| json_error(error.to_string()))
        }
    }
}

fn to_json_object(object: &Struct, path: &str) -> Result<serde_json::Value, PayloadError> {
    let mut map = Map::new();
    for (name, value) in &object.fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        map.insert(name.clone(), to_json(value, &path)?);
    }
    Ok(map.into())
}

fn to_json(value: &Value, path: &str) -> Result<serde_json::Value, PayloadError> {
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::StringValue(value)) => value.clone().into(),
        Some(Kind::NumberValue(value)) => to_json_number(*value, path)?,
        Some(Kind::StructValue(value)) => to_json_object(value, path)?,
        Some(Kind::ListValue(list)) => list
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| to_json(value, &format!("{path}[{index}]")))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
    })
}

fn to_json_number(value: f64, path: &str) -> Result<serde_json::Value, PayloadError> {
    if value.fract() == 0.0 && value.abs() > MAX_EXACT {
        return Err(PayloadError::Inexact { field: cut(path), value });
    }
    if value.fract() == 0.0 {
        return Ok(Number::from(value as i64).into());
    }
    Number::from_f64(value)
        .map(Into::into)
        .ok_or_else(|| PayloadError::Inexact { field: cut(path), value })
}

/// What is shown of names and values that somebody sent: they may be as long as
/// a payload, and an error is logged and kept.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::{ReserveStock, StockLine};

    fn json(text: &str) -> Payload {
        Payload { kind: Some(payload::Kind::Json(object(&serde_json::from_str(text).unwrap()))) }
    }

    fn object(value: &serde_json::Value) -> Struct {
        let fields = value.as_object().unwrap().iter();
        Struct { fields: fields.map(|(name, value)| (name.clone(), from_json(value))).collect() }
    }

    fn from_json(value: &serde_json::Value) -> Value {
        let kind = match value {
            serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            serde_json::Value::String(text) => Kind::StringValue(text.clone()),
            serde_json::Value::Bool(value) => Kind::BoolValue(*value),
            serde_json::Value::Null => Kind::NullValue(0),
            serde_json::Value::Array(values) => Kind::ListValue(prost_types::ListValue {
                values: values.iter().map(from_json).collect(),
            }),
            serde_json::Value::Object(_) => Kind::StructValue(object(value)),
        };
        Value { kind: Some(kind) }
    }

    fn reserve(text: &str) -> Result<ReserveStock, PayloadError> {
        decode_payload(Some(&json(text)))
    }

    #[test]
    fn json_and_typed_bytes_decode_to_the_same_message() {
        let line = StockLine {
            sku: "apple".into(),
            quantity: 3,
            expected_version: Some(7),
            check_only: false,
        };
        let message = ReserveStock { lines: vec![line] };
        let typed = Payload { kind: Some(payload::Kind::Typed(message.encode_to_vec().into())) };
        assert_eq!(decode_payload::<ReserveStock>(Some(&typed)).unwrap(), message);
        let text = r#"{"lines":[{"sku":"apple","quantity":3,"expectedVersion":"7"}]}"#;
        assert_eq!(reserve(text).unwrap(), message);
        let text = r#"{"lines":[{"sku":"apple","quantity":"3","expected_version":7}]}"#;
        assert_eq!(reserve(text).unwrap(), message);
    }

    #[test]
    fn a_number_that_a_double_cannot_hold_is_refused_with_its_path() {
        let error =
            reserve(r#"{"lines":[{"sku":"apple","quantity":9007199254740993}]}"#).unwrap_err();
        assert!(error.to_string().contains("'lines[0].quantity'"), "{error}");
        assert!(error.to_string().contains("send it as a string"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_field() {
        for (text, part) in [
            (r#"{"lines":[{"sku":"apple","quantity":1.5}]}"#, "'lines[0].quantity'"),
            (r#"{"lins":[]}"#, "'lins'"),
            (r#"{"lines":[{"sku":5}]}"#, "'lines[0].sku'"),
        ] {
            let error = reserve(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let empty = decode_payload::<ReserveStock>(None).unwrap_err().to_string();
        assert!(empty.contains("shop.v1.ReserveStock"), "{empty}");
    }
}
