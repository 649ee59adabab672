//! Identities: 16 bytes on links and in tables, UUID strings to people.

use core::{fmt, str::FromStr};

use uuid::Uuid;

/// A string that is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID, such as 0192f0c1-7a3e-7c5d-9b1e-3f2a6c8d4e5f")
    }
}

impl core::error::Error for ParseIdError {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// From a slice, if it has 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text).map(|id| Self(id.into_bytes())).map_err(|_| ParseIdError)
            }
        }
    };
}

id! {
    /// A transaction: a UUIDv7 that the coordinator makes, a new one for every run.
    /// One coordinator's ids only grow.
    TransactionId
}
id! {
    /// A client that holds locks by itself: a UUIDv7 of the row that transactions'
    /// ids are of.
    SessionId
}
id! {
    /// A coordinator: the identity of its journal, made when the file is created.
    CoordinatorId
}
id! {
    /// A participant's journal, made when the file is created.
    JournalId
}
id! {
    /// One run of a coordinator, drawn at random at every start.
    Incarnation
}

/// One participant's part of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId {
    /// Who coordinates it.
    pub coordinator: CoordinatorId,
    /// The transaction that it belongs to.
    pub transaction: TransactionId,
    /// Its number within the transaction, from 0.
    pub number: u32,
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transaction, self.number)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        let id = TransactionId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("order-1".parse::<TransactionId>(), Err(ParseIdError));
        assert_eq!(TransactionId::from_slice(b"short"), None);
    }

    #[test]
    fn a_text_that_is_no_id_is_answered_with_an_example_that_is_one() {
        let error = ParseIdError.to_string();
        let example = error.rsplit(' ').next().unwrap_or_default();
        assert!(example.parse::<TransactionId>().is_ok(), "{error}");
    }

    #[test]
    fn a_branch_is_shown_by_its_transaction_and_its_number() {
        let transaction = TransactionId::from_bytes(*b"0123456789abcdef");
        let coordinator = CoordinatorId::from_bytes([7; 16]);
        let branch = BranchId { coordinator, transaction, number: 2 };
        assert_eq!(branch.to_string(), "30313233-3435-3637-3839-616263646566/2");
    }
}
