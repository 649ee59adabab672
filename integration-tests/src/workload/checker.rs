//! What must be true of what was told and of what the databases hold.
//!
//! - Told 'committed' or 'aborted' is true for ever: no answer contradicts it, and
//!   the journals agree with it.
//! - A transaction is committed by all of its branches or by none.
//! - What was there at the beginning is what is there now and what was taken by
//!   committed transactions; each took it once (versions count).
//! - The confirmed orders are those of the committed transactions.
//! - Nothing is reserved, held, pending, undecided or unfinished.
//! - No outcome is heuristic, and what has to be refused is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use shop_proto::OrderState;
use uuid::Uuid;

use super::{
    books::{Books, Journals, Row},
    history::{Case, Kind, Told},
    witness::Witness,
};

/// What there was at the beginning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opening {
    pub(crate) stock: BTreeMap<String, i64>,
    pub(crate) accounts: BTreeMap<String, i64>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// One answer says this, another that.
    Contradiction(String),
    /// Known once, and known no more.
    Forgotten(String),
    /// Forgotten before its time.
    TooEarly(String),
    /// A repeat was refused, though the first call had begun it.
    RepeatRefused(String),
    /// A broken promise.
    Heuristic(String),
    /// Committed, though nobody asked for it or it had to be refused.
    Uncalled(String),
    /// A key stood for two requests.
    KeyReused(String),
    /// An answer that no client should see.
    Nonsense(String),
    /// A client never learned the outcome.
    NeverKnown(String),
    /// What was told is not what was done.
    Untrue(String),
    /// Some branches were committed and others were not.
    Torn(String),
    /// Stock, money or orders do not add up.
    NotConserved(String),
    /// Something is reserved or undecided, though all is healed.
    Open(String),
    /// A database is damaged.
    Damaged(String),
    /// A process ended in a way that it must not.
    Crashed(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (title, text) = match self {
            Self::Contradiction(text) => ("answers contradict each other", text),
            Self::Forgotten(text) => ("an outcome was forgotten", text),
            Self::TooEarly(text) => ("forgotten too early", text),
            Self::RepeatRefused(text) => ("a repeat was refused", text),
            Self::Heuristic(text) => ("a promise was broken", text),
            Self::Uncalled(text) => ("committed uncalled for", text),
            Self::KeyReused(text) => ("a key stood for two requests", text),
            Self::Nonsense(text) => ("an answer that should never be", text),
            Self::NeverKnown(text) => ("an outcome never became known", text),
            Self::Untrue(text) => ("false answers", text),
            Self::Torn(text) => ("half done", text),
            Self::NotConserved(text) => ("not conserved", text),
            Self::Open(text) => ("not over", text),
            Self::Damaged(text) => ("damaged", text),
            Self::Crashed(text) => ("crashed", text),
        };
        write!(f, "{title}: {text}")
    }
}

