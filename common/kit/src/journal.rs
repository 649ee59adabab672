//! The journal of branches, as rows.
//!
//! Invariants:
//! - A branch is in one table at most: `undecided` from its promise to its
//!   decision, `decided` from then until retention ends.
//! - Keys begin with the transaction id, a UUIDv7, so that new rows go to the
//!   right edge of the tree.

use common::{BranchId, CoordinatorId, Incarnation, TransactionId, branch::Branch, fence::Run};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest as _, Sha256};

use crate::{Refusal, wire::Origin};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS undecided (
        transaction_id BLOB NOT NULL,
        branch INTEGER NOT NULL,
        coordinator_id BLOB NOT NULL,
        payload BLOB NOT NULL,
        output BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        incarnation BLOB NOT NULL,
        prepared_at INTEGER NOT NULL,
        recovery_address TEXT NOT NULL,
        -- A decision that is known and could not be applied yet.
        pending_commit INTEGER,
        pending_number INTEGER,
        PRIMARY KEY (transaction_id, branch, coordinator_id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS decided (
        transaction_id BLOB NOT NULL,
        branch INTEGER NOT NULL,
        coordinator_id BLOB NOT NULL,
        committed INTEGER NOT NULL,
        decision_number INTEGER NOT NULL,
        -- Of the payload; NULL for tombstones.
        digest BLOB,
        output BLOB NOT NULL,
        refusal_code TEXT,
        refusal_message TEXT,
        decided_at INTEGER NOT NULL,
        PRIMARY KEY (transaction_id, branch, coordinator_id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS coordinators (
        coordinator_id BLOB PRIMARY KEY NOT NULL,
        epoch INTEGER NOT NULL,
        incarnation BLOB NOT NULL
    ) WITHOUT ROWID;
    -- What a coordinator told at a time about the end of its transactions.
    CREATE TABLE IF NOT EXISTS ended (
        coordinator_id BLOB NOT NULL,
        told_at INTEGER NOT NULL,
        ended_before BLOB NOT NULL,
        ended_except BLOB NOT NULL,
        PRIMARY KEY (coordinator_id, told_at)
    ) WITHOUT ROWID;
";

/// What stands for a payload once its branch is decided.
pub(crate) type Digest = [u8; 16];

/// What is known of a branch.
pub(crate) enum Found {
    Undecided(Undecided),
    Decided(Decided),
}

pub(crate) struct Undecided {
    pub(crate) payload: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) pending: Option<Pending>,
}

/// A decision that is known and not yet applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) commit: bool,
    pub(crate) number: u32,
}

pub(crate) struct Decided {
    pub(crate) state: Branch,
    pub(crate) digest: Option<Digest>,
    pub(crate) output: Vec<u8>,
    pub(crate) refusal: Option<(String, String)>,
}

impl Found {
    pub(crate) fn state(&self) -> Branch {
        match self {
            Self::Undecided(_) => Branch::Prepared,
            Self::Decided(decided) => decided.state,
        }
    }

    pub(crate) fn has_payload(&self, payload: &[u8]) -> bool {
        match self {
            Self::Undecided(undecided) => undecided.payload == payload,
            Self::Decided(decided) => decided.digest.is_none_or(|known| known == digest(payload)),
        }
    }
}

/// An undecided branch, without its contents.
#[derive(Debug, Clone)]
pub(crate) struct Doubt {
    pub(crate) branch: BranchId,
    /// The coordinator's run that prepared it.
    pub(crate) run: Run,
    /// Wall clock, milliseconds.
    pub(crate) prepared_at: i64,
    pub(crate) recovery_address: String,
    pub(crate) pending: Option<Pending>,
}

pub(crate) fn digest(payload: &[u8]) -> Digest {
    let hash = Sha256::digest(payload);
    std::array::from_fn(|index| hash[index])
}

pub(crate) fn find(connection: &Connection, branch: &BranchId) -> rusqlite::Result<Option<Found>> {
    let key = params![branch.transaction.as_bytes(), branch.number, branch.coordinator.as_bytes()];
    let undecided = connection
        .prepare_cached(
            "SELECT payload, output, pending_commit, pending_number FROM undecided
             WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .query_row(key, |row| {
            Ok(Undecided { payload: row.get(0)?, output: row.get(1)?, pending: pending(row, 2)? })
        })
        .optional()?;
    if let Some(undecided) = undecided {
        return Ok(Some(Found::Undecided(undecided)));
    }
    connection
        .prepare_cached(
            "SELECT committed, decision_number, digest, output, refusal_code, refusal_message
             FROM decided WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .query_row(key, |row| {
            let decision_number = row.get(1)?;
            let state = match row.get(0)? {
                true => Branch::Committed { decision_number },
                false => Branch::RolledBack { decision_number },
            };
            let code: Option<String> = row.get(4)?;
            let message: Option<String> = row.get(5)?;
            let (digest, output) = (row.get(2)?, row.get(3)?);
            Ok(Found::Decided(Decided { state, digest, output, refusal: code.zip(message) }))
        })
        .optional()
}

pub(crate) fn insert_undecided(
    connection: &Connection,
    branch: &BranchId,
    origin: &Origin,
    payload: &[u8],
    output: &[u8],
    now: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO undecided VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, NULL)",
        )?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
            payload,
            output,
            origin.run.epoch.cast_signed(),
            origin.run.incarnation.as_bytes(),
            now,
            origin.recovery_address,
        ])
        .map(drop)
}

