use super::*;

const PREPARE: Request =
    Request::Prepare { same_payload: true, forgotten: false, one_phase: false };
const ONE_PHASE: Request =
    Request::Prepare { same_payload: true, forgotten: false, one_phase: true };
const COMMIT: Request = Request::Commit { decision_number: 1 };
const ROLLBACK: Request =
    Request::Rollback { decision_number: 1, compensate: false, can_compensate: true };
const COMPENSATE: Request =
    Request::Rollback { decision_number: 2, compensate: true, can_compensate: true };
const COMMITTED: Branch = Branch::Committed { decision_number: 1 };
const ROLLED_BACK: Branch = Branch::RolledBack { decision_number: 1 };

fn commit(number: u32) -> Step {
    Step::Apply(Verdict { commit: true, number })
}

fn roll_back(number: u32) -> Step {
    Step::Apply(Verdict { commit: false, number })
}

fn answered(commit: bool, number: u32) -> Request {
    let outcome = Outcome::Decided(Verdict { commit, number });
    Request::Outcome { outcome, own: true }
}

#[test]
fn a_branch_goes_from_prepared_to_its_decision() {
    assert_eq!(step(None, &PREPARE), Step::Reserve);
    assert_eq!(step(Some(&Branch::PREPARED), &COMMIT), commit(1));
    assert_eq!(step(Some(&Branch::PREPARED), &ROLLBACK), roll_back(1));
    assert_eq!(commit(1).records(), Some(COMMITTED));
    assert_eq!(roll_back(1).records(), Some(ROLLED_BACK));
}

#[test]
fn what_came_of_a_reservation_is_recorded_but_for_a_reader_and_who_was_not_asked() {
    let reserved = |reservation, one_phase| {
        let step = step(None, &Request::Reserved { reservation, one_phase });
        (step, step.records())
    };
    let refused = Step::LeaveTombstone { decision_number: 0 };
    let tombstone = Branch::RolledBack { decision_number: 0 };
    for one_phase in [true, false] {
        let of = |reservation| reserved(reservation, one_phase);
        assert_eq!(of(Reservation::ReadOnly), (Step::AnswerReadOnly, None));
        assert_eq!(of(Reservation::Refused), (refused, Some(tombstone)));
        assert_eq!(of(Reservation::NotAsked), (Step::Refuse, None));
    }
    assert_eq!(reserved(Reservation::Made, false), (Step::Promise, Some(Branch::PREPARED)));
    assert_eq!(reserved(Reservation::Made, true), (Step::CommitAtOnce, Some(COMMITTED)));
}

#[test]
fn duplicates_get_the_first_answer() {
    let repeated = |committed| Step::RepeatVote { committed };
    assert_eq!(step(Some(&Branch::PREPARED), &PREPARE), repeated(false));
    assert_eq!(step(Some(&COMMITTED), &PREPARE), repeated(false));
    assert_eq!(step(Some(&Branch::PREPARED), &ONE_PHASE), repeated(false));
    assert_eq!(step(Some(&COMMITTED), &ONE_PHASE), repeated(true));
    assert_eq!(step(Some(&COMMITTED), &COMMIT), Step::AnswerCommitted);
    assert_eq!(step(Some(&ROLLED_BACK), &ROLLBACK), Step::AnswerRolledBack);
}

#[test]
fn another_payload_under_the_same_branch_is_refused() {
    let other = Request::Prepare { same_payload: false, forgotten: false, one_phase: false };
    assert_eq!(step(Some(&Branch::PREPARED), &other), Step::RefuseOtherPayload);
    assert_eq!(step(Some(&COMMITTED), &other), Step::RefuseOtherPayload);
}

#[test]
fn a_tombstone_refuses_the_late_prepare() {
    let tombstone = Step::LeaveTombstone { decision_number: 1 };
    assert_eq!(step(None, &ROLLBACK), tombstone);
    assert_eq!(tombstone.records(), Some(ROLLED_BACK));
    assert_eq!(step(Some(&ROLLED_BACK), &PREPARE), Step::RefuseRolledBack);
    let other = Request::Prepare { same_payload: false, forgotten: false, one_phase: false };
    assert_eq!(step(Some(&ROLLED_BACK), &other), Step::RefuseRolledBack);
}

