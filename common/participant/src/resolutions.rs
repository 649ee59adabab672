//! Branches that were decided by an operator: kept beside the journal, with who and why,
//! until somebody gives them back to retention.

use dtc_protocol::{BranchId, CoordinatorId, TransactionId};
use dtc_store::CheckedRow;
use rusqlite::{Connection, params};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS resolutions (
        transaction_id BLOB NOT NULL,
        branch INTEGER NOT NULL,
        coordinator_id BLOB NOT NULL,
        committed INTEGER NOT NULL,
        forced_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        caller TEXT NOT NULL,
        PRIMARY KEY (transaction_id, branch, coordinator_id)
    ) WITHOUT ROWID;
";

/// What is decided by an operator, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeuristicDecision {
    pub(crate) commit: bool,
    pub(crate) reason: String,
    pub(crate) caller: String,
}

/// One that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedBranch {
    pub(crate) branch: BranchId,
    pub(crate) resolution: HeuristicDecision,
    /// Wall clock, milliseconds.
    pub(crate) at: i64,
}

pub(crate) fn insert(
    connection: &Connection,
    branch: &BranchId,
    resolution: &HeuristicDecision,
    now: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO resolutions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values = params![
        branch.transaction.as_bytes(),
        branch.number,
        branch.coordinator.as_bytes(),
        resolution.commit,
        now,
        resolution.reason,
        resolution.caller,
    ];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// Up to `limit` of them before `before`, newest transactions first.
pub(crate) fn page(
    connection: &Connection,
    before: Option<&BranchId>,
    limit: usize,
) -> rusqlite::Result<Vec<ResolvedBranch>> {
    let mut statement = connection.prepare_cached(
        "SELECT transaction_id, branch, coordinator_id, committed, forced_at, reason, caller
         FROM resolutions
         WHERE ?1 IS NULL OR (transaction_id, branch, coordinator_id) < (?1, ?2, ?3)
         ORDER BY transaction_id DESC, branch DESC, coordinator_id DESC LIMIT ?4",
    )?;
    let key = before.map(|it| (it.transaction.as_bytes(), it.number, it.coordinator.as_bytes()));
    let (transaction, number, coordinator) =
        (key.map(|it| it.0), key.map(|it| it.1), key.map(|it| it.2));
    let rows = statement.query_map(
        params![transaction, number, coordinator, limit.cast_signed()],
        |row| {
            let row = CheckedRow::new("resolutions", row, 3);
            let branch = BranchId {
                transaction: TransactionId::from_bytes(row.get(0)?),
                number: row.get(1)?,
                coordinator: CoordinatorId::from_bytes(row.get(2)?),
            };
            let resolution =
                HeuristicDecision { commit: row.get(3)?, reason: row.get(5)?, caller: row.get(6)? };
            Ok(ResolvedBranch { branch, resolution, at: row.get(4)? })
        },
    )?;
    rows.collect()
}

/// Returns how many rows there were.
pub(crate) fn delete(connection: &Connection, branch: &BranchId) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM resolutions
               WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3";
    let key = params![branch.transaction.as_bytes(), branch.number, branch.coordinator.as_bytes()];
    connection.prepare_cached(sql)?.execute(key)
}
