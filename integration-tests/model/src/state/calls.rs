//! What clients and an operator ask of the coordinator.

use std::time::Duration;

use dtc_core::{
    AnswerAt, Begin, Client as Call, Event, Intervention, InterventionAction, LockKey, LockMode,
    NewBranch, Opaque, ParticipantId, RequestKey, Waiter,
};

use super::{FINGERPRINT, KEY, State, options};
use crate::{
    client::EnlistCall,
    journal,
    network::Id,
    setup::{Setup, Use},
};

/// Clients wait without end; what they would be shown is looked at all the time.
const PATIENCE: Duration = Duration::MAX;

impl State {
    pub(crate) fn begin(&mut self, setup: &Setup) {
        self.client.requests += 1;
        let number = self.client.requests;
        let interactive = setup.usage == Use::Interactive;
        let branches = match interactive {
            true => Vec::new(),
            false => (0..setup.participants).map(|it| new_branch(setup, it)).collect(),
        };
        let key = setup.is_keyed().then(|| (RequestKey::from(KEY), FINGERPRINT));
        let waiter = self.waiter(AnswerAt::Decision);
        self.event(Event::Begin(Box::new(Begin {
            id: journal::id(number),
            age: journal::id(number),
            key,
            admitted: true,
            options: Box::new(options(setup)),
            branches,
            locks: match setup.usage {
                Use::Locked => vec![(LockKey::from("a"), LockMode::Exclusive)],
                _ => Vec::new(),
            },
            interactive,
            id_may_be_known: false,
            trace: None,
            waiter,
        })));
    }

    pub(crate) fn enlist(&mut self, setup: &Setup) {
        let number = self.client.enlisted;
        self.client.enlisted += 1;
        self.send_enlist(setup, EnlistCall { number, again: false });
    }

    pub(crate) fn enlist_again(&mut self, setup: &Setup, number: u8) {
        self.send_enlist(setup, EnlistCall { number, again: true });
    }

    fn send_enlist(&mut self, setup: &Setup, call: EnlistCall) {
        let branch = Some(new_branch(setup, call.number.into()));
        let key = || (RequestKey::from(format!("{KEY} {}", call.number)), FINGERPRINT);
        let key = setup.enlist_keys.then(key);
        let (id, token) = (journal::id(1), call.token());
        self.event(Event::Client { id, token, call: Call::Enlist { branch, key } });
    }

    pub(crate) fn ask_prepare(&mut self) {
        self.client.asked_prepare = true;
        let until = self.now + PATIENCE;
        self.call(Call::Prepare { until });
    }

    pub(crate) fn ask_commit(&mut self) {
        self.client.asked_commit = true;
        let until = self.now + PATIENCE;
        self.call(Call::Commit { at: AnswerAt::Decision, until });
    }

    pub(crate) fn ask_rollback(&mut self) {
        self.client.asked_rollback = true;
        let until = self.now + PATIENCE;
        self.call(Call::Rollback { at: AnswerAt::Decision, until });
    }

    /// An operator resolves a branch.
    pub(crate) fn resolve(&mut self, participant: u8, id: Id, commit: bool) {
        self.resolutions -= 1;
        let action = match commit {
            true => InterventionAction::Commit,
            false => InterventionAction::Rollback,
        };
        let (branch, until) = (Some(participant.into()), self.now + PATIENCE);
        let (reason, caller) = ("".into(), "".into());
        let intervention = Intervention { at: self.now, action, branch, reason, caller };
        let call = Call::Resolve { intervention, until };
        self.event(Event::Client { id: journal::id(id), token: 0, call });
    }

    fn call(&mut self, call: Call) {
        self.event(Event::Client { id: journal::id(1), token: 0, call });
    }

    fn waiter(&self, at: AnswerAt) -> Waiter {
        Waiter { token: 0, at, until: self.now + PATIENCE }
    }
}

fn new_branch(setup: &Setup, participant: usize) -> NewBranch {
    let participant = ParticipantId(participant as u32);
    NewBranch { participant, payload: Opaque::from([0]), one_phase: !setup.two_phases }
}
