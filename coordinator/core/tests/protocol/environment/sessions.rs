//! Clients that hold locks by themselves.

use dtc_core::{CallKey, Event, SessionCall};
use dtc_protocol::{SessionId, TransactionId};

use super::{Environment, locks, seconds};

impl Environment {
    /// A session that wants these, and the number of its call.
    pub(crate) fn acquire(&mut self, keys: &str) -> (SessionId, u64) {
        let token = self.acquire_with(keys, None);
        (SessionId::from_bytes(u128::from(token).to_be_bytes()), token)
    }

    pub(crate) fn acquire_with(&mut self, keys: &str, key: Option<CallKey>) -> u64 {
        let token = self.next_number();
        let bytes = u128::from(token).to_be_bytes();
        let (id, age) = (SessionId::from_bytes(bytes), TransactionId::from_bytes(bytes));
        let (lease, until) = (seconds(30), self.now + seconds(10));
        let call = SessionCall::Acquire { age, locks: Some(locks(keys)), key, lease, until };
        self.event(Event::Session { id, token, call });
        token
    }

    pub(crate) fn session(&mut self, id: SessionId, call: SessionCall) -> u64 {
        let token = self.next_number();
        self.event(Event::Session { id, token, call });
        token
    }
}
