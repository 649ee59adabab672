//! Payloads: protobuf bytes from programs, JSON objects from people.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::{
    dtc::{Payload, payload},
    json::{self, cut},
};

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
            let misfit = |it: json::Misfit| PayloadError::Json {
                expected: expected(),
                cause: format!("at '{}': {}", it.field(""), it.problem()),
            };
            let object = json::to_json(object).map_err(misfit)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::{ReserveStock, StockLine};

    /// As `grpcurl` sends what is typed: its numbers are rounded already.
    fn json(text: &str) -> Payload {
        let object = DESCRIPTORS.pool().get_message_by_name("google.protobuf.Struct").unwrap();
        let mut text = serde_json::Deserializer::from_str(text);
        let object = DynamicMessage::deserialize(object, &mut text).unwrap();
        Payload { kind: Some(payload::Kind::Json(object.transcode_to().unwrap())) }
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
