//! Payloads as messages: protobuf bytes, or JSON objects.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::{
    dtc::{Payload, payload},
    json::{self, cut},
};

/// Of `dtc.v1`.
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

/// Decodes a payload into the message that a participant expects; `descriptors` describe it,
/// for JSON.
///
/// # Errors
///
/// [`PayloadError`] says what is wrong with the payload, and where.
pub fn decode_payload<M: Message + Name + Default>(
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