/// What a case's own answers say; may be asked at any time. What was forgotten in its
/// time, as the witness saw, may have another outcome afterwards.
pub(crate) fn check_case(case: &Case, witness: Option<&Witness>) -> Vec<Violation> {
    let mut found = Vec::new();
    let is_forgotten = |id: Uuid| witness.is_some_and(|it| it.is_forgotten(id));
    let mut first: Option<(bool, Uuid)> = None;
    for (index, told) in case.told.iter().enumerate() {
        let name = || case.name();
        match told {
            Told::Outcome { committed, id } => match first {
                None => first = Some((*committed, *id)),
                Some(first) if first == (*committed, *id) => {}
                Some((_, known)) if known != *id && is_forgotten(known) => {
                    first = Some((*committed, *id));
                }
                Some(first) => found.push(Violation::Contradiction(format!(
                    "{}: {} first, then {}",
                    name(),
                    words(first),
                    words((*committed, *id))
                ))),
            },
            Told::Heuristic(text) => {
                found.push(Violation::Heuristic(format!("{}: {text}", name())));
            }
            // What aborted without a record of it may be unknown: presumed abort.
            Told::Unknown { id: Some(id) } if !is_forgotten(*id) => {
                let told = |committed| Told::Outcome { committed, id: *id };
                let before = &case.told[..index];
                let is_aborted = case.key.is_some() && before.contains(&told(false));
                if before.contains(&told(true)) || is_aborted {
                    found.push(Violation::Forgotten(format!("{}, {:?}", name(), case.told)));
                }
            }
            Told::Unknown { .. } => {}
            Told::Asserted if case.work.compensate_after > 0 => {}
            Told::Asserted => found.push(Violation::Heuristic(name())),
            Told::Refused { asked_at, why } => {
                let known = witness.zip(case.key.as_ref());
                if let Some(known) = known.and_then(|(it, key)| it.has_key(key, *asked_at)) {
                    found.push(Violation::RepeatRefused(format!(
                        "{}: its key stands for {} already: {why}",
                        name(),
                        known.id
                    )));
                }
            }
            Told::OpenAgain { id, .. } if is_forgotten(*id) => {}
            Told::OpenAgain { text, .. } => {
                found.push(Violation::Forgotten(format!("{}: {text}", name())));
            }
            Told::OtherBodyAccepted => found.push(Violation::KeyReused(name())),
            Told::Nonsense(text) => found.push(Violation::Nonsense(format!("{}: {text}", name()))),
        }
    }
    if first.is_some_and(|(committed, _)| committed) {
        if case.kind == Kind::OverAsking {
            found.push(Violation::Uncalled(format!("{} had to be refused", case.name())));
        } else if !case.commit_asked {
            found.push(Violation::Uncalled(format!("{}: nobody said commit", case.name())));
        }
    }
    found
}

/// What came of a case: as it was told, or where nobody could be told, as the
/// order says. None if somebody should have been told, and was not.
fn outcome(case: &Case, books: &Books) -> Option<bool> {
    if let Some((committed, _)) = case.outcome() {
        return Some(committed);
    }
    if case.kind == Kind::WithoutKey {
        let order = case.work.order.as_ref().and_then(|order| books.orders.get(&order.id));
        return Some(order.is_some_and(|(state, _)| *state == OrderState::Confirmed));
    }
    // Never begun, as far as its client knows: without the id nobody can commit it.
    let never_begun = matches!(case.kind, Kind::Interactive | Kind::Vanishing) && case.id.is_none();
    let is_undone = |told: &Told| matches!(told, Told::Unknown { .. } | Told::Asserted);
    (never_begun || !case.commit_asked || case.told.iter().any(is_undone)).then_some(false)
}

/// How often a case was committed, and how often taken and put back again.
#[derive(Default)]
struct Done {
    commits: usize,
    undone: usize,
}

impl Done {
    fn once(committed: bool) -> Self {
        Self { commits: committed.into(), undone: (!committed).into() }
    }

    /// None if somebody should have been told, and was not.
    fn of(case: &Case, books: &Books, journals: &Journals) -> Option<Self> {
        let was_told = outcome(case, books);
        let refused = case.told.iter().any(|told| matches!(told, Told::Refused { .. }));
        let Some(witness) = &journals.witness else { return was_told.map(Self::once) };
        let ids = case.ids(Some(witness));
        if ids.is_empty() {
            return was_told.or(refused.then_some(false)).map(Self::once);
        }
        was_told.or(refused.then_some(false))?;
        let told = |id: Uuid| case.told.contains(&Told::Outcome { committed: true, id });
        let decided = |id: &Uuid| journals.decisions.get(id).map(|(commit, _)| *commit);
        let commits = ids.iter().filter(|id| decided(id).unwrap_or_else(|| told(**id))).count();
        Some(Self { commits, undone: ids.len() - commits })
    }
}

