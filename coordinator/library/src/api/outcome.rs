//! Participants in doubt that have no link, and ask.

use dtc_core::BranchOutcome;
use dtc_protocol::{CoordinatorId, TransactionId, fence::Run};

use super::{Coordinator, Error};
pub use dtc_proto::dtc::Origin;

impl Coordinator {
    /// Whose messages participants get: this coordinator's, in this run.
    pub fn origin(&self) -> &Origin {
        self.links.origin()
    }

    /// What became of a branch that a run of a coordinator prepared.
    ///
    /// # Errors
    ///
    /// [`Error::Stopping`]: the participant stays in doubt, and asks again.
    pub async fn outcome_of(
        &self,
        (coordinator, run): (CoordinatorId, Run),
        id: TransactionId,
        branch: u32,
    ) -> Result<BranchOutcome, Error> {
        let journal = &self.handle.journal;
        if coordinator == journal.coordinator() && journal.was_mine(&run) {
            return Ok(self.handle.inquire(id, branch, run.epoch).await?);
        }
        tracing::warn!(
            transaction = %id, branch, %coordinator, epoch = run.epoch,
            "asked about a branch of another coordinator; answered: not mine"
        );
        Ok(BranchOutcome::NotMine)
    }
}
