//! Bugs are planted one after the other, and each has to be found. A test binary
//! of its own: what is planted is planted in the whole process.

use std::{fmt::Write as _, panic};

use dtc_protocol::planted::{Bug, plant};
use protocol_model::{Asking, REACHES_END, Setup, System, Until, Use, search};

const ASSERTED_TRUE: &str = "what is asserted is not known to be otherwise";
const ASSERTED: &str = "what was resolved is shown as acknowledged only when it is";
const AS_DECIDED: &str = "a participant does what was decided";
const ALONE: &str = "a prepared branch never acts alone";
const ALONE_LOCKED: &str = "a lock excludes others until its owner has ended";
const ALL_VOTED: &str = "commit only if all voted for it";
const COMMIT_DURABLE: &str = "a commit is sent to participants only when durable";
const CONSISTENT: &str = "records and answers are consistent";
const DURABLE: &str = "answers leave when they are durable";
const ENDS: &str = "nothing ends before all that is owed is done";
const HEURISTIC: &str = "an outcome is heuristic only by a branch resolved or lost";
const HONEST: &str = "clients see durable states only";
const KNOWN: &str = "an unknown branch is never acknowledged";
const NOT_HEURISTIC: &str = "outcomes are not heuristic";
const OLD_RUN: &str = "an old run is never obeyed";
const ONCE: &str = "an effect is reserved once and made final once";
const ONE_BRANCH: &str = "a key enlists one branch";
const ONE_RUN: &str = "only one run of a key commits";
const STAYS: &str = "a tombstone holds, and so does a commit";
const TRUE_ABORT: &str = "only uncommitted transactions are reported aborted";

