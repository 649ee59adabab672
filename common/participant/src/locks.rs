//! Who holds which keys, and who waits for them. Pure: no clock, no I/O.
//!
//! A key has a line. At its head is the transaction that may hold it, behind it
//! are those that wait.
//!
//! Invariants:
//! - Two transactions never hold one key. (What a journal promised is held
//!   whatever it says.) Branches of one transaction don't block each other.
//! - A branch takes its place in the lines of all of its keys at once, and holds
//!   all of them or none. Nobody overtakes.
//! - Whoever waits is older than all before it in its lines, but for those whose
//!   decision has come: they wait for nobody. So of all waits of all
//!   participants together there is no circle that lasts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dtc_protocol::{BranchId, CoordinatorId, TransactionId};

#[cfg(test)]
mod tests;

/// Branches that may wait at a time.
const WAITING: usize = 1000;
/// Bytes of what waits.
const BYTES: usize = 64 << 20;

/// The locks of a participant; `W` is what waits for them.
pub(crate) struct Locks<W> {
    claims: BTreeMap<BranchId, Claim<W>>,
    /// Of each key that somebody wants: never empty.
    lines: HashMap<String, Vec<BranchId>>,
    waiting: BTreeSet<BranchId>,
    bytes: usize,
    held: usize,
}

struct Claim<W> {
    age: TransactionId,
    /// Sorted, each once.
    keys: Vec<String>,
    standing: Standing,
    /// Its decision has come.
    is_decided: bool,
    parked: Option<(W, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waiting,
    /// Holds its keys, and has promised nothing yet.
    Granted,
    /// Holds its keys until its decision.
    Promised,
}

/// The smaller, the older: whose first try is older, then whose own id is.
type Rank = (TransactionId, TransactionId, CoordinatorId);

/// How a claim came out that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// All keys are held.
    Granted,
    /// It has its place in the lines; [`Locks::park`] says what waits there.
    Waits,
}

/// Why a branch may not even wait. It has left nothing in the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// An older transaction is before it: its wait could close a circle.
    Deadlock(Obstacle),
    /// The branch has a claim on other keys.
    OtherKeys,
    /// So many wait already, of so many bytes.
    Full { waiting: usize, bytes: usize },
}

/// What a branch cannot pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) key: String,
    pub(crate) branch: BranchId,
    /// False where it waits too.
    pub(crate) holds: bool,
}

impl<W> Default for Locks<W> {
    fn default() -> Self {
        Self {
            claims: BTreeMap::new(),
            lines: HashMap::new(),
            waiting: BTreeSet::new(),
            bytes: 0,
            held: 0,
        }
    }
}

impl<W> Locks<W> {
    /// Keys that are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Branches that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Wants all of `keys` for a branch. Again for the same branch and keys, it
    /// tells how the claim stands.
    pub(crate) fn claim(
        &mut self,
        branch: &BranchId,
        age: TransactionId,
        mut keys: Vec<String>,
    ) -> Result<Claimed, ClaimError> {
        keys.sort_unstable();
        keys.dedup();
        if let Some(claim) = self.claims.get(branch) {
            return match (claim.keys == keys, claim.standing) {
                (false, _) => Err(ClaimError::OtherKeys),
                (true, Standing::Waiting) => Ok(Claimed::Waits),
                (true, _) => Ok(Claimed::Granted),
            };
        }
        let own = rank(branch, age);
        let mut waits = false;
        for key in &keys {
            let line = self.lines.get(key).map_or(&[][..], |line| line);
            for other in before(&line[..place(line, branch)], branch) {
                let claim = &self.claims[other];
                if !claim.is_decided && rank(other, claim.age) < own {
                    return Err(ClaimError::Deadlock(self.obstacle(key, other)));
                }
                waits = true;
            }
        }
        if waits && (self.waiting.len() >= WAITING || self.bytes >= BYTES) {
            return Err(ClaimError::Full { waiting: self.waiting.len(), bytes: self.bytes });
        }
        let standing = if waits { Standing::Waiting } else { Standing::Granted };
        self.insert(branch, age, keys, standing);
        Ok(if waits { Claimed::Waits } else { Claimed::Granted })
    }

    /// Holds the keys of a branch that the journal has promised.
    pub(crate) fn restore(&mut self, branch: &BranchId, age: TransactionId, mut keys: Vec<String>) {
        keys.sort_unstable();
        keys.dedup();
        self.insert(branch, age, keys, Standing::Promised);
    }

    fn insert(
        &mut self,
        branch: &BranchId,
        age: TransactionId,
        keys: Vec<String>,
        standing: Standing,
    ) {
        for key in &keys {
            let line = self.lines.entry(key.clone()).or_default();
            line.insert(place(line, branch), *branch);
        }
        match standing {
            Standing::Waiting => drop(self.waiting.insert(*branch)),
            Standing::Granted | Standing::Promised => self.held += keys.len(),
        }
        let claim = Claim { age, keys, standing, is_decided: false, parked: None };
        self.claims.insert(*branch, claim);
    }

    /// Leaves at a branch that waits what is to go on in its turn, in the place of
    /// what an earlier attempt left there, from which `take_over` may take something.
    /// Given back where the branch need not wait any more.
    pub(crate) fn park(
        &mut self,
        branch: &BranchId,
        mut what: W,
        bytes: usize,
        take_over: impl FnOnce(&W, &mut W),
    ) -> Option<W> {
        let waiting = |claim: &&mut Claim<W>| claim.standing == Standing::Waiting;
        let Some(claim) = self.claims.get_mut(branch).filter(waiting) else { return Some(what) };
        if let Some((earlier, _)) = &claim.parked {
            take_over(earlier, &mut what);
        }
        let earlier = claim.parked.replace((what, bytes));
        self.bytes += bytes;
        self.bytes -= earlier.map_or(0, |(_, bytes)| bytes);
        None
    }