/// Everything but the journals themselves; when nothing is going on any more.
pub(crate) fn check_books(
    cases: &[Case],
    opening: &Opening,
    books: &Books,
    journals: &Journals,
) -> Vec<Violation> {
    let mut found: Vec<_> = books.open().map(Violation::Open).into_iter().collect();
    let mut stock = Expected::of(&opening.stock);
    let mut accounts = Expected::of(&opening.accounts);
    let mut orders = BTreeMap::<&str, Done>::new();
    for case in cases {
        let Some(done) = Done::of(case, books, journals) else {
            found.push(Violation::NeverKnown(case.name()));
            continue;
        };
        let undone = if case.work.compensate_after > 0 { done.undone } else { 0 };
        if let Some(part) = &case.work.stock {
            // Taken and put back again, where some had committed.
            stock.may_be_undone(&part.sku, undone);
            if !part.check_only {
                stock.take(&part.sku, part.quantity, done.commits);
            }
        }
        if let Some(part) = &case.work.money {
            accounts.may_be_undone(&part.account, undone);
            accounts.take(&part.account, part.amount, done.commits);
        }
        if let Some(part) = &case.work.order {
            let order = orders.entry(&part.id).or_default();
            order.commits += done.commits;
            order.undone += undone;
        }
    }
    stock.compare("stock", &books.stock, &mut found);
    accounts.compare("account", &books.accounts, &mut found);
    compare_orders(&orders, books, &mut found);
    found
}

fn compare_orders(orders: &BTreeMap<&str, Done>, books: &Books, found: &mut Vec<Violation>) {
    let committed = |id: &str| orders.get(id).is_some_and(|done| done.commits > 0);
    for (id, done) in orders.iter().filter(|(id, _)| committed(id)) {
        if done.commits > 1 {
            let text = format!("order {id} was committed by {} transactions", done.commits);
            found.push(Violation::NotConserved(text));
        }
        let row = books.orders.get(*id);
        // Each that was undone may have confirmed it before, and cancelled it.
        let is_as = |version: i64| version % 2 == 1 && version <= 1 + 2 * done.undone as i64;
        if !matches!(row, Some((OrderState::Confirmed, version)) if is_as(*version)) {
            let text = format!("order {id} was committed, but it is {row:?}");
            found.push(Violation::NotConserved(text));
        }
    }
    for (id, (state, _)) in &books.orders {
        if *state == OrderState::Confirmed && !committed(id) {
            let text = format!("order {id} is confirmed, and no transaction for it committed");
            found.push(Violation::NotConserved(text));
        }
    }
}

/// The journals: what was told is what was done, by all branches.
pub(crate) fn check_journals(cases: &[Case], journals: &Journals) -> Vec<Violation> {
    let mut found: Vec<_> = journals.damaged.iter().cloned().map(Violation::Damaged).collect();
    for (id, (committed, rolled_back)) in &journals.branches {
        if *committed > 0 && *rolled_back > 0 {
            found.push(Violation::Torn(format!(
                "transaction {id}: {committed} branches committed, {rolled_back} rolled back"
            )));
        }
    }
    for (id, (commit, branches)) in &journals.decisions {
        let (committed, _) = journals.branches.get(id).copied().unwrap_or_default();
        let expected = if *commit { *branches } else { 0 };
        if committed != expected {
            let decision = if *commit { "commit" } else { "abort" };
            found.push(Violation::Torn(format!(
                "transaction {id}: the decision is {decision}, of {branches} branches {committed} are committed"
            )));
        }
    }
    found.extend(journals.complaints.iter().cloned().map(Violation::Untrue));
    let witness = journals.witness.as_ref();
    let too_early = witness.map_or(&[][..], |witness| &witness.too_early);
    found.extend(too_early.iter().cloned().map(Violation::TooEarly));
    let mut explained = BTreeSet::new();
    for case in cases {
        explained.extend(case.ids(witness));
        let Some((told, id)) = case.outcome() else { continue };
        let (committed, _) = journals.branches.get(&id).copied().unwrap_or_default();
        let expected = if told { case.work.writes() } else { 0 };
        if committed != expected {
            found.push(Violation::Untrue(format!(
                "{} was told {}, of {} branches {committed} are committed",
                case.name(),
                words((told, id)),
                case.work.writes()
            )));
        }
    }
    // What nobody was told about: only those without a key may have committed.
    let untold = journals
        .branches
        .iter()
        .filter(|(id, (committed, _))| *committed > 0 && !explained.contains(id));
    let untold: Vec<_> = untold.map(|(id, _)| id).collect();
    let possible = cases
        .iter()
        .filter(|case| case.kind == Kind::WithoutKey && case.outcome().is_none())
        .count();
    if untold.len() > possible {
        found.push(Violation::Untrue(format!(
            "{} transactions are committed that nobody was told about, at most {possible} can be: {:?}",
            untold.len(),
            &untold[..untold.len().min(5)]
        )));
    }
    found
}

