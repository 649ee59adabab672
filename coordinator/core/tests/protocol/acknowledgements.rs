//! Which answers to a decision count: whose journal voted, whose answers, whether it can
//! ask, before and after a crash, resolved by an operator or not.

use dtc_core::{Acknowledgement, BranchState, Event, Vote};
use dtc_protocol::JournalId;

use crate::{
    environment::{Environment, P0, P1},
    participant::{NO, YES},
    resolved::resolve,
};

const OWN: JournalId = JournalId::from_bytes([7; 16]);
const OTHER: JournalId = JournalId::from_bytes([8; 16]);
const BOTH: [bool; 2] = [true, false];

#[derive(Debug, Clone, Copy)]
struct Case {
    commit: bool,
    supports_inquiry: bool,
    recovered: bool,
    resolved: bool,
    /// In its vote; none where it names none.
    voted: Option<JournalId>,
    /// In its answer.
    answered: Option<JournalId>,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        (0..1_u32 << 4).flat_map(|bits| {
            let [commit, supports_inquiry, recovered, resolved] =
                core::array::from_fn(|bit| bits & 1 << bit != 0);
            [None, Some(OWN)].into_iter().flat_map(move |voted| {
                [None, Some(OWN), Some(OTHER)].map(|answered| Self {
                    commit,
                    supports_inquiry,
                    recovered,
                    resolved,
                    voted,
                    answered,
                })
            })
        })
    }

    /// Only an id that differs from one that voted is another journal's.
    fn is_own(&self) -> bool {
        self.voted.is_none() || self.answered != Some(OTHER)
    }

    fn expected(&self, answer: &Acknowledgement) -> BranchState {
        use Acknowledgement::{Committed, Failed, RolledBack, Unknown};
        // A restart leaves the rollback to it, and ends.
        if !self.commit && self.supports_inquiry && self.recovered {
            return BranchState::RollbackUnacknowledged;
        }
        match (self.commit, answer) {
            (true, Failed(_)) => BranchState::Committing,
            (false, Failed(_)) => BranchState::RollingBack,
            (true, Committed) if self.is_own() => BranchState::Committed,
            (true, RolledBack) if self.is_own() => BranchState::Heuristic,
            (true, _) => BranchState::Hazard,
            (false, Committed) => BranchState::Heuristic,
            (false, RolledBack) if self.is_own() => BranchState::RolledBack,
            (false, Unknown) if self.is_own() && self.resolved => BranchState::Hazard,
            (false, Unknown) if self.is_own() => BranchState::RollingBack,
            (false, _) if !self.supports_inquiry => BranchState::Hazard,
            (false, RolledBack) if !self.resolved => BranchState::RollbackUnacknowledged,
            (false, _) => BranchState::RollingBack,
        }
    }

    fn run(&self, answer: &Acknowledgement) -> BranchState {
        let mut environment = Environment::new();
        if !self.supports_inquiry {
            environment.cannot_ask(P0);
        }
        let other = if self.commit { YES } else { NO };
        let run = environment.execute_with(&[(P0, YES), (P1, other)], |_| {});
        environment.sync();
        let (id, journal) = (run.id, self.voted);
        let vote = Vote::Commit { output: None, committed: false };
        environment.event(Event::Voted { from: P0, journal, id, branch: 0, vote });
        environment.deliver_to(P1);
        environment.hear_all();
        environment.sync();
        if self.recovered {
            environment.lose_all();
            environment.crash();
            environment.connect_all();
        }
        if self.resolved {
            resolve(&mut environment, run, self.commit, Some(0));
            environment.sync();
        }
        environment.event(Event::Acknowledged {
            from: P0,
            journal: self.answered,
            id,
            branch: 0,
            number: 1 + u32::from(self.resolved),
            acknowledgement: answer.clone(),
        });
        match environment.journal.end(id) {
            Some(end) => end.branches[0],
            None => environment.look(id).branches[0].state,
        }
    }
}

#[test]
fn an_answer_counts_by_who_gives_it_and_by_what_was_promised() {
    use Acknowledgement::{Committed, Failed, RolledBack, Unknown};
    for case in Case::all() {
        for answer in [Committed, RolledBack, Unknown, Failed("busy".into())] {
            assert_eq!(case.run(&answer), case.expected(&answer), "{case:?} {answer:?}");
        }
    }
}

/// One phase: a rollback is the question, and only the journal that was asked can say
/// that it did not commit.
#[test]
fn a_disk_that_is_lost_after_one_phase_is_found_out_before_and_after_a_crash() {
    for crash in BOTH {
        for lost in BOTH {
            let mut environment = Environment::new();
            let run = environment.execute_keyed("key", &[P0]);
            environment.answer_lookups();
            environment.sync();
            assert_eq!(environment.on_the_way(), [(P0, "one phase")]);
            // It may or may not have been done there.
            environment.lose_all();
            if lost {
                environment.participant(P0).lose_disk();
            }
            match crash {
                true => {
                    environment.crash();
                    environment.connect_all();
                }
                false => {
                    environment.connect(P0);
                    environment.advance(crate::environment::seconds(10));
                    environment.flights.retain(|it| it.id == run.id);
                }
            }
            environment
                .flights
                .retain(|flight| matches!(flight.message, dtc_core::Message::Rollback { .. }));
            environment.settle();
            let end = environment.journal.end(run.id).unwrap();
            let expected = if lost { BranchState::Hazard } else { BranchState::RolledBack };
            assert_eq!(end.branches, [expected], "crash {crash}, lost {lost}");
        }
    }
}

#[test]
fn the_journal_that_is_asked_in_one_phase_is_on_record_before_it_is_asked() {
    for known_before in BOTH {
        let mut environment = Environment::new();
        if known_before {
            // Another one is there by the time that the record is durable.
            let run = environment.execute_keyed("key", &[P0]);
            environment.answer_lookups();
            environment.participant(P0).lose_disk();
            environment.connect(P0);
            check(&mut environment, run.id);
        } else {
            environment.disconnect(P0);
            environment.crash();
            let run = environment.execute_keyed("key", &[P0]);
            environment.answer_lookups();
            environment.sync();
            assert!(environment.on_the_way().is_empty());
            environment.connect(P0);
            check(&mut environment, run.id);
        }
    }

    fn check(environment: &mut Environment, id: dtc_protocol::TransactionId) {
        while environment.on_the_way().is_empty() {
            assert!(!environment.journal.pending.is_empty(), "never asked");
            environment.sync();
        }
        assert_eq!(environment.on_the_way(), [(P0, "one phase")]);
        let asked = Some(environment.participant(P0).journal);
        assert_eq!(environment.journal.begin(id).unwrap().branches[0].journal, asked);
    }
}
