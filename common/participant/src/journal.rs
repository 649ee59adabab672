//! The journal of branches, as rows.
//!
//! Invariants:
//! - A branch is in one table at most: `undecided` from its promise to its
//!   decision, `decided` from then until retention ends.
//! - A row that is not what was written, by its checksum or its types, is an
//!   error that names it: it is never acted on.
//! - Keys begin with the transaction id, a UUIDv7, so that new rows go to the
//!   right edge of the tree.

use dtc_protocol::{
    BranchId, CoordinatorId, Incarnation, TransactionId,
    branch::{Branch, Verdict},
    fence::Run,
};
use dtc_store::{CheckedRow, check_pages, checksum};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest as _, Sha256};

use crate::{Refusal, footprint, wire::Origin};

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
        -- The first transaction of which this is a retry, or itself.
        age BLOB NOT NULL,
        may_compensate INTEGER NOT NULL,
        -- The keys that it holds, each after its length; empty for none.
        locks BLOB NOT NULL,
        -- Of the key and all that a decision and a question need.
        checksum INTEGER NOT NULL,
        -- A decision that is known and could not be applied yet, and its checksum.
        pending_commit INTEGER,
        pending_number INTEGER,
        pending_checksum INTEGER,
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
        -- Of a commit that may be compensated.
        payload BLOB,
        output BLOB NOT NULL,
        refusal_code TEXT,
        refusal_message TEXT,
        -- Service time, milliseconds.
        decided_at INTEGER NOT NULL,
        -- Of the key and the state; with a payload, of that and the output too.
        checksum INTEGER NOT NULL,
        PRIMARY KEY (transaction_id, branch, coordinator_id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS coordinators (
        coordinator_id BLOB PRIMARY KEY NOT NULL,
        epoch INTEGER NOT NULL,
        incarnation BLOB NOT NULL,
        -- Of all the others.
        checksum INTEGER NOT NULL
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
    pub(crate) may_compensate: bool,
    pub(crate) pending: Option<Verdict>,
}

pub(crate) struct Decided {
    pub(crate) state: Branch,
    pub(crate) digest: Option<Digest>,
    /// Of a commit that may be compensated.
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) output: Vec<u8>,
    pub(crate) refusal: Option<(String, String)>,
}

impl Undecided {
    pub(crate) fn state(&self) -> Branch {
        Branch::Prepared { pending: self.pending }
    }
}

