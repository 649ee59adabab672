//! One transaction in one request: a call of its own, or an item of a stream.

use dtc::api::{Coordinator, Error};
use dtc_proto::dtc::{ExecuteRequest, ExecuteResponse};

use super::{read, show};

pub(super) async fn execute(
    coordinator: &Coordinator,
    mut request: ExecuteRequest,
) -> Result<ExecuteResponse, Error> {
    let wait = read::duration("wait", request.wait.take().as_ref())?;
    let answer_at = read::answer_at(request.answer_at)?;
    let new = read::new_transaction(request)?;
    let transaction = coordinator.execute(&new, false, answer_at, wait).await?;
    let committed = transaction.committed;
    Ok(ExecuteResponse { transaction: Some(show::transaction(transaction)), committed })
}
