//! What bodies look like, where the types that they are read into do not tell it all.

#![allow(dead_code, reason = "these describe, nothing is read into them")]

use utoipa::{
    ToSchema,
    openapi::{
        Object, ObjectBuilder,
        schema::{SchemaType, Type},
    },
};

use super::{
    primitives::{GrpcAddress, HttpAddress, Participants},
    request::{Moment, NewBranch, NewLock, Options},
};

/// A new transaction: a list of participants' URLs, or a description.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum NewTransaction {
    Participants(Participants),
    Whole(Whole),
    Interactive(Interactive),
}

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
