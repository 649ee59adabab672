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
fn a_commit_that_keeps_failing_is_turned_round() {
    let turned =
        |crashes| Setup { compensate_after: 1, refusals: false, ..voting(Use::OneShot, crashes) };
    check("turned round", turned(0));
    check("turned round, a crash", turned(1));
    let silent = Setup { asking: Asking::None, ..turned(0) };
    check("turned round, none asks", silent);
}

#[test]
fn a_domain_that_fails_is_tried_again() {
    let failing = |crashes| {
        let setup = Setup { domain_fails: true, refusals: false, ..voting(Use::OneShot, crashes) };
        Setup { compensate_after: 1, ..setup }
    };
    check("turned round, the domain fails", failing(0));
    let plain = Setup { domain_fails: true, ..voting(Use::OneShot, 1) };
    check("the domain fails, a crash", plain);
}

#[test]
fn a_promise_that_is_broken_by_force_is_told() {
    let forced = |crashes| Setup { forces: 1, refusals: false, ..voting(Use::OneShot, crashes) };
    check("forced", forced(0));
    check("forced, a crash", forced(1));
    check("forced, none asks", Setup { asking: Asking::None, ..forced(0) });
}

#[test]
fn who_has_locked_is_alone() {
    let locked = |crashes| Setup { refusals: false, ..voting(Use::Locked, crashes) };
    check("locked", Setup { asking: Asking::None, ..locked(0) });
    check("locked, a crash", Setup { asking: Asking::None, ..locked(1) });
    check("locked, all ask, one participant", Setup { participants: 1, ..locked(1) });
}

#[test]
fn a_lost_disk_is_found_out() {
    let setup = Setup { lost_disks: 1, retries: false, refusals: false, ..voting(Use::OneShot, 0) };
    check("lost disk", setup);
}
