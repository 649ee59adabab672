//! A repeat is answered before new work is judged (rule 19).
//!
//! What stands against a call as new work (a name that leads nowhere, a lease that has
//! run out, an address that may not be called, a size, a full disk, a process that is
//! being stopped) may have changed since the call was first answered. So where the call
//! carries a key, that is returned only once it is known that the key is new. What makes
//! the request itself malformed, whatever the configuration, is refused at once.

use dtc_core::Reply;

use super::Error;
use crate::driver::Stopped;

/// Asks the machine, which is given no work where that was not admitted.
pub(super) async fn unless_repeated<T, F>(
    keyed: bool,
    judged: Result<T, Error>,
    ask: impl FnOnce(Option<T>) -> F,
) -> Result<Reply, Error>
where
    F: Future<Output = Result<Reply, Stopped>>,
{
    let (work, judgement) = match judged {
        Ok(work) => (Some(work), None),
        Err(error) if keyed => (None, Some(error)),
        Err(error) => return Err(error),
    };
    match (ask(work).await?, judgement) {
        (Reply::NoRepeat, Some(error)) => Err(error),
        (reply, _) => Ok(reply),
    }
}