#[test]
fn an_unknown_branch_is_never_acknowledged() {
    assert_eq!(step(None, &COMMIT), Step::AnswerUnknown);
    assert_eq!(Step::AnswerUnknown.answer(), Some(Answer::Unknown));
}

#[test]
fn an_answer_says_what_the_branch_is_once_the_step_is_taken() {
    for branch in [None, Some(Branch::PREPARED), Some(COMMITTED), Some(ROLLED_BACK)] {
        for request in [COMMIT, ROLLBACK, COMPENSATE, answered(true, 1), answered(false, 1)] {
            let step = step(branch.as_ref(), &request);
            let after = step.records().or(branch);
            match step.answer() {
                Some(Answer::Committed) => assert_eq!(after, Some(COMMITTED), "{step:?}"),
                Some(Answer::RolledBack) => {
                    assert!(matches!(after, Some(Branch::RolledBack { .. })), "{step:?}");
                }
                Some(Answer::Unknown) => assert_eq!(after, None, "{step:?}"),
                None => assert_eq!(step.records(), None, "{step:?}"),
            }
        }
    }
}

#[test]
fn a_decision_that_was_compensated_makes_the_first_one_late() {
    let compensating = Branch::RolledBack { decision_number: 2 };
    assert_eq!(step(Some(&compensating), &COMMIT), Step::Ignore);
    assert_eq!(step(Some(&compensating), &ROLLBACK), Step::Ignore);
    assert_eq!(step(Some(&compensating), &COMPENSATE), Step::AnswerRolledBack);
}

#[test]
fn what_is_committed_is_undone_only_by_a_decision_that_was_compensated() {
    let plain = Request::Rollback { decision_number: 2, compensate: false, can_compensate: true };
    assert_eq!(step(Some(&COMMITTED), &plain), Step::AnswerCommitted);
    let undone = Step::Compensate { decision_number: 2 };
    assert_eq!(step(Some(&COMMITTED), &COMPENSATE), undone);
    assert_eq!(undone.records(), Some(Branch::RolledBack { decision_number: 2 }));
    assert_eq!(step(Some(&Branch::PREPARED), &COMPENSATE), roll_back(2));
}

#[test]
fn an_unknown_branch_is_never_acknowledged_as_compensated() {
    let cannot = Request::Rollback { decision_number: 2, compensate: true, can_compensate: false };
    assert_eq!(step(None, &COMPENSATE), Step::AnswerUnknown);
    assert_eq!(step(None, &cannot), Step::AnswerUnknown);
    assert_eq!(step(Some(&COMMITTED), &cannot), Step::AnswerCommitted);
}

#[test]
fn a_pending_decision_is_replaced_by_later_ones_only() {
    let pending = |commit| Branch::Prepared { pending: Some(Verdict { commit, number: 2 }) };
    let second = Request::Commit { decision_number: 2 };
    assert_eq!(step(Some(&pending(false)), &COMMIT), Step::Ignore);
    assert_eq!(step(Some(&pending(false)), &second), Step::Ignore);
    let third = Request::Commit { decision_number: 3 };
    assert_eq!(step(Some(&pending(false)), &third), commit(3));
    assert_eq!(step(Some(&pending(true)), &second), commit(2));
    assert_eq!(step(Some(&pending(true)), &COMPENSATE), Step::Ignore);
    assert_eq!(step(Some(&pending(true)), &answered(false, 1)), Step::Ignore);
    assert_eq!(step(Some(&pending(true)), &answered(true, 2)), commit(2));
    assert_eq!(step(Some(&pending(true)), &PREPARE), Step::RepeatVote { committed: false });
}