impl Found {
    pub(crate) fn state(&self) -> Branch {
        match self {
            Self::Undecided(undecided) => undecided.state(),
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
pub(crate) struct InDoubtBranch {
    pub(crate) branch: BranchId,
    /// The coordinator's run that prepared it.
    pub(crate) run: Run,
    /// Wall clock, milliseconds.
    pub(crate) prepared_at: i64,
    pub(crate) recovery_address: String,
    /// [`Branch::Prepared`].
    pub(crate) state: Branch,
}

impl InDoubtBranch {
    /// The least milliseconds since it was prepared, or by which the wall clock was set
    /// back since: what is far in the future is as old as what is long past.
    pub(crate) fn age(&self, now: i64) -> u64 {
        now.abs_diff(self.prepared_at)
    }
}

/// What goes with a promise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrepareTerms<'a> {
    /// The first transaction of which the branch's is a retry, or its own.
    pub(crate) age: TransactionId,
    /// Its commit may be compensated.
    pub(crate) may_compensate: bool,
    /// What it locks, by [`encode_keys`].
    pub(crate) keys: &'a [u8],
}

/// Keys as they are kept with a promise.
pub(crate) fn encode_keys(keys: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in keys {
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend(key.as_bytes());
    }
    bytes
}

/// From [`encode_keys`]; none where they were not made by it.
fn decode_keys(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        keys.push(String::from_utf8(key.into()).ok()?);
        bytes = rest;
    }
    bytes.is_empty().then_some(keys)
}

pub(crate) fn digest(payload: &[u8]) -> Digest {
    let hash = Sha256::digest(payload);
    std::array::from_fn(|index| hash[index])
}

pub(crate) fn find(connection: &Connection, branch: &BranchId) -> rusqlite::Result<Option<Found>> {
    let key = params![branch.transaction.as_bytes(), branch.number, branch.coordinator.as_bytes()];
    let undecided = connection
        .prepare_cached(
            "SELECT transaction_id, branch, coordinator_id, payload, output, epoch, incarnation,
                    recovery_address, checksum, pending_commit, pending_number, pending_checksum,
                    age, may_compensate, locks
             FROM undecided
             WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .query_row(key, |row| undecided(&CheckedRow::new("undecided", row, 3)))
        .optional()?;
    if let Some(undecided) = undecided {
        return Ok(Some(Found::Undecided(undecided)));
    }
    connection
        .prepare_cached(
            "SELECT transaction_id, branch, coordinator_id, committed, decision_number, digest,
                    output, refusal_code, refusal_message, checksum, payload
             FROM decided WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .query_row(key, |row| decided(&CheckedRow::new("decided", row, 3)).map(Found::Decided))
        .optional()
}

/// A row with the columns that [`find`] selects.
fn undecided(row: &CheckedRow<'_>) -> rusqlite::Result<Undecided> {
    let branch = branch(row)?;
    let (payload, output): (Vec<u8>, Vec<u8>) = (row.get(3)?, row.get(4)?);
    let (run, recovery_address) = (run(row, 5)?, row.get::<String>(7)?);
    let keys: Vec<u8> = row.get(14)?;
    let terms = PrepareTerms { age: age(row)?, may_compensate: row.get(13)?, keys: &keys };
    let origin = (&run, &*recovery_address);
    if row.get::<u32>(8)? != of_promise(&branch, origin, terms, &payload, &output) {
        return Err(
            row.damaged(8, "checksum mismatch: the row's contents do not match its checksum")
        );
    }
    let may_compensate = terms.may_compensate;
    Ok(Undecided { payload, output, may_compensate, pending: pending(row, &branch, 9)? })
}

/// A row with the columns that [`find`] selects.
fn decided(row: &CheckedRow<'_>) -> rusqlite::Result<Decided> {
    let decision_number = row.get(4)?;
    let state = match row.get(3)? {
        true => Branch::Committed { decision_number },
        false => Branch::RolledBack { decision_number },
    };
    let (payload, output): (Option<Vec<u8>>, Vec<u8>) = (row.get(10)?, row.get(6)?);
    let kept = payload.as_ref().map(|payload| (&payload[..], &output[..]));
    if row.get::<u32>(9)? != of_decision(&branch(row)?, state, kept) {
        return Err(
            row.damaged(9, "checksum mismatch: the row's contents do not match its checksum")
        );
    }
    let (code, message): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
    Ok(Decided { state, digest: row.get(5)?, payload, output, refusal: code.zip(message) })
}

/// Of an undecided row with the columns that [`find`] selects.
fn age(row: &CheckedRow<'_>) -> rusqlite::Result<TransactionId> {
    row.get(12).map(TransactionId::from_bytes)
}

/// The key, in the first three columns.
fn branch(row: &CheckedRow<'_>) -> rusqlite::Result<BranchId> {
    Ok(BranchId {
        transaction: TransactionId::from_bytes(row.get(0)?),
        number: row.get(1)?,
        coordinator: CoordinatorId::from_bytes(row.get(2)?),
    })
}

fn of_promise(
    branch: &BranchId,
    (run, recovery_address): (&Run, &str),
    terms: PrepareTerms<'_>,
    payload: &[u8],
    output: &[u8],
) -> u32 {
    checksum(&[
        &key_bytes(branch),
        &run.epoch.to_le_bytes(),
        run.incarnation.as_bytes(),
        recovery_address.as_bytes(),
        terms.age.as_bytes(),
        &[terms.may_compensate.into()],
        terms.keys,
        payload,
        output,
    ])
}

/// `kept` are the payload and the output of a commit that may be compensated.
fn of_decision(branch: &BranchId, state: Branch, kept: Option<(&[u8], &[u8])>) -> u32 {
    let commit = matches!(state, Branch::Committed { .. });
    let (payload, output) = kept.unwrap_or_default();
    let number = state.decision_number().to_le_bytes();
    checksum(&[&key_bytes(branch), &[commit.into()], &number, payload, output])
}

fn key_bytes(branch: &BranchId) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..16].copy_from_slice(branch.transaction.as_bytes());
    bytes[16..32].copy_from_slice(branch.coordinator.as_bytes());
    bytes[32..].copy_from_slice(&branch.number.to_le_bytes());
    bytes
}

/// Reads all of [`undecided`], as every promise will be needed again, and hands out
/// each one's branch and age, and the keys that it holds.
pub(crate) fn check(
    connection: &Connection,
    mut promised: impl FnMut(&BranchId, TransactionId, Vec<String>),
) -> rusqlite::Result<()> {
    for table in ["undecided", "coordinators"] {
        check_pages(connection, table)?;
    }
    let mut statement = connection.prepare(
        "SELECT transaction_id, branch, coordinator_id, payload, output, epoch, incarnation,
                recovery_address, checksum, pending_commit, pending_number, pending_checksum,
                age, may_compensate, locks
         FROM undecided",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let row = CheckedRow::new("undecided", row, 3);
        undecided(&row)?;
        let keys: Vec<u8> = row.get(14)?;
        let keys = decode_keys(&keys).ok_or_else(|| row.damaged(14, "they are no keys"))?;
        promised(&branch(&row)?, age(&row)?, keys);
    }
    let sql = "SELECT coordinator_id, epoch, incarnation, checksum FROM coordinators";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        known_run(&CheckedRow::new("coordinators", row, 1))?;
    }
    Ok(())
}

