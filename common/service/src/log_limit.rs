//! How many lines of one kind are written: where a backlog or a peer can cause
//! lines, their number follows from neither.
//!
//! A kind is a place in the code and its message. Of each, [`BURST`] lines are
//! written in [`INTERVAL`]; the others are counted and summed up in one line when
//! it is over, by participant. DEBUG and TRACE are for whoever asks for all. An error that
//! ends the process is the first of its kind.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// Lines of one kind in an interval.
const BURST: u64 = 20;
/// Kinds that are told apart. More share one of their place in the code.
const KINDS: usize = 1024;
/// Participants that a summary names; the others are summed up.
const NAMED: usize = 8;
/// Of a message, in a summary.
const SHOWN: usize = 120;
/// What sums up is not summed up.
const TARGET: &str = "log_limit";

type Kind = (Identifier, u64);

/// Lets a bounded number of lines through. Clones share what they counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogLimit {
    windows: Arc<Mutex<HashMap<Kind, Window>>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    written: u64,
    left_out: u64,
    of: &'static str,
    message: String,
    participants: BTreeMap<String, u64>,
}

/// What was left out of the log.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    of: &'static str,
    message: String,
    lines: u64,
    participants: String,
}

/// The parts of an event that tell its kind.
#[derive(Default)]
struct Seen {
    hasher: DefaultHasher,
    message: String,
    participant: String,
}

impl LogLimit {
    fn admits(&self, metadata: &'static Metadata<'static>, seen: Seen, now: Instant) -> bool {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let place = metadata.callsite();
        let mut kind = (place.clone(), seen.hasher.finish());
        if windows.len() >= KINDS && !windows.contains_key(&kind) {
            kind = (place, 0);
        }
        let window = windows.entry(kind).or_insert_with(|| Window {
            since: now,
            written: 0,
            left_out: 0,
            of: metadata.target(),
            message: seen.message,
            participants: BTreeMap::new(),
        });
        if window.written < BURST {
            window.written += 1;
            return true;
        }
        window.left_out += 1;
        if let Some(count) = window.participants.get_mut(&seen.participant) {
            *count += 1;
        } else if !seen.participant.is_empty() && window.participants.len() < NAMED {
            window.participants.insert(seen.participant, 1);
        }
        false
    }

    /// Ends the intervals that are over, and returns what was left out in them.
    fn end(&self, now: Instant) -> Vec<Summary> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summaries = Vec::new();
        windows.retain(|_, window| {
            if now.saturating_duration_since(window.since) < INTERVAL {
                return true;
            }
            if window.left_out > 0 {
                summaries.push(window.summary());
            }
            false
        });
        summaries
    }

    /// Tells of what was left out. To be called regularly.
    pub(crate) fn sum_up(&self) {
        for Summary { of, message, lines, participants } in self.end(Instant::now()) {
            let participants = (!participants.is_empty()).then_some(participants);
            tracing::warn!(
                target: TARGET, lines, of, participants,
                "more lines of this kind in {INTERVAL:?} were left out: {message}"
            );
        }
    }
}

impl Window {
    fn summary(&mut self) -> Summary {
        let mut participants = String::new();
        let mut others = self.left_out;
        for (name, count) in &self.participants {
            let _ = write!(participants, "{name}: {count}, ");
            others -= count;
        }
        if others > 0 && !participants.is_empty() {
            let _ = write!(participants, "others: {others}, ");
        }
        participants.truncate(participants.trim_end_matches(", ").len());
        let message = std::mem::take(&mut self.message);
        Summary { of: self.of, message, lines: self.left_out, participants }
    }
}

impl<S: Subscriber> Filter<S> for LogLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        self.admits(metadata, seen, Instant::now())
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                let mut text = Beginning { text: &mut self.message, limit: SHOWN };
                let _ = write!(text, "{value:?}");
                self.message.hash(&mut self.hasher);
            }
            "participant" => {
                let _ = write!(Beginning { text: &mut self.participant, limit: 64 }, "{value:?}");
            }
            _ => {}
        }
    }
}

/// Keeps the beginning of what is written to it.
struct Beginning<'a> {
    text: &'a mut String,
    limit: usize,
}

impl Write for Beginning<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.limit.saturating_sub(self.text.len());
        let end = (0..=room.min(more.len())).rev().find(|end| more.is_char_boundary(*end));
        self.text.push_str(&more[..end.unwrap_or(0)]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    /// Keeps the messages that come through.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut seen = Seen::default();
            event.record(&mut seen);
            self.0.lock().unwrap().push(seen.message);
        }
    }

    #[test]
    fn a_backlog_writes_a_bounded_number_of_lines_and_a_summary() {
        let (limit, kept) = (LogLimit::default(), Kept::default());
        let subscriber =
            tracing_subscriber::registry().with(kept.clone().with_filter(limit.clone()));
        with_default(subscriber, || {
            for round in 0..500 {
                for participant in ["payment", "order"] {
                    tracing::info!(round, participant, "sent again");
                }
                tracing::debug!(round, "a detail");
            }
            tracing::warn!("another kind");
        });
        let kept = kept.0.lock().unwrap();
        let count = |message: &str| kept.iter().filter(|it| *it == message).count() as u64;
        assert_eq!(count("sent again"), BURST);
        assert_eq!((count("a detail"), count("another kind")), (500, 1));

        assert_eq!(limit.end(Instant::now()), [], "the interval is not over");
        let [summary] = &limit.end(Instant::now() + INTERVAL)[..] else { panic!("one summary") };
        assert_eq!((summary.message.as_str(), summary.lines), ("sent again", 1000 - BURST));
        assert_eq!(summary.participants, "order: 490, payment: 490");
        assert_eq!(limit.end(Instant::now() + INTERVAL), []);
    }

    #[test]
    fn words_that_a_peer_chooses_make_no_end_of_kinds() {
        let (limit, kept) = (LogLimit::default(), Kept::default());
        let subscriber =
            tracing_subscriber::registry().with(kept.clone().with_filter(limit.clone()));
        with_default(subscriber, || {
            for word in 0..5000 {
                tracing::info!(participant = %format!("p{word}"), "it said {word}");
            }
        });
        assert!(limit.windows.lock().unwrap().len() <= KINDS + 1);
        assert_eq!(kept.0.lock().unwrap().len() as u64, KINDS as u64 + BURST);
        let summaries = limit.end(Instant::now() + INTERVAL);
        let [summary] = &summaries[..] else { panic!("{summaries:?}") };
        assert!(summary.participants.contains("others: "), "{summary:?}");
    }
}