/// All that holds where the coordinator's journal was lost and an older one restored:
/// keys may run again and branches stay in doubt, but none is decided against another,
/// nor against what anybody was told.
pub(crate) fn check_restored(cases: &[Case], journals: &Journals) -> Vec<Violation> {
    let mut found: Vec<_> = journals.damaged.iter().cloned().map(Violation::Damaged).collect();
    found.extend(journals.complaints.iter().cloned().map(Violation::Untrue));
    for (id, (committed, rolled_back)) in &journals.branches {
        if *committed > 0 && *rolled_back > 0 {
            found.push(Violation::Torn(format!(
                "transaction {id}: {committed} branches committed, {rolled_back} rolled back"
            )));
        }
    }
    for case in cases {
        for told in &case.told {
            let Told::Outcome { committed, id } = told else { continue };
            let (done, undone) = journals.branches.get(id).copied().unwrap_or_default();
            if *committed && undone > 0 || !*committed && done > 0 {
                found.push(Violation::Untrue(format!(
                    "{} was told {}; {done} branches are committed, {undone} rolled back",
                    case.name(),
                    words((*committed, *id))
                )));
            }
        }
    }
    found
}

fn words((committed, id): (bool, Uuid)) -> String {
    format!("{} as {id}", if committed { "committed" } else { "aborted" })
}

/// What should be left, how often it was changed, and how often it may have been
/// changed and changed back.
struct Expected<'a>(BTreeMap<&'a str, (i64, i64, i64)>);

impl<'a> Expected<'a> {
    fn of(opening: &'a BTreeMap<String, i64>) -> Self {
        // Putting it in was version 1.
        Self(opening.iter().map(|(name, amount)| (name.as_str(), (*amount, 1, 0))).collect())
    }

    fn take(&mut self, name: &'a str, quantity: i64, times: usize) {
        if times > 0 {
            let (amount, version, _) = self.0.entry(name).or_default();
            *amount -= quantity * times as i64;
            *version += times as i64;
        }
    }

    fn may_be_undone(&mut self, name: &'a str, times: usize) {
        if times > 0 {
            self.0.entry(name).or_default().2 += times as i64;
        }
    }

    fn compare(&self, what: &str, rows: &BTreeMap<String, Row>, found: &mut Vec<Violation>) {
        let names: BTreeSet<&str> =
            self.0.keys().copied().chain(rows.keys().map(String::as_str)).collect();
        for name in names {
            let expected = self.0.get(name).copied();
            let row = rows.get(name);
            let actual = row.map(|row| (row.amount, row.version));
            let is_as = |(amount, version, undone): (i64, i64, i64)| {
                actual.is_some_and(|(actual, changed)| {
                    let more = changed - version;
                    actual == amount
                        && actual >= 0
                        && more % 2 == 0
                        && (0..=2 * undone).contains(&more)
                })
            };
            if !expected.is_some_and(is_as) {
                found.push(Violation::NotConserved(format!(
                    "{what} '{name}' (amount, version): {actual:?}, and by what was committed it is {expected:?} (and how often that may have been undone)"
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests;
