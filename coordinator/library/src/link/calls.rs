//! One call a message, many at a time: for participants that offer no link.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dtc_core::{Message, Opaque};
use dtc_protocol::TransactionId;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{KEEP_ALIVE, Link, Lost};
use crate::driver::Outgoing;

/// Calls to one participant at a time.
const CALLS: usize = 256;

/// Who makes the calls.
pub(super) trait Caller: Clone + Send + 'static {
    /// Makes one call and reports what it came to; returns why the participant
    /// seems to be away, if it does.
    fn call(self, call: Call) -> impl Future<Output = Option<Lost>> + Send;
}

/// What a call is to bring over.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: TransactionId,
    pub(super) branch: u32,
    pub(super) attempt: u32,
    pub(super) message: Message,
    pub(super) timeout: Duration,
    pub(super) trace: Option<Opaque>,
}

/// When a participant last answered anything.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// It answered just now.
    pub(super) fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks whether a participant that nothing was heard of for a while is still there;
/// returns when it is not.
pub(super) async fn watch<F>(heard: Heard, probe: impl Fn() -> F) -> Lost
where
    F: Future<Output = Result<(), Lost>>,
{
    loop {
        let due = heard.last() + KEEP_ALIVE;
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
            continue;
        }
        if let Err(lost) = probe().await {
            return lost;
        }
        heard.again();
    }
}

/// Works until a call, or `watch`, shows that the participant is away.
pub(super) async fn run(
    link: &mut Link,
    caller: impl Caller,
    watch: impl Future<Output = Lost>,
) -> Lost {
    let room = Arc::new(Semaphore::new(CALLS));
    let mut calls = JoinSet::new();
    let mut watch = std::pin::pin!(watch);
    let lost = loop {
        // Room first: what was taken from the queue may not be lost again.
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((link.queue.recv().await?, permit))
        };
        tokio::select! {
            biased;
            Some(ended) = calls.join_next() => if let Ok(Some(lost)) = ended {
                break lost;
            },
            lost = &mut watch => break lost,
            next = next => {
                let Some((outgoing, permit)) = next else {
                    break Lost::Protocol("the participant has another address now".into());
                };
                // Outcomes are asked for by a call and answered there.
                if let Outgoing::Message { id, branch, attempt, message, timeout, trace } =
                    outgoing
                {
                    let caller = caller.clone();
                    let call = Call { id, branch, attempt, message, timeout, trace };
                    calls.spawn(async move {
                        let lost = caller.call(call).await;
                        drop(permit);
                        lost
                    });
                }
            }
        }
    };
    // No call of this connection goes on beside those of the next.
    calls.shutdown().await;
    lost
}