#[test]
fn a_decision_that_could_not_be_applied_is_kept_and_tried_again() {
    let second = Verdict { commit: false, number: 2 };
    let pending = Branch::Prepared { pending: Some(second) };
    let kept = step(Some(&Branch::PREPARED), &Request::Failed(second));
    assert_eq!((kept, kept.records()), (Step::KeepPending(second), Some(pending)));
    assert_eq!(step(Some(&pending), &Request::Retry(second)), Step::Apply(second));
    // Another one is known by now, or it is over.
    let first = Verdict { commit: true, number: 1 };
    for branch in [Some(pending), Some(Branch::PREPARED), Some(COMMITTED), None] {
        assert_eq!(step(branch.as_ref(), &Request::Retry(first)), Step::Ignore);
    }
    let third = Verdict { commit: true, number: 3 };
    assert_eq!(step(Some(&pending), &Request::Retry(third)), Step::Ignore, "it is not kept");
    // A commit that could not be undone is still one, and an operator tries again.
    assert_eq!(step(Some(&COMMITTED), &Request::Failed(second)), Step::Ignore);
    let by_operator = Request::Failed(Verdict { commit: true, number: 0 });
    assert_eq!(step(Some(&Branch::PREPARED), &by_operator), Step::Ignore);
}

#[test]
fn a_branch_with_a_pending_decision_is_prepared_and_not_in_doubt() {
    let known = Verdict { commit: true, number: 1 };
    let pending = Branch::Prepared { pending: Some(known) };
    let seen = |it: Branch| (it.is_prepared(), it.is_in_doubt(), it.pending());
    assert_eq!(seen(Branch::PREPARED), (true, true, None));
    assert_eq!(seen(pending), (true, false, Some(known)));
    assert_eq!(seen(COMMITTED), (false, false, None));
    assert_eq!(seen(ROLLED_BACK), (false, false, None));
}

#[test]
fn the_answer_to_an_inquiry_counts_for_a_prepared_branch_only() {
    for commits in [true, false] {
        let applied = Step::Apply(Verdict { commit: commits, number: 1 });
        assert_eq!(step(Some(&Branch::PREPARED), &answered(commits, 1)), applied);
        for decided in [None, Some(&COMMITTED), Some(&ROLLED_BACK)] {
            assert_eq!(step(decided, &answered(commits, 1)), Step::Ignore);
        }
    }
}

#[test]
fn neither_not_mine_nor_the_word_of_another_coordinator_decides_anything() {
    let first = |commit| Outcome::Decided(Verdict { commit, number: 1 });
    let pending = Branch::Prepared { pending: Some(Verdict { commit: true, number: 1 }) };
    for (outcome, own) in [
        (Outcome::NotMine, true),
        (Outcome::NotMine, false),
        (first(true), false),
        (first(false), false),
    ] {
        let request = Request::Outcome { outcome, own };
        assert_eq!(step(Some(&Branch::PREPARED), &request), Step::ReportNotMine);
        for known in [None, Some(&pending), Some(&COMMITTED), Some(&ROLLED_BACK)] {
            assert_eq!(step(known, &request), Step::Ignore);
        }
    }
}

#[test]
fn an_operator_resolves_only_what_nobody_has_decided() {
    for commit in [true, false] {
        let resolve = Request::Resolve { commit };
        let applied = Step::Apply(Verdict { commit, number: 0 });
        assert_eq!(step(Some(&Branch::PREPARED), &resolve), applied);
        assert_eq!(step(None, &resolve), Step::AnswerUnknown);
        for decided in [COMMITTED, ROLLED_BACK] {
            assert_eq!(step(Some(&decided), &resolve), Step::RefuseDecided);
        }
        let pending = |commit| Branch::Prepared { pending: Some(Verdict { commit, number: 1 }) };
        assert_eq!(step(Some(&pending(commit)), &resolve), applied);
        assert_eq!(step(Some(&pending(!commit)), &resolve), Step::RefuseDecided);
    }
}

#[test]
fn what_may_have_been_forgotten_is_not_promised_again() {
    let late = Request::Prepare { same_payload: true, forgotten: true, one_phase: false };
    assert_eq!(step(None, &late), Step::RefuseForgotten);
    assert_eq!(step(Some(&Branch::PREPARED), &late), Step::RepeatVote { committed: false });
    assert_eq!(step(Some(&COMMITTED), &late), Step::RepeatVote { committed: false });
}

#[test]
fn a_decided_branch_tells_what_it_did() {
    assert_eq!(step(Some(&ROLLED_BACK), &COMMIT), Step::AnswerRolledBack);
    assert_eq!(step(Some(&COMMITTED), &ROLLBACK), Step::AnswerCommitted);
}
