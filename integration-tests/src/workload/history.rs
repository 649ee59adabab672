//! What was asked for, and what the clients were told: the whole of it, in order.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dtc_proto::dtc::{Outcome, Transaction};
use uuid::Uuid;

use super::{witness::Witness, work::Work};

/// How a transaction is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Order,
    Streamed,
    WithoutKey,
    Interactive,
    Vanishing,
    OneBranch,
    Versioned,
    Reading,
    Duplicated,
    OverAsking,
    SameOrder,
    Compensable,
    Locked,
}

impl Kind {
    /// For the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Order => "an order (Execute)",
            Self::Streamed => "an order on a stream",
            Self::WithoutKey => "without a key",
            Self::Interactive => "begin, enlist, commit",
            Self::Vanishing => "begun, client gone",
            Self::OneBranch => "one branch, one phase",
            Self::Versioned => "with a version checked",
            Self::Reading => "with a reader",
            Self::Duplicated => "sent three times at once",
            Self::OverAsking => "must be refused",
            Self::SameOrder => "for one order's id",
            Self::Compensable => "may be compensated",
            Self::Locked => "with locks",
        }
    }
}

/// A definite statement about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Committed, or aborted, and the coordinator's id of it.
    Outcome { committed: bool, id: Uuid },
    /// `HEURISTIC_MIXED` or `HEURISTIC_HAZARD`.
    Heuristic(String),
    /// That an operator ended it while it was being compensated: nobody knows yet which
    /// branches had committed, and all are still to be undone.
    Asserted,
    /// That there is no such transaction.
    Unknown { id: Option<Uuid> },
    /// Its key was used with another body, and that was accepted.
    OtherBodyAccepted,
    /// That it cannot be begun as things are now, to a call of this time.
    Refused { asked_at: i64, why: String },
    /// That it is still going on, after it had come to this.
    OpenAgain { id: Uuid, text: String },
    /// An answer that no client should ever see.
    Nonsense(String),
}

impl Told {
    /// What an answer says for certain; none while the outcome is open.
    pub(crate) fn by(transaction: Option<&Transaction>, committed: bool) -> Option<Self> {
        let Some(transaction) = transaction else {
            return Some(Self::Nonsense("an answer without a transaction".into()));
        };
        let Ok(id) = transaction.id.parse() else {
            return Some(Self::Nonsense(format!("an id that is none: {transaction:?}")));
        };
        let outcome = transaction.outcome();
        match outcome {
            Outcome::HeuristicHazard if is_asserted(transaction) => Some(Self::Asserted),
            Outcome::HeuristicMixed | Outcome::HeuristicHazard => {
                Some(Self::Heuristic(format!("{transaction:?}")))
            }
            Outcome::Aborted if committed || transaction.committed => {
                Some(Self::Nonsense(format!("aborted and committed: {transaction:?}")))
            }
            Outcome::Committed if !transaction.committed => {
                Some(Self::Nonsense(format!("committed, and not: {transaction:?}")))
            }
            Outcome::Aborted => Some(Self::Outcome { committed: false, id }),
            _ if committed || transaction.committed => Some(Self::Outcome { committed: true, id }),
            _ => None,
        }
    }
}

fn is_asserted(transaction: &Transaction) -> bool {
    let compensated =
        transaction.abort_reason.as_ref().is_some_and(|it| it.code == "COMMIT_FAILED");
    compensated && !transaction.committed && !transaction.interventions.is_empty()
}

/// One transaction of one client.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) key: Option<String>,
    /// Of an interactive one, once begun.
    pub(crate) id: Option<Uuid>,
    pub(crate) work: Work,
    /// Whether anybody asked for its commit.
    pub(crate) commit_asked: bool,
    pub(crate) told: Vec<Told>,
}

impl Case {
    pub(crate) fn new(kind: Kind, key: Option<String>, work: Work) -> Self {
        let commit_asked = !matches!(kind, Kind::Interactive | Kind::Vanishing);
        Self { kind, key, id: None, work, commit_asked, told: Vec::new() }
    }

    /// The first outcome that was told, with the transaction's id.
    pub(crate) fn outcome(&self) -> Option<(bool, Uuid)> {
        self.told.iter().find_map(|told| match told {
            Told::Outcome { committed, id } => Some((*committed, *id)),
            _ => None,
        })
    }

    /// Whether there is nothing more to be learned: an outcome is known, or it was
    /// refused often enough.
    pub(crate) fn is_settled(&self) -> bool {
        const OFTEN: usize = 4;
        let refusals = self.told.iter().filter(|told| matches!(told, Told::Refused { .. }));
        let open = |told: &Told| matches!(told, Told::Unknown { .. } | Told::Refused { .. });
        refusals.count() >= OFTEN || !self.told.iter().all(open)
    }

    /// All transactions that stood for it, as far as anybody knows.
    pub(crate) fn ids(&self, witness: Option<&Witness>) -> BTreeSet<Uuid> {
        let told = self.told.iter().filter_map(|told| match told {
            Told::Outcome { id, .. } => Some(*id),
            _ => None,
        });
        let uses = witness.zip(self.key.as_ref()).and_then(|(it, key)| it.keys.get(key));
        told.chain(self.id).chain(uses.into_iter().flatten().map(|it| it.id)).collect()
    }

    /// What to call it in a message.
    pub(crate) fn name(&self) -> String {
        let order = self.work.order.as_ref().map(|order| order.id.as_str());
        let key = self.key.as_deref().or(order).unwrap_or("?");
        let id = self.id.or(self.outcome().map(|(_, id)| id)).unwrap_or_default();
        format!("{key} ({}, transaction {id})", self.kind.name())
    }
}

/// All cases. A case's number is its place.
#[derive(Debug, Default)]
pub(crate) struct History {
    cases: Mutex<Vec<Case>>,
}

impl History {
    pub(crate) fn begin(&self, case: Case) -> usize {
        let mut cases = self.lock();
        cases.push(case);
        cases.len() - 1
    }

    pub(crate) fn tell(&self, number: usize, told: Told) {
        let known = &mut self.lock()[number].told;
        // The first of a kind, and whatever differs from the latest.
        if known.last() != Some(&told) {
            known.push(told);
        }
    }

    pub(crate) fn change(&self, number: usize, change: impl FnOnce(&mut Case)) {
        change(&mut self.lock()[number]);
    }

    pub(crate) fn case(&self, number: usize) -> Case {
        self.lock()[number].clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Case>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
