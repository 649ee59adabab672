//! How requests name participants, and which addresses may be called for them.

use super::{Coordinator, Error};
use crate::{address::Address, directory::Participant, link::Links};

impl Coordinator {
    pub(super) fn ensure_link(&self, participant: &Participant) -> Result<(), Error> {
        let ensured = self.links.ensure(participant);
        ensured.map_err(|error| Error::invalid("address", error.to_string()))
    }

    /// A participant that a client names for new work: registered, or by its address.
    pub(super) fn participant_named(&self, field: &str, name: &str) -> Result<Participant, Error> {
        let directory = &self.handle.directory;
        if let Some(known) = directory.find(name) {
            return self.open(field, known);
        }
        if !name.contains("://") {
            return Err(self.unknown(field, name));
        }
        let address: Address =
            name.parse().map_err(|error: String| Error::invalid(field, error))?;
        if let Some(known) = directory.at(&address) {
            let known = self.open(field, known)?;
            self.ensure_link(&known)?;
            return Ok(known);
        }
        self.check_allowed(field, &address)?;
        let added = directory.add_address(&address).ok_or_else(|| {
            Error::Exhausted(format!(
                "{field}: too many participants are known by their address only; register '{address}'"
            ))
        })?;
        self.ensure_link(&added)?;
        Ok(added)
    }

    /// Whether a request may make the coordinator call an address, and whether it can.
    pub(super) fn check_allowed(&self, field: &str, address: &Address) -> Result<(), Error> {
        if !self.limits.allowed.iter().any(|pattern| pattern.matches(address)) {
            return Err(Error::NotAllowed {
                field: field.into(),
                address: address.to_string(),
                pattern: format!("{}:{}", address.host(), address.port()),
            });
        }
        Links::check(address).map_err(|error| Error::invalid(field, error.to_string()))
    }

    /// Whether a known participant takes new work.
    fn open(&self, field: &str, known: Participant) -> Result<Participant, Error> {
        if let Some(epoch) = known.newer_epoch {
            let own = self.origin().epoch;
            let why = format!(
                "is quarantined: it says that it knows epoch {epoch} of this coordinator, which is \
                 in epoch {own}; its operators have to find out which of the two is right"
            );
            return Err(Error::NotOpen { field: field.into(), name: known.name.to_string(), why });
        }
        let Some(status) = &known.status else {
            // It may be known from a journal that was written under other patterns.
            if let Some(address) = &known.address {
                self.check_allowed(field, address)?;
            }
            return Ok(known);
        };
        let why = match status.lease_left() {
            _ if status.draining => "is being drained; it takes no new transactions",
            Some(left) if left.is_zero() => {
                "has not renewed its registration, which has run out; renew it or register again"
            }
            _ => return Ok(known),
        };
        let why = why.into();
        Err(Error::NotOpen { field: field.into(), name: known.name.to_string(), why })
    }

    fn unknown(&self, field: &str, name: &str) -> Error {
        let known: Vec<_> = self.handle.directory.all();
        let known: Vec<_> = known.iter().map(|it| &*it.name).take(20).collect();
        let known = match known.is_empty() {
            true => "none".into(),
            false => known.join(", "),
        };
        let name: String = name.chars().take(80).collect();
        Error::invalid(
            field,
            format!(
                "no participant '{name}' is registered (known: {known}); register it, start the \
                 coordinator with --participant {name}=http://host:port, or give its address"
            ),
        )
    }
}
