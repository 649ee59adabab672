//! Payloads: protobuf bytes from programs, JSON objects from whoever types them.

use prost::Message;

use crate::{
    dtc::{Payload, payload},
    json,
};

impl Payload {
    /// A message of the participant's own, already encoded.
    pub fn typed(bytes: impl Into<bytes::Bytes>) -> Self {
        Self { kind: Some(payload::Kind::Typed(bytes.into())) }
    }

    /// A message of the participant's own.
    pub fn message(message: &impl Message) -> Self {
        Self::typed(message.encode_to_vec())
    }

    /// A JSON object.
    ///
    /// # Errors
    ///
    /// [`Misfit`](json::Misfit) for what is none, and for a number that a double does not
    /// hold exactly.
    pub fn json(value: serde_json::Value) -> Result<Self, json::Misfit> {
        let serde_json::Value::Object(object) = value else {
            return Err(json::Misfit::no_object());
        };
        Ok(Self { kind: Some(payload::Kind::Json(json::to_struct(object)?)) })
    }
}