/// A row of table coordinators, whole.
fn known_run(row: &CheckedRow<'_>) -> rusqlite::Result<Run> {
    let (id, run) = (row.get::<[u8; 16]>(0)?, run(row, 1)?);
    match row.get::<u32>(3)? == of_run(&id, &run) {
        true => Ok(run),
        false => {
            Err(row.damaged(3, "checksum mismatch: the row's contents do not match its checksum"))
        }
    }
}

fn of_run(coordinator: &[u8], run: &Run) -> u32 {
    checksum(&[coordinator, &run.epoch.to_le_bytes(), run.incarnation.as_bytes()])
}

pub(crate) fn insert_undecided(
    connection: &Connection,
    branch: &BranchId,
    origin: &Origin,
    terms: PrepareTerms<'_>,
    (payload, output): (&[u8], &[u8]),
    now: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO undecided
                 (transaction_id, branch, coordinator_id, payload, output, epoch, incarnation,
                  prepared_at, recovery_address, age, may_compensate, locks, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
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
            terms.age.as_bytes(),
            terms.may_compensate,
            terms.keys,
            of_promise(branch, (&origin.run, &origin.recovery_address), terms, payload, output),
        ])
        .map(drop)
}

/// Keeps a decision that could not be applied.
pub(crate) fn keep_pending(
    connection: &Connection,
    branch: &BranchId,
    pending: Verdict,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE undecided SET pending_commit = ?4, pending_number = ?5, pending_checksum = ?6
             WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
            pending.commit,
            pending.number,
            of_decision(branch, pending.applied(), None),
        ])
        .map(drop)
}

/// Returns how many rows there were.
pub(crate) fn delete_undecided(
    connection: &Connection,
    branch: &BranchId,
) -> rusqlite::Result<usize> {
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
}

/// What is known of a branch at its end.
#[derive(Default)]
pub(crate) struct Contents<'a> {
    /// None for a branch that was never prepared.
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) output: &'a [u8],
    /// The payload is needed again if the commit is compensated.
    pub(crate) keep: bool,
}

impl Contents<'_> {
    /// Bytes of the row that this makes.
    pub(crate) fn footprint(&self, refusal: Option<&Refusal>) -> i64 {
        let payload = self.payload.filter(|_| self.keep).map_or(0, <[u8]>::len);
        let message = refusal.map_or(0, |refusal| refusal.message.len());
        footprint::of_row((payload + self.output.len() + message) as i64)
    }
}

