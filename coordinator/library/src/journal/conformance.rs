//! The rules of a [`Journal`](super::Journal) as tests that any store can be put to: one
//! function a rule, which panics where the store breaks it.
//!
//! A store implements [`Subject`] and calls [`journal_conformance!`](crate::journal_conformance)
//! in a test module. Each rule gets a store of its own with nothing in it.

mod forgetting;
mod runs;
mod transactions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use dtc_protocol::TransactionId;

use super::{Entry, Journal, Keep, Stored};
pub use forgetting::*;
pub use runs::*;
pub use transactions::*;

/// How long a store may take for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A store under test, with nothing in it.
pub trait Subject: Send + Sync {
    /// Begins the next run. The one before was closed.
    fn open(&self) -> Arc<dyn Journal>;

    /// Begins the next run while the one before goes on, behind its back. None where a
    /// store has one run.
    fn take_over(&self) -> Option<Arc<dyn Journal>>;

    /// Begins the next run as if what the store holds came from a backup. None where that
    /// cannot be.
    fn restore(&self) -> Option<Arc<dyn Journal>>;

    /// Whether a run has been told to end.
    fn has_stopped(&self) -> bool;

    /// Whether a run finds what was written by the one before.
    fn is_durable(&self) -> bool;

    /// Whether it is bounded by bytes, too.
    fn counts_bytes(&self) -> bool;
}

/// Makes a test of each rule, for the store that the expression gives.
#[macro_export]
macro_rules! journal_conformance {
    ($subject:expr) => {
        $crate::journal_conformance! { $subject;
            entries_of_a_transaction_replace_each_other,
            appends_are_durable_in_their_order,
            an_append_may_hold_all_of_a_transaction,
            a_key_is_its_transactions,
            a_key_that_is_taken_again_is_the_later_ones,
            what_is_unfinished_is_told_from_what_is_finished,
            finished_ones_come_newest_first_in_pages,
            what_was_never_written_is_never,
            a_session_is_replaced_and_ended,
            a_registration_is_replaced_and_taken_away,
            a_run_that_was_replaced_writes_nothing_more,
            a_run_is_above_those_before_it,
            a_restart_changes_nothing,
            what_a_backup_holds_as_begun_is_lost,
            what_ended_goes_in_its_time_with_its_key,
            what_is_unfinished_stays_whatever_its_age,
            what_is_kept_for_an_operator_stays_until_it_is_released,
            what_is_kept_for_participants_stays_until_all_were_notified,
            what_is_forgotten_leaves_a_watermark,
            bytes_cut_nothing_below_the_floor,
            a_step_forgets_no_more_than_its_limit,
        }
    };
    ($subject:expr; $($rule:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $rule() {
                $crate::journal::conformance::$rule(&$subject).await;
            }
        )*
    };
}

fn id(number: u8) -> TransactionId {
    let mut bytes = [number; 16];
    bytes[6] = 0x70;
    TransactionId::from_bytes(bytes)
}

fn key(number: u8) -> super::Key {
    (format!("key-{number}"), [number; 32])
}

fn begin(number: u8) -> Entry {
    Entry::Begin { id: id(number), key: None, body: body("begin", number) }
}

fn decision(number: u8) -> Entry {
    Entry::Decision { id: id(number), key: Some(key(number)), body: body("decision", number) }
}

fn end(number: u8, keep: Keep) -> Entry {
    Entry::End { id: id(number), keep, body: end_body() }
}

fn body(kind: &str, number: u8) -> Vec<u8> {
    format!("{kind} of {number}").into()
}

/// Two branches are to be notified.
fn end_body() -> Vec<u8> {
    let end = super::disk::End { unnotified: vec![0, 1], ..super::disk::End::default() };
    prost::Message::encode_to_vec(&end)
}

fn ids(all: &[Stored]) -> Vec<TransactionId> {
    all.iter().map(|stored| stored.id).collect()
}

/// Appends, and waits until it is durable.
async fn append(journal: &dyn Journal, entries: impl Into<Vec<Entry>>) {
    let (durable, is_durable) = tokio::sync::oneshot::channel();
    let durable = Box::new(move || {
        let _ = durable.send(());
    });
    journal.append(entries.into(), true, durable);
    let waited = tokio::time::timeout(DEADLINE, is_durable).await;
    waited.expect("it is durable in time").expect("it is reported durable");
}

/// Appends; true once that was reported durable.
fn append_and_note(journal: &dyn Journal, entry: Entry) -> Arc<AtomicBool> {
    let noted = Arc::new(AtomicBool::new(false));
    let durable = Arc::clone(&noted);
    journal.append(vec![entry], true, Box::new(move || durable.store(true, SeqCst)));
    noted
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
