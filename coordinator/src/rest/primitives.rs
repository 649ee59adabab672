//! Schemas of single values: names, addresses, and the JSON of a payload.

use std::borrow::Cow;

use dtc_proto::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema,
        schema::{SchemaType, Type},
    },
};

/// Of an address.
const LONGEST: usize = 1024;
const NAME: &str = "[a-z][a-z0-9-]{0,63}";
const HOST: &str = r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,39}\])";
/// From 1 to 65535.
const PORT: &str =
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const BASE: &str = "(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*";

/// A branch's reference to its participant.
pub(super) struct Named;

/// The short form of a new transaction.
pub(super) struct Participants;

/// A JSON value within a payload.
pub(super) struct Json;

/// The address of a gRPC participant.
pub(super) struct GrpcAddress;

/// The address of an HTTP participant: the URL of its prepare call.
pub(super) struct HttpAddress;

/// The key of a lock.
pub(super) struct LockKey;

macro_rules! named {
    ($type:ident, $name:literal, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    };
}

named!(
    LockKey,
    "LockKey",
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some("A name that clients choose, 1 to 256 characters."))
        .min_length(Some(1))
        .max_length(Some(256))
);
named!(
    Json,
    "Json",
    OneOfBuilder::new()
        .description(Some("Any JSON whose numbers a double represents without loss."))
        .item(ObjectBuilder::new().schema_type(SchemaType::from_iter([
            Type::Null,
            Type::Boolean,
            Type::String
        ])))
        .item(
            ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Number))
                .minimum(Some(-(json::MAX_WHOLE as f64)))
                .maximum(Some(json::MAX_WHOLE as f64))
        )
        .item(ArrayBuilder::new().items(Ref::from_schema_name("Json")))
        .item(
            ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Object))
                .additional_properties(Some(Ref::from_schema_name("Json")))
        )
);
named!(GrpcAddress, "GrpcAddress", text("`http://host:port`.", &grpc()));
named!(HttpAddress, "HttpAddress", text("`http://host:port/base/prepare`.", &http()));
named!(
    Named,
    "ParticipantName",
    text(
        "A registered name (`inventory`), a gRPC address (`http://host:port`), or the URL of an \
         HTTP participant's prepare (`http://host:port/base/prepare`).",
        &format!("{NAME}|{}|{}", grpc(), http()),
    )
);
named!(
    Participants,
    "ParticipantList",
    ArrayBuilder::new()
        .items(Ref::from_schema_name("ParticipantName"))
        .min_items(Some(1))
        .description(Some(
            "The URLs of HTTP participants' prepare calls, such as \
             `http://127.0.0.1:8001/prepare`. They receive no payload.",
        ))
);

fn grpc() -> String {
    format!("http://{HOST}:{PORT}/?")
}

fn http() -> String {
    format!("http://{HOST}(:{PORT})?{BASE}/prepare")
}

fn text(description: &str, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some(description))
        .min_length(Some(1))
        .max_length(Some(LONGEST))
        .pattern(Some(format!("^({pattern})$")))
}
