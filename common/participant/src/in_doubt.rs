//! Branches in doubt are asked about, decisions that could not be applied are tried
//! again, and waits for locks end. One periodic look at all; nothing per branch.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dtc_protocol::{CoordinatorId, branch::Request};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    ResourceManager,
    engine::Engine,
    event_log, inquiry,
    journal::{self, InDoubtBranch},
    link::{self, MAX_INQUIRIES},
    overdue::Overdue,
    wire::Decision,
};

/// Between two looks, and the age from which a branch is asked about.
const LOOK: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A look may take this part of the time.
const SHARE: u32 = 20;
const PAGE: usize = 1000;

struct Backoff {
    delay: Duration,
    due: Instant,
    asking: Option<JoinHandle<()>>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delay: LOOK, due: Instant::now(), asking: None }
    }
}

impl Backoff {
    fn is_due(&self) -> bool {
        Instant::now() >= self.due && self.asking.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn delay(&mut self) {
        self.due = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST);
    }
}

/// Until the shutdown.
pub(crate) async fn run<R: ResourceManager>(engine: Arc<Engine<R>>) {
    let mut questions: BTreeMap<CoordinatorId, Backoff> = BTreeMap::new();
    let mut retries = Backoff::default();
    let mut overdue = Overdue::default();
    let mut pause = LOOK;
    loop {
        tokio::select! {
            biased;
            () = engine.environment.shutdown.begun() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let before = Instant::now();
        engine.end_overdue();
        let doubts = match old_in_doubt(&engine).await {
            Ok(doubts) => doubts,
            Err(error) => {
                tracing::warn!(%error, "undecided branches could not be read");
                continue;
            }
        };
        engine.metrics.in_doubt.set(doubts.len().cast_signed() as i64);
        if !engine.not_mine.is_empty() {
            let undecided: HashSet<_> = doubts.iter().map(|doubt| doubt.branch).collect();
            engine.not_mine.keep(&undecided, &engine.metrics);
        }
        #[cfg(feature = "mutants")]
        crate::mutants::time_out(&engine, &doubts).await;
        let (decided, doubts): (Vec<_>, Vec<_>) =
            doubts.into_iter().partition(|doubt| doubt.state.pending().is_some());
        overdue.look(&doubts, engine.now(), engine.limits.overdue_after, &engine.metrics);
        retry(&engine, &mut retries, &decided).await;
        ask(&engine, &mut questions, doubts);
        pause = LOOK.max(before.elapsed() * SHARE);
    }
}

async fn old_in_doubt<R: ResourceManager>(
    engine: &Engine<R>,
) -> Result<Vec<InDoubtBranch>, dtc_store::ReadError> {
    let now = engine.now();
    let age = LOOK.as_millis() as u64;
    let mut doubts = Vec::new();
    let mut after = None;
    loop {
        let read = move |connection: &rusqlite::Connection| {
            journal::undecided_page(connection, None, after.as_ref(), PAGE)
        };
        let page = engine.store.read(read).await?;
        let Some(last) = page.last() else { return Ok(doubts) };
        after = Some(last.branch);
        doubts.extend(page.into_iter().filter(|doubt| doubt.age(now) >= age));
    }
}

async fn retry<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    backoff: &mut Backoff,
    decided: &[InDoubtBranch],
) {
    if decided.is_empty() {
        *backoff = Backoff::default();
        return;
    }
    if !backoff.is_due() {
        return;
    }
    backoff.delay();
    for some in decided.chunks(MAX_INQUIRIES) {
        let decisions = some.iter().filter_map(|doubt| {
            Some(Decision::new(doubt.branch, Request::Retry(doubt.state.pending()?)))
        });
        match engine.retry(decisions.collect()).await {
            Ok(answers) => event_log::log(&answers),
            Err(error) => tracing::warn!(%error, "pending decisions could not be retried"),
        }
    }
}

fn ask<R: ResourceManager>(
    engine: &Arc<Engine<R>>,
    questions: &mut BTreeMap<CoordinatorId, Backoff>,
    doubts: Vec<InDoubtBranch>,
) {
    #[cfg(feature = "mutants")]
    if crate::mutants::asks_nobody() {
        return;
    }
    let mut by_coordinator: BTreeMap<CoordinatorId, Vec<InDoubtBranch>> = BTreeMap::new();
    for doubt in doubts {
        by_coordinator.entry(doubt.branch.coordinator).or_default().push(doubt);
    }
    questions.retain(|coordinator, _| by_coordinator.contains_key(coordinator));
    for (coordinator, doubts) in by_coordinator {
        let backoff = questions.entry(coordinator).or_default();
        if !backoff.is_due() {
            continue;
        }
        backoff.delay();
        let Some(responses) = engine.links.get(&coordinator) else {
            backoff.asking = Some(tokio::spawn(inquiry::ask(Arc::clone(engine), doubts)));
            continue;
        };
        for some in doubts.chunks(MAX_INQUIRIES) {
            // A link that is full is asked over again later.
            let Ok(permit) = responses.try_reserve() else { break };
            if let Some(inquiries) = link::inquiries(engine, some) {
                permit.send(Ok(inquiries));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_are_asked_at_once_and_then_ever_more_rarely() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_due());
        let mut delays = Vec::new();
        for _ in 0..7 {
            delays.push(backoff.delay.as_secs());
            let before = Instant::now();
            backoff.delay();
            assert!(!backoff.is_due());
            assert!(backoff.due >= before + Duration::from_secs(*delays.last().unwrap()));
            backoff.due = Instant::now();
            assert!(backoff.is_due());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[tokio::test]
    async fn one_question_at_a_time_is_on_its_way() {
        let asking = tokio::spawn(std::future::pending());
        let mut backoff = Backoff { asking: Some(asking), ..Backoff::default() };
        assert!(!backoff.is_due());
        backoff.asking = Some(tokio::spawn(async {}));
        while !backoff.is_due() {
            tokio::task::yield_now().await;
        }
    }
}