/// A branch's end.
pub(crate) fn insert_decided(
    connection: &Connection,
    branch: &BranchId,
    state: Branch,
    contents: &Contents<'_>,
    refusal: Option<&Refusal>,
    now: i64,
) -> rusqlite::Result<()> {
    let Contents { payload, output, keep } = *contents;
    let kept = payload.filter(|_| keep);
    connection
        .prepare_cached(
            "INSERT INTO decided
                 (transaction_id, branch, coordinator_id, committed, decision_number, digest,
                  payload, output, refusal_code, refusal_message, decided_at, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
            matches!(state, Branch::Committed { .. }),
            state.decision_number(),
            payload.map(digest),
            kept,
            output,
            refusal.map(|refusal| refusal.code),
            refusal.map(|refusal| &refusal.message),
            now,
            of_decision(branch, state, kept.map(|payload| (payload, output))),
        ])
        .map(drop)
}

/// A commit was undone. Returns how many rows there were.
pub(crate) fn record_compensation(
    connection: &Connection,
    branch: &BranchId,
    state: Branch,
    now: i64,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "UPDATE decided
             SET committed = 0, decision_number = ?4, payload = NULL, decided_at = ?5, checksum = ?6
             WHERE transaction_id = ?1 AND branch = ?2 AND coordinator_id = ?3",
        )?
        .execute(params![
            branch.transaction.as_bytes(),
            branch.number,
            branch.coordinator.as_bytes(),
            state.decision_number(),
            now,
            of_decision(branch, state, None),
        ])
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
) -> rusqlite::Result<Vec<InDoubtBranch>> {
    let mut statement = connection.prepare_cached(
        "SELECT transaction_id, branch, coordinator_id, epoch, incarnation, prepared_at,
                recovery_address, pending_commit, pending_number, pending_checksum
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
            let row = CheckedRow::new("undecided", row, 3);
            let branch = branch(&row)?;
            Ok(InDoubtBranch {
                branch,
                run: run(&row, 3)?,
                prepared_at: row.get(5)?,
                recovery_address: row.get(6)?,
                state: Branch::Prepared { pending: pending(&row, &branch, 7)? },
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
        .prepare_cached(
            "SELECT coordinator_id, epoch, incarnation, checksum FROM coordinators
             WHERE coordinator_id = ?1",
        )?
        .query_row([coordinator.as_bytes()], |row| {
            known_run(&CheckedRow::new("coordinators", row, 1))
        })
        .optional()
}

pub(crate) fn keep_highest_run(
    connection: &Connection,
    coordinator: &CoordinatorId,
    run: &Run,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO coordinators VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            coordinator.as_bytes(),
            run.epoch.cast_signed(),
            run.incarnation.as_bytes(),
            of_run(coordinator.as_bytes(), run),
        ])
        .map(drop)
}

fn run(row: &CheckedRow<'_>, first: usize) -> rusqlite::Result<Run> {
    Ok(Run {
        epoch: row.get::<i64>(first)?.cast_unsigned(),
        incarnation: Incarnation::from_bytes(row.get(first + 1)?),
    })
}

/// Commit, number and checksum, from the column `first` on.
fn pending(
    row: &CheckedRow<'_>,
    branch: &BranchId,
    first: usize,
) -> rusqlite::Result<Option<Verdict>> {
    let known: (Option<bool>, Option<u32>, Option<u32>) =
        (row.get(first)?, row.get(first + 1)?, row.get(first + 2)?);
    match known {
        (None, None, None) => Ok(None),
        (Some(commit), Some(number), Some(checksum)) => {
            let pending = Verdict { commit, number };
            match checksum == of_decision(branch, pending.applied(), None) {
                true => Ok(Some(pending)),
                false => Err(row.damaged(first + 2, "it is of another decision")),
            }
        }
        _ => Err(row.damaged(first, "the decision is incomplete")),
    }
}
