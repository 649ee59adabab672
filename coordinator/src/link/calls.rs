//! One call a message, many at a time: for participants that offer no link.

use std::{sync::Arc, time::Duration};

use common::TransactionId;
use coordinator_core::Message;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Link, Lost, Outgoing};

/// Calls to one participant at a time.
const CALLS: usize = 256;

/// Who makes the calls.
pub(super) trait Caller: Clone + Send + 'static {
    /// Makes one call and reports what it came to; returns why the participant
    /// seems to be away, if it does.
    fn call(
        self,
        id: TransactionId,
        branch: u32,
        message: Message,
        timeout: Duration,
    ) -> impl Future<Output = Option<Lost>> + Send;
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
    loop {
        // Room first: what was taken from the queue may not be lost again.
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((link.queue.recv().await?, permit))
        };
        tokio::select! {
            biased;
            Some(ended) = calls.join_next() => if let Ok(Some(lost)) = ended {
                return lost;
            },
            lost = &mut watch => return lost,
            next = next => {
                let Some((outgoing, permit)) = next else {
                    return Lost::Protocol("the participant has another address now".into());
                };
                // Outcomes are asked for by a call and answered there.
                if let Outgoing::Message { id, branch, message, timeout } = outgoing {
                    let caller = caller.clone();
                    calls.spawn(async move {
                        let lost = caller.call(id, branch, message, timeout).await;
                        drop(permit);
                        lost
                    });
                }
            }
        }
    }
}
