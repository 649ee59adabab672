//! In place of links, where this build has no client for any: see the feature `grpc-client`.

use dtc_core::ParticipantId;
use dtc_proto::dtc::Origin;

use crate::{address::Address, directory::Participant, driver::Handle};

/// There are none.
#[derive(Clone)]
pub(crate) struct Links(Origin);

/// An address that cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[error(
    "address '{0}': this build has no client for remote participants; enable the feature grpc-client of dtc"
)]
pub struct InvalidAddress(String);

impl Links {
    pub(crate) fn new(_: Handle, origin: Origin, _: usize) -> Self {
        Self(origin)
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0
    }

    pub(crate) fn check(address: &Address) -> Result<(), InvalidAddress> {
        Err(InvalidAddress(address.to_string()))
    }

    pub(crate) fn ensure(&self, participant: &Participant) -> Result<(), InvalidAddress> {
        participant.address.as_deref().map_or(Ok(()), Self::check)
    }

    pub(crate) async fn end(&self, _: ParticipantId) {}
}