/// Keeps a decision that could not be applied.
pub(crate) fn keep_pending(
    connection: &Connection,
    branch: &BranchId,
    pending: Pending,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE undecided SET pending_commit = ?4, pending_number = ?5
             WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
            pending.commit,
            pending.number,
        ])
        .map(drop)
}

pub(crate) fn delete_undecided(connection: &Connection, branch: &BranchId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM undecided
             WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
        ])
        .map(drop)
}

/// A branch's end; `payload` is none for a branch that was never prepared.
pub(crate) fn insert_decided(
    connection: &Connection,
    branch: &BranchId,
    state: Branch,
    (payload, output): (Option<&[u8]>, &[u8]),
    refusal: Option<&Refusal>,
    now: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO decided VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
            matches!(state, Branch::Committed { .. }),
            state.decision_number(),
            payload.map(digest),
            output,
            refusal.map(|refusal| refusal.code),
            refusal.map(|refusal| &refusal.message),
            now,
        ])
        .map(drop)
}

pub(crate) fn count_undecided(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM undecided", [], |row| row.get(0))
}

/// Up to `limit` undecided branches after `after`, of one coordinator or of all.
pub(crate) fn undecided_page(
    connection: &Connection,
    of: Option<CoordinatorId>,
    after: Option<&BranchId>,
    limit: usize,
) -> rusqlite::Result<Vec<Doubt>> {
    let mut statement = connection.prepare_cached(
        "SELECT transaction_id, branch, coordinator_id, epoch, incarnation, prepared_at,
                recovery_address, pending_commit, pending_number
         FROM undecided
         WHERE (transaction_id, branch, coordinator_id) > (?1, ?2, ?3)
           AND (?4 IS NULL OR coordinator_id = ?4)
         ORDER BY transaction_id, branch, coordinator_id LIMIT ?5",
    )?;
    let (transaction, number, coordinator) = match after {
        Some(after) => (&after.transaction.as_bytes()[..], i64::from(after.number), {
            &after.coordinator.as_bytes()[..]
        }),
        None => (&[][..], -1, &[][..]),
    };
    let of = of.as_ref().map(CoordinatorId::as_bytes);
    let rows = statement.query_map(
        params![transaction, number, coordinator, of, limit.cast_signed()],
        |row| {
            Ok(Doubt {
                branch: BranchId {
                    transaction: TransactionId::from_bytes(row.get(0)?),
                    number: row.get(1)?,
                    coordinator: CoordinatorId::from_bytes(row.get(2)?),
                },
                run: run(row, 3)?,
                prepared_at: row.get(5)?,
                recovery_address: row.get(6)?,
                pending: pending(row, 7)?,
            })
        },
    )?;
    rows.collect()
}

/// The newest run that was seen of a coordinator.
pub(crate) fn highest_run(
    connection: &Connection,
    coordinator: &CoordinatorId,
) -> rusqlite::Result<Option<Run>> {
    connection
        .prepare_cached("SELECT epoch, incarnation FROM coordinators WHERE coordinator_id = ?1")?
        .query_row([coordinator.as_bytes()], |row| run(row, 0))
        .optional()
}

pub(crate) fn keep_highest_run(
    connection: &Connection,
    coordinator: &CoordinatorId,
    run: &Run,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO coordinators VALUES (?1, ?2, ?3)")?
        .execute(params![
            coordinator.as_bytes(),
            run.epoch.cast_signed(),
            run.incarnation.as_bytes()
        ])
        .map(drop)
}

fn run(row: &Row<'_>, first: usize) -> rusqlite::Result<Run> {
    Ok(Run {
        epoch: row.get::<_, i64>(first)?.cast_unsigned(),
        incarnation: Incarnation::from_bytes(row.get(first + 1)?),
    })
}

fn pending(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Pending>> {
    let commit: Option<bool> = row.get(first)?;
    let number: Option<u32> = row.get(first + 1)?;
    Ok(commit.zip(number).map(|(commit, number)| Pending { commit, number }))
}
