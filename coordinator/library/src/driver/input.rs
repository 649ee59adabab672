//! What the driver takes in, as events of the machine.

use std::{sync::Weak, time::Duration};

use dtc_core::{
    Action, Begin, BranchOutcome, Client, Event, Inquirer, LockOwner, LockView, ParticipantId,
    Reply, RequestKey, SessionCall, Time, View, Waiter,
};
use dtc_protocol::{SessionId, TransactionId};
use tokio::sync::mpsc;

use super::{
    Call, Driver, NewSession, NewTransaction, Outgoing, Queue, crash_points, locks::WhichLocks,
    pending,
};

/// What the driver takes in.
#[derive(Debug)]
pub(super) enum Input {
    Begin {
        new: NewTransaction,
        wait: Duration,
        reply: pending::Answer<Reply>,
    },
    Client {
        id: TransactionId,
        call: Call,
        wait: Duration,
        reply: pending::Answer<Reply>,
    },
    Acquire {
        new: NewSession,
        wait: Duration,
        reply: pending::Answer<Reply>,
    },
    Session {
        id: SessionId,
        call: SessionCall,
        reply: pending::Answer<Reply>,
    },
    /// A call that waited for locks was given up by its client.
    CallGone,
    /// The process is being stopped: calls are answered with what is known.
    EndWaits,
    ListLocks {
        which: WhichLocks,
        reply: pending::Answer<(Time, Vec<LockView>)>,
    },
    Inquire {
        id: TransactionId,
        branch: u32,
        epoch: u64,
        reply: pending::Answer<BranchOutcome>,
    },
    List {
        before: Option<TransactionId>,
        limit: usize,
        reply: pending::Answer<Vec<View>>,
    },
    UserOf {
        key: RequestKey,
        reply: pending::Answer<Option<TransactionId>>,
    },
    Unfinished {
        participant: ParticipantId,
        reply: pending::Answer<usize>,
    },
    Events(Vec<Event>),
    KeysFound(Vec<Event>),
    Unreadable {
        to: Inquirer,
        id: TransactionId,
        branch: u32,
    },
    Link {
        participant: ParticipantId,
        queue: mpsc::Sender<Outgoing>,
    },
    Unlink {
        participant: ParticipantId,
    },
}

impl Driver {
    pub(super) fn take(&mut self, input: Input) {
        match input {
            Input::Begin { new, wait, reply } => self.begin(new, wait, reply),
            Input::Client { id, call, wait, reply } => {
                let call = call.of_client(self.clock.now(), self.until(wait));
                let token = self.pending.calls.add(reply);
                if matches!(call, Client::Lock { .. }) {
                    self.pending.locking.insert(token, LockOwner::Transaction(id));
                }
                self.handle(Event::Client { id, token, call });
            }
            Input::Acquire { new, wait, reply } => self.acquire(new, wait, reply),
            Input::Session { id, call, reply } => {
                let token = self.pending.calls.add(reply);
                self.handle(Event::Session { id, token, call });
            }
            Input::CallGone => self.calls_gone = true,
            Input::EndWaits => self.end_waits(),
            Input::ListLocks { which, reply } => self.list_locks(&which, reply),
            Input::Inquire { id, branch, epoch, reply } => {
                let from = Inquirer::Call(self.pending.inquiries.add(reply));
                self.handle(Event::Inquired { from, id, branch, epoch });
            }
            Input::List { before, limit, reply } => {
                let _ = reply.send(self.machine.list(before).take(limit).collect());
            }
            Input::UserOf { key, reply } => {
                let _ = reply.send(self.machine.user_of(&key));
            }
            Input::Unfinished { participant, reply } => {
                let _ = reply.send(self.machine.unfinished_at(participant));
            }
            Input::Events(events) => self.take_events(events),
            Input::KeysFound(events) => {
                self.looking = false;
                events.into_iter().for_each(|event| self.handle(event));
            }
            Input::Unreadable { to, id, branch } => {
                let outcome = BranchOutcome::Pending;
                self.perform(Action::Answer { to, id, branch, outcome });
            }
            Input::Link { participant, queue } => {
                let queue = Queue { messages: queue, ended: Weak::new() };
                self.links.insert(participant, queue);
                self.notified_at = None;
            }
            Input::Unlink { participant } => {
                self.links.remove(&participant);
                self.machine.forget_participant(participant);
            }
        }
    }

    fn begin(&mut self, new: NewTransaction, wait: Duration, reply: pending::Answer<Reply>) {
        let id = self.ids.next(self.clock.now());
        let admitted = new.work.is_some();
        let work = new.work.unwrap_or_default();
        let begin = Begin {
            id,
            age: work.retry_of.unwrap_or(id),
            key: new.key,
            admitted,
            options: work.options,
            branches: work.branches,
            locks: work.locks,
            interactive: new.interactive,
            id_may_be_known: new.id_may_be_known,
            trace: new.trace,
            waiter: Waiter {
                token: self.pending.calls.add(reply),
                at: new.answer_at,
                until: self.until(wait),
            },
        };
        self.handle(Event::Begin(Box::new(begin)));
    }

    fn take_events(&mut self, events: Vec<Event>) {
        for event in events {
            // What was queued for a link is lost with it.
            if matches!(event, Event::Connected { .. }) {
                self.notified_at = None;
            }
            crash_points::taken(&event);
            self.handle(event);
        }
    }
}
