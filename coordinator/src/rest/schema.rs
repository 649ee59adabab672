//! Schemas of bodies, where the types that they are read into do not show all of it.

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

/// A new transaction: a list of participants' URLs, or an object.
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
    /// Its branches.
    #[schema(min_items = 1)]
    branches: Vec<NewBranch>,
    #[schema(required = false)]
    options: Options,
    /// The moment at which a request with a wait is answered.
    #[schema(required = false)]
    answer_at: Moment,
    #[schema(required = false, schema_with = no)]
    interactive: bool,
    /// Locks that are acquired before the first prepare and held until all branches have
    /// acknowledged.
    #[schema(required = false, max_items = 1000)]
    locks: Vec<NewLock>,
    /// The first transaction of which this is a retry; it keeps that one's age.
    #[schema(
        required = false,
        pattern = "^([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})?$"
    )]
    retry_of: String,
}

/// An interactive transaction: its client enlists branches, and then commits or rolls
/// back.
#[derive(ToSchema)]
#[schema(as = NewInteractiveTransaction)]
#[serde(deny_unknown_fields)]
pub(super) struct Interactive {
    #[schema(schema_with = yes)]
    interactive: bool,
    #[schema(required = false)]
    options: Options,
    /// Empty: branches are enlisted one by one.
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

/// A participant that speaks gRPC.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGrpcParticipant {
    #[schema(value_type = GrpcAddress)]
    address: String,
    /// It has no `Link`, and calls GetOutcome when in doubt.
    #[schema(required = false)]
    supports_inquiry: bool,
    /// It has no `Link`, and can undo a committed branch.
    #[schema(required = false)]
    compensates: bool,
    /// Time until the registration expires unless it is renewed; where not set, it never
    /// expires.
    #[schema(minimum = 1000, maximum = 86400000)]
    lease_ms: Option<u64>,
}

/// A participant that speaks HTTP.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHttpParticipant {
    #[schema(value_type = HttpAddress)]
    address: String,
    /// Not supported over HTTP.
    #[schema(required = false, schema_with = no)]
    supports_inquiry: bool,
    /// It can undo a committed branch: it supports `compensate` of a rollback.
    #[schema(required = false)]
    compensates: bool,
    /// Time until the registration expires unless it is renewed; where not set, it never
    /// expires.
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
