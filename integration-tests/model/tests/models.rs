//! The models that are small enough for every change. Larger ones by command:
//! `cargo run --release -p protocol-model -- --help`.

use protocol_model::{Asking, Setup, System, Until, Use, search};

fn check(name: &str, setup: Setup) {
    let report = search(&System(setup), Until::Exhausted, |_| {});
    println!("{name}\n{}", report.describe());
    assert!(report.failures().next().is_none(), "{name}: {setup:#?}\n{}", report.describe());
}

/// Two participants that vote to commit or to abort.
fn voting(usage: Use, crashes: u8) -> Setup {
    Setup { read_only: false, ..Setup::new(usage, 2, crashes) }
}

#[test]
fn a_participant_keeps_its_word_whatever_it_is_sent() {
    check("any coordinator", Setup::new(Use::AnyCoordinator, 1, 2));
}

#[test]
fn one_shot_with_participants_that_ask() {
    check("one shot, two crashes", voting(Use::OneShot, 2));
    check("one shot, readers", Setup::new(Use::OneShot, 2, 1));
}

#[test]
fn one_shot_with_participants_that_cannot_ask() {
    check("none asks", Setup { asking: Asking::None, ..Setup::new(Use::OneShot, 2, 1) });
    check("one asks", Setup { asking: Asking::First, ..voting(Use::OneShot, 1) });
}

#[test]
fn request_keys() {
    let setup = Setup { read_only: false, refusals: false, ..Setup::new(Use::Keyed, 2, 0) };
    check("keyed", setup);
    check("keyed, one branch", Setup::new(Use::Keyed, 1, 1));
    check("keyed, one phase", Setup::new(Use::KeyedOnePhase, 1, 2));
}

#[test]
fn one_phase() {
    check("one phase", Setup::new(Use::OnePhase, 1, 3));
    let traceless = Setup { traceless: true, ..Setup::new(Use::OnePhase, 1, 2) };
    check("one phase, refusals that leave no tombstone", traceless);
    let silent = Setup { asking: Asking::None, ..Setup::new(Use::OnePhase, 1, 2) };
    check("one phase, nobody asks", silent);
}

#[test]
fn interactive() {
    let setup = Setup { read_only: false, refusals: false, ..Setup::new(Use::Interactive, 2, 0) };
    check("interactive", setup);
}

#[test]
fn limits_of_attempts_refusals_without_a_trace_and_broken_links() {
    let limited = Setup { prepare_attempts: 2, rollback_attempts: 2, ..voting(Use::OneShot, 0) };
    check("limited attempts", limited);
    check("traceless", Setup { traceless: true, ..voting(Use::OneShot, 0) });
    let broken = Setup { broken_links: true, refusals: false, ..voting(Use::OneShot, 0) };
    check("broken links", broken);
}

#[test]
fn answers_that_outlive_their_run_and_shared_writes() {
    check("stray answers", Setup { stray_answers: true, ..voting(Use::OneShot, 1) });
    check("batches", Setup { batches: true, ..voting(Use::OneShot, 0) });
}

#[test]
fn a_commit_that_keeps_failing_is_compensated() {
    let turned =
        |crashes| Setup { compensate_after: 1, refusals: false, ..voting(Use::OneShot, crashes) };
    check("compensated", turned(0));
    check("compensated, a crash", turned(1));
    let silent = Setup { asking: Asking::None, ..turned(0) };
    check("compensated, none asks", silent);
}

#[test]
fn a_domain_that_fails_is_tried_again() {
    let failing = |crashes| {
        let setup = Setup { domain_fails: true, refusals: false, ..voting(Use::OneShot, crashes) };
        Setup { compensate_after: 1, ..setup }
    };
    check("compensated, the domain fails", failing(0));
    let plain = Setup { domain_fails: true, ..voting(Use::OneShot, 1) };
    check("the domain fails, a crash", plain);
}

#[test]
fn a_promise_that_an_operator_breaks_is_shown() {
    let resolved =
        |crashes| Setup { resolutions: 1, refusals: false, ..voting(Use::OneShot, crashes) };
    check("resolved", resolved(0));
    check("forced, a crash", resolved(1));
    check("forced, none asks", Setup { asking: Asking::None, ..resolved(0) });
}

#[test]
fn who_has_locked_is_alone() {
    let locked = |crashes| Setup { refusals: false, ..voting(Use::Locked, crashes) };
    check("locked", Setup { asking: Asking::None, ..locked(0) });
    check("locked, a crash", Setup { asking: Asking::None, ..locked(1) });
    check("locked, all ask, one participant", Setup { participants: 1, ..locked(1) });
}

/// One disk may be lost, and the coordinator may crash.
fn losing(setup: Setup) -> Setup {
    let setup = Setup { lost_disks: 1, coordinator_crashes: true, drop_stale: true, ..setup };
    Setup { refusals: setup.is_one_phase(), ..setup }
}

fn silent(usage: Use, crashes: u8) -> Setup {
    Setup { asking: Asking::None, ..voting(usage, crashes) }
}

#[test]
fn a_lost_disk_is_found_out() {
    let asking = Setup { retries: false, ..losing(voting(Use::OneShot, 0)) };
    check("lost disk", asking);
    check("lost disk, none asks", losing(silent(Use::OneShot, 0)));
    let crash = Setup { retries: false, ..losing(silent(Use::OneShot, 1)) };
    check("lost disk, none asks, a crash", crash);
}

#[test]
fn a_disk_that_is_lost_in_one_phase_is_found_out() {
    check("one phase, lost disk", losing(Setup::new(Use::OnePhase, 1, 0)));
    check("one phase, lost disk, a crash", losing(Setup::new(Use::OnePhase, 1, 1)));
    let silent = |usage| Setup { asking: Asking::None, ..Setup::new(usage, 1, 1) };
    check("one phase, none asks, lost disk, a crash", losing(silent(Use::OnePhase)));
    let keyed = Setup { read_only: false, ..losing(silent(Use::KeyedOnePhase)) };
    check("keyed, one phase, none asks, lost disk, a crash", keyed);
}

#[test]
fn what_is_lost_with_a_disk_is_not_shown_as_compensated() {
    let turned = |setup| Setup { compensate_after: 1, ..losing(setup) };
    check("compensated, none asks, lost disk", turned(silent(Use::OneShot, 0)));
    let single =
        |crashes| Setup { participants: 1, two_phases: true, ..voting(Use::OneShot, crashes) };
    check("compensated, one participant, lost disk, a crash", turned(single(1)));
}

#[test]
fn what_is_compensated_may_be_resolved() {
    let resolved = |setup| Setup {
        compensate_after: 1,
        resolutions: 1,
        refusals: false,
        coordinator_crashes: true,
        drop_stale: true,
        ..setup
    };
    check("compensated and resolved, none asks", resolved(silent(Use::OneShot, 0)));
    let single =
        |crashes| Setup { participants: 1, two_phases: true, ..voting(Use::OneShot, crashes) };
    check("compensated and resolved, one participant, a crash", resolved(single(1)));
}

#[test]
fn a_key_enlists_one_branch() {
    let keyed = |participants, crashes| {
        let setup = Setup::new(Use::Interactive, participants, crashes);
        Setup { enlist_keys: true, read_only: false, refusals: false, ..setup }
    };
    check("enlisted under keys", keyed(2, 0));
    check("enlisted under keys, one participant, a crash", keyed(1, 1));
}