/// In which model a bug is looked for, and what it violates first.
fn catch(bug: Bug) -> Option<(Setup, &'static str)> {
    let participant = Setup::new(Use::AnyCoordinator, 1, 1);
    let shot = |crashes| Setup::new(Use::OneShot, 2, crashes);
    let silent = |crashes| Setup { asking: Asking::None, ..shot(crashes) };
    let small = |setup: Setup| Setup { read_only: false, refusals: false, ..setup };
    let turned = |crashes| Setup { compensate_after: 1, ..small(shot(crashes)) };
    let resolved = |crashes| Setup { resolutions: 1, ..small(shot(crashes)) };
    let locked = |crashes| {
        let setup = Setup { asking: Asking::None, ..Setup::new(Use::Locked, 2, crashes) };
        small(setup)
    };
    let losing = |setup| Setup { lost_disks: 1, drop_stale: true, ..small(setup) };
    let enlisting = Setup { enlist_keys: true, ..small(Setup::new(Use::Interactive, 2, 0)) };
    let one_phase = |crashes| Setup::new(Use::OnePhase, 1, crashes);
    let keyed = |crashes| Setup::new(Use::KeyedOnePhase, 1, crashes);
    Some(match bug {
        Bug::TombstoneMissing => (participant, DURABLE),
        Bug::TombstoneIgnored => (participant, STAYS),
        Bug::UnknownAcknowledged => (participant, KNOWN),
        Bug::OtherPayloadPromised => (participant, CONSISTENT),
        Bug::ReservesTwice => (participant, ONCE),
        Bug::NumberIgnored => (participant, CONSISTENT),
        Bug::CommitUndone => (participant, ONCE),
        Bug::UnknownCompensated => (participant, CONSISTENT),
        Bug::PromiseEndsAlone => (participant, ALONE),
        Bug::NotMineAborts => (participant, ALONE),
        Bug::EpochIgnored => (participant, OLD_RUN),

        Bug::CommitSentEarly => (small(shot(0)), COMMIT_DURABLE),
        Bug::CommitShownEarly => (shot(0), HONEST),
        Bug::KeyedAbortVisibleEarly => (small(Setup::new(Use::Keyed, 2, 0)), HONEST),
        Bug::OneVoteCommits => (shot(0), ALL_VOTED),
        Bug::DecisionTakenBack => (small(Setup::new(Use::Interactive, 2, 0)), HONEST),
        Bug::EndsUnacknowledged => (shot(0), ENDS),
        Bug::LostVoteNotRolledBack => (silent(0), REACHES_END),
        Bug::PendingAnsweredAborted => (small(shot(0)), TRUE_ABORT),
        Bug::CommitForgotten => (silent(1), REACHES_END),
        Bug::LostAnswerAborts => (one_phase(0), AS_DECIDED),
        Bug::BeginRecordMissing => (silent(1), REACHES_END),
        Bug::KeyNotLookedUp => (keyed(0), ONE_RUN),
        Bug::AnyJournalAcknowledges => {
            (Setup { lost_disks: 1, retries: false, ..small(shot(0)) }, ENDS)
        }
        Bug::UnknownAccepted => (Setup { lost_disks: 1, retries: false, ..small(shot(0)) }, ENDS),
        Bug::RefusalEndsAllAttempts => {
            (Setup { traceless: true, read_only: false, ..silent(0) }, REACHES_END)
        }

        Bug::CompensationIgnored => (turned(0), NOT_HEURISTIC),
        Bug::CompensatedEarly => (turned(0), TRUE_ABORT),
        Bug::CompensableVisibleEarly => (turned(0), HONEST),
        Bug::CompensationUnacknowledged => (turned(0), ENDS),

        Bug::ResolvedEarly => (resolved(0), COMMIT_DURABLE),
        Bug::ResolutionDressedUp => (resolved(0), ASSERTED),
        Bug::AssertedAsAcknowledged => (resolved(0), ASSERTED),
        Bug::NotificationForgotten => (resolved(0), ENDS),

        Bug::OtherJournalRefuses => (Setup { lost_disks: 1, ..one_phase(0) }, ENDS),
        Bug::AskedJournalForgotten => {
            (losing(Setup { asking: Asking::None, ..one_phase(1) }), ENDS)
        }
        Bug::VotedJournalForgotten => (losing(silent(1)), ENDS),
        Bug::LostCompensationLeft => (losing(turned(0)), ENDS),
        Bug::ResolvedNotCompensated => {
            (Setup { resolutions: 1, asking: Asking::None, ..turned(0) }, HEURISTIC)
        }
        Bug::AssertedUncompensated => (Setup { resolutions: 1, ..turned(0) }, ASSERTED_TRUE),
        Bug::CallKeyIgnored => (enlisting, ONE_BRANCH),

        Bug::LocksNotAwaited => (locked(0), ALONE_LOCKED),
        Bug::LocksReleasedEarly => (locked(0), ALONE_LOCKED),
        Bug::LocksForgotten => (locked(1), ALONE_LOCKED),

        // The kit's are for the simulation: no code of the kit runs here.
        _ => return None,
    })
}

#[test]
fn every_planted_bug_is_found() {
    panic::set_hook(Box::new(|_| {}));
    let (mut table, mut missed) = (String::new(), Vec::new());
    for bug in Bug::ALL {
        let Some((setup, expected)) = catch(*bug) else { continue };
        plant(Some(*bug));
        let report = search(&System(setup), Until::Violated, |_| {});
        plant(None);
        // Several may be violated by the state that is found first.
        let mut violations = report.failures().filter(|verdict| !verdict.sometimes);
        let found = violations.find(|it| it.name == expected).or(report.violation());
        let (name, depth) = found.map_or(("nothing", 0), |verdict| {
            (verdict.name, verdict.path.as_ref().map_or(0, Vec::len))
        });
        let row = format!("| `{}` | {name} | {depth} | {:?} |", bug.name(), report.took);
        let _ = writeln!(table, "{row}");
        if name != expected {
            missed.push(format!(
                "{}: expected '{expected}'\n{row}\n{}",
                bug.name(),
                report.describe()
            ));
        }
    }
    let _ = panic::take_hook();
    println!("{table}");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
