//! What bodies look like, where the types that they are read into do not tell it all.

#![allow(dead_code, reason = "these describe, nothing is read into them")]

use std::borrow::Cow;

use dtc_proto::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema,
        schema::{SchemaType, Type},
    },
};

use super::request::{Moment, NewBranch, NewLock, Options};

/// Of an address.
const LONGEST: usize = 1024;
const NAME: &str = "[a-z][a-z0-9-]{0,63}";
const HOST: &str = r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,39}\])";
/// From 1 to 65535.
const PORT: &str =
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const BASE: &str = "(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*";

/// A new transaction: a list of participants' URLs, or a description.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum NewTransaction {
    Participants(Participants),
    Whole(Whole),
    Interactive(Interactive),
}

/// A transaction in short.
pub(super) struct Participants;

/// A transaction with all of its branches.
#[derive(ToSchema)]
#[schema(as = NewWholeTransaction)]
#[serde(deny_unknown_fields)]
pub(super) struct Whole {
    /// What is to be done where.
    #[schema(min_items = 1)]
    branches: Vec<NewBranch>,
    #[schema(required = false)]
    options: Options,
    /// When a request that waits is answered.
    #[schema(required = false)]
    answer_at: Moment,
    #[schema(required = false, schema_with = no)]
    interactive: bool,
    /// What it locks before anything is sent, until nothing is owed.
    #[schema(required = false, max_items = 1000)]
    locks: Vec<NewLock>,
    /// The first transaction of which this is a retry; it keeps that one's age.
    #[schema(
        required = false,
        pattern = "^([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})?$"
    )]
    retry_of: String,
}

/// A transaction that is begun only: its client enlists branches, and then commits or
/// rolls back. It has no idempotency key.
#[derive(ToSchema)]
#[schema(as = NewInteractiveTransaction)]
#[serde(deny_unknown_fields)]
pub(super) struct Interactive {
    #[schema(schema_with = yes)]
    interactive: bool,
    #[schema(required = false)]
    options: Options,
    /// None: they are enlisted one by one.
    #[schema(required = false, max_items = 0)]
    branches: Vec<NewBranch>,
    /// Ignored for interactive transactions.
    #[schema(required = false)]
    answer_at: Moment,
    /// The first transaction of which this is a retry; it keeps that one's age.
    #[schema(
        required = false,
        pattern = "^([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})?$"
    )]
    retry_of: String,
}

/// A participant's registration.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum NewParticipant {
    Grpc(NewGrpcParticipant),
    Http(NewHttpParticipant),
}

/// One that speaks gRPC.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGrpcParticipant {
    #[schema(value_type = GrpcAddress)]
    address: String,
    /// It has no `Link`, and asks when in doubt.
    #[schema(required = false)]
    supports_inquiry: bool,
    /// It has no `Link`, and can undo what it has committed.
    #[schema(required = false)]
    compensates: bool,
    /// How long the registration is good unless it is renewed; without end where
    /// not set.
    #[schema(minimum = 1000, maximum = 86400000)]
    lease_ms: Option<u64>,
}

/// One that speaks HTTP.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHttpParticipant {
    #[schema(value_type = HttpAddress)]
    address: String,
    /// It can't ask.
    #[schema(required = false, schema_with = no)]
    supports_inquiry: bool,
    /// It can undo what it has committed: it understands `compensate` of a rollback.
    #[schema(required = false)]
    compensates: bool,
    /// How long the registration is good unless it is renewed; without end where
    /// not set.
    #[schema(minimum = 1000, maximum = 86400000)]
    lease_ms: Option<u64>,
}

/// How a branch names its participant.
pub(super) struct Named;

/// In a payload.
pub(super) struct Json;

/// Where a participant is that speaks gRPC.
struct GrpcAddress;

/// Where one is that speaks HTTP: the URL of its prepare.
struct HttpAddress;

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
    Json,
    "Json",
    OneOfBuilder::new()
        .description(Some("Any JSON, of numbers that a double holds exactly."))
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
             `http://127.0.0.1:8001/prepare`. They get no payload.",
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

fn yes() -> Object {
    constant(true)
}

fn no() -> Object {
    constant(false)
}

fn constant(value: bool) -> Object {
    let object = ObjectBuilder::new().schema_type(SchemaType::new(Type::Boolean));
    object.enum_values(Some([value])).build()
}