    /// A branch has promised: it holds what it was granted until its decision.
    /// False where it has no locks, or has promised before.
    pub(crate) fn promise(&mut self, branch: &BranchId) -> bool {
        let claim = self.claims.get_mut(branch);
        let granted = claim.filter(|claim| claim.standing == Standing::Granted);
        granted.map(|claim| claim.standing = Standing::Promised).is_some()
    }

    /// A branch's decision has come. It is not applied yet, but whoever waits for
    /// it now waits for something that waits for nobody.
    pub(crate) fn decide(&mut self, branch: &BranchId) {
        if let Some(claim) = self.claims.get_mut(branch) {
            claim.is_decided = true;
        }
    }

    /// Gives back what a branch was granted and has not used for a promise, or a place
    /// where nothing is parked.
    pub(crate) fn give_back(&mut self, branch: &BranchId) -> Vec<W> {
        let is_unused = |claim: &Claim<W>| match claim.standing {
            Standing::Waiting => claim.parked.is_none(),
            Standing::Granted => true,
            Standing::Promised => false,
        };
        match self.claims.get(branch).is_some_and(is_unused) {
            true => self.release(branch),
            false => Vec::new(),
        }
    }

    /// Takes a branch out of all lines. Returns what goes on now: who is first at
    /// last, after what was parked for the branch itself.
    pub(crate) fn release(&mut self, branch: &BranchId) -> Vec<W> {
        let Some(mut claim) = self.claims.remove(branch) else { return Vec::new() };
        if self.waiting.remove(branch) {
            self.bytes -= claim.parked.as_ref().map_or(0, |(_, bytes)| *bytes);
        } else {
            self.held -= claim.keys.len();
        }
        let mut going_on: Vec<W> = claim.parked.take().map(|(what, _)| what).into_iter().collect();
        for key in &claim.keys {
            let Some(line) = self.lines.get_mut(key) else { continue };
            line.retain(|other| other != branch);
            if line.is_empty() {
                self.lines.remove(key);
            }
        }
        let heads = claim.keys.iter().filter_map(|key| self.lines.get(key)).flat_map(|line| {
            line.iter().take_while(|other| is_same(other, &line[0])).filter(|other| {
                self.claims[*other].standing == Standing::Waiting && self.is_first(other)
            })
        });
        for branch in heads.copied().collect::<BTreeSet<_>>() {
            going_on.extend(self.grant(&branch));
        }
        going_on
    }

    /// Takes a branch that waits out of all lines. Returns what was parked for it,
    /// and what goes on now.
    pub(crate) fn dismiss(&mut self, branch: &BranchId) -> Option<(W, Vec<W>)> {
        let claim = self.claims.get_mut(branch)?;
        let (what, bytes) = claim.parked.take()?;
        self.bytes -= bytes;
        Some((what, self.release(branch)))
    }

    fn is_first(&self, branch: &BranchId) -> bool {
        let mut keys = self.claims[branch].keys.iter();
        keys.all(|key| self.ahead(key, branch).next().is_none())
    }

    /// Those of other transactions before a branch in the line of one of its keys.
    fn ahead<'a>(
        &'a self,
        key: &str,
        branch: &'a BranchId,
    ) -> impl Iterator<Item = &'a BranchId> + 'a {
        let line = self.lines.get(key).map_or(&[][..], |line| line);
        let own = line.iter().position(|other| other == branch).unwrap_or(0);
        before(&line[..own], branch)
    }

    fn grant(&mut self, branch: &BranchId) -> Option<W> {
        let claim = self.claims.get_mut(branch)?;
        claim.standing = Standing::Granted;
        self.held += claim.keys.len();
        self.waiting.remove(branch);
        let (what, bytes) = claim.parked.take()?;
        self.bytes -= bytes;
        Some(what)
    }

    /// The branches that wait whose parked things are so, each with what it waits
    /// for.
    pub(crate) fn overdue(&self, is_overdue: impl Fn(&W) -> bool) -> Vec<(BranchId, Obstacle)> {
        let overdue = self.waiting.iter().filter(|branch| {
            self.claims[*branch].parked.as_ref().is_some_and(|(what, _)| is_overdue(what))
        });
        overdue.filter_map(|branch| Some((*branch, self.waits_for(branch)?))).collect()
    }

    /// The first thing that keeps a branch from its keys.
    fn waits_for(&self, branch: &BranchId) -> Option<Obstacle> {
        self.claims.get(branch)?.keys.iter().find_map(|key| {
            let other = self.ahead(key, branch).next()?;
            Some(self.obstacle(key, other))
        })
    }

    fn obstacle(&self, key: &str, branch: &BranchId) -> Obstacle {
        let holds = self.claims[branch].standing != Standing::Waiting;
        Obstacle { key: key.into(), branch: *branch, holds }
    }
}

/// Where in a line a branch stands, or would: with its own transaction, or last.
fn place(line: &[BranchId], branch: &BranchId) -> usize {
    line.iter().rposition(|other| is_same(other, branch)).map_or(line.len(), |last| last + 1)
}

fn before<'a>(
    line: &'a [BranchId],
    branch: &'a BranchId,
) -> impl Iterator<Item = &'a BranchId> + 'a {
    line.iter().filter(|other| !is_same(other, branch))
}

/// Whether two branches are of one transaction.
fn is_same(one: &BranchId, other: &BranchId) -> bool {
    (one.transaction, one.coordinator) == (other.transaction, other.coordinator)
}

fn rank(branch: &BranchId, age: TransactionId) -> Rank {
    (age, branch.transaction, branch.coordinator)
}
