//! A participant whose things nobody can share: forks. A branch takes one, and has
//! it for itself from its prepare to its decision.

use dtc_participant::{BranchId, Descriptors, Error, Handle, Program, ResourceManager, Vote};
use rusqlite::Transaction;

/// A fork that two have at once breaks the table's check, which shows as the code
/// `PARTICIPANT_ERROR`.
struct Forks;

impl ResourceManager for Forks {
    const NAME: &'static str = "forks";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS forks (
            name TEXT PRIMARY KEY NOT NULL, taken INTEGER NOT NULL CHECK (taken BETWEEN 0 AND 1),
            used INTEGER NOT NULL
        );
    ";
    /// The fork's name.
    type Payload = String;
    type Output = ();

    fn descriptors() -> &'static Descriptors {
        &dtc_proto::DESCRIPTORS
    }

    fn locks(&self, name: &String) -> Vec<String> {
        vec![name.clone()]
    }

    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        name: &String,
    ) -> Result<Vote<()>, Error> {
        let take = "INSERT INTO forks VALUES (?1, 1, 0)
                    ON CONFLICT (name) DO UPDATE SET taken = taken + 1";
        transaction.execute(take, [name])?;
        Ok(Vote::Commit(()))
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        name: &String,
        (): &(),
    ) -> Result<(), Error> {
        let leave = "UPDATE forks SET taken = taken - 1, used = used + 1 WHERE name = ?1";
        Ok(transaction.execute(leave, [name]).map(drop)?)
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        name: &String,
        (): &(),
    ) -> Result<(), Error> {
        let leave = "UPDATE forks SET taken = taken - 1 WHERE name = ?1";
        Ok(transaction.execute(leave, [name]).map(drop)?)
    }
}

/// Runs the service as the process's flags say, until it is told to stop.
pub fn run_from_args() -> std::process::ExitCode {
    let program = Program {
        name: "test-forks",
        about: "Forks that nobody can share",
        listen: "127.0.0.1:7105",
        service: "test.v1.ForkService",
        resource: Forks,
        own: |_: Handle| tonic::service::Routes::default(),
    };
    program.run_from_args()
}
