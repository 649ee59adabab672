//! What goes, and what stays.

use dtc_core::{Intervention, InterventionAction, Time};

use super::*;
use crate::journal::{Forgotten, Recalled, Retention};

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(86_400);
/// Shorter than any waits.
const SHORT: Duration = Duration::from_millis(1);

fn by_age(age: Duration) -> Retention {
    Retention { age, max_bytes: u64::MAX, floor: age }
}

async fn forget(journal: &dyn Journal, retention: Retention) -> Forgotten {
    journal.forget(retention, 100).await.unwrap()
}

/// Until a transaction is gone, in its time, which is over.
async fn is_forgotten(journal: &dyn Journal, number: u8) {
    eventually("it is forgotten", async || {
        forget(journal, by_age(SHORT)).await;
        journal.find(id(number)).await.unwrap().is_none()
    })
    .await;
}

/// Has all forgotten that ended until now and may go: the time of another, which was
/// begun and ended later, is over.
async fn all_that_may_go_is_forgotten(journal: &dyn Journal, marker: u8) {
    append(journal, [decision(marker), end(marker, Keep::default())]).await;
    is_forgotten(journal, marker).await;
}

/// Not before, and none of the others.
pub async fn what_ended_goes_in_its_time_with_its_key(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [decision(1), end(1, Keep::default())]).await;
    for _ in 0..10 {
        assert_eq!(forget(&*journal, by_age(LONG)).await.count, 0);
        tokio::time::sleep(SHORT).await;
    }
    let user = async || journal.find_keys(vec!["key-1".into()]).await.unwrap()[0];
    assert_eq!(user().await, Some((id(1), [1; 32])));
    is_forgotten(&*journal, 1).await;
    assert_eq!(user().await, None);
    assert_eq!(journal.finished(None, 10).await.unwrap(), []);
    // Of two that had a key, the later one keeps it.
    append(&*journal, [decision(2), end(2, Keep::default())]).await;
    let later =
        Entry::Decision { id: id(9), key: Some((key(2).0, [9; 32])), body: body("later", 9) };
    append(&*journal, [later]).await;
    is_forgotten(&*journal, 2).await;
    let users = journal.find_keys(vec!["key-2".into()]).await.unwrap();
    assert_eq!(users, [Some((id(9), [9; 32]))]);
    journal.close().await;
}

/// Begun or decided, between others that go.
pub async fn what_is_unfinished_stays_whatever_its_age(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [begin(1), decision(2), decision(3), end(3, Keep::default())]).await;
    all_that_may_go_is_forgotten(&*journal, 4).await;
    assert_eq!(journal.find(id(3)).await.unwrap(), None);
    assert_eq!(ids(&journal.unfinished().await.unwrap()), [id(1), id(2)]);
    // One that ends below the watermark goes by its own end.
    append(&*journal, [end(2, Keep::default())]).await;
    assert_eq!(forget(&*journal, by_age(LONG)).await.count, 0);
    assert!(journal.find(id(2)).await.unwrap().is_some(), "it ended just now");
    is_forgotten(&*journal, 2).await;
    assert_eq!(ids(&journal.unfinished().await.unwrap()), [id(1)]);
    journal.close().await;
}

fn seen() -> Intervention {
    Intervention {
        at: Time(1),
        action: InterventionAction::Forget,
        branch: None,
        reason: "seen".into(),
        caller: "ada".into(),
    }
}

/// And then goes, with what was done on record until then.
pub async fn what_is_kept_for_an_operator_stays_until_it_is_released(subject: &dyn Subject) {
    let journal = subject.open();
    let keep = Keep { operator: true, unnotified: false };
    append(&*journal, [decision(1), decision(2), end(1, keep)]).await;
    all_that_may_go_is_forgotten(&*journal, 3).await;
    let kept = journal.find(id(1)).await.unwrap().expect("it is kept");
    assert_eq!((kept.end, journal.kept()), (Some(end_body()), (1, 0)));
    for (number, is_kept) in [(2, false), (9, false), (1, true), (1, false)] {
        assert_eq!(journal.release(id(number), seen()).await.unwrap(), is_kept, "{number}");
    }
    let released = journal.find(id(1)).await.unwrap().unwrap().end.unwrap();
    let end: crate::journal::disk::End = prost::Message::decode(&released[..]).unwrap();
    assert_eq!((end.interventions.len(), journal.kept()), (1, (0, 0)));
    is_forgotten(&*journal, 1).await;
    journal.close().await;
}

/// Each of them, and an operator has looked, where it is kept for both.
pub async fn what_is_kept_for_participants_stays_until_all_were_notified(subject: &dyn Subject) {
    let journal = subject.open();
    let keep = Keep { operator: true, unnotified: true };
    append(&*journal, [decision(1), end(1, keep)]).await;
    assert_eq!(journal.kept(), (1, 1));
    assert!(journal.release(id(1), seen()).await.unwrap());
    journal.notified(id(1), 0);
    append(&*journal, [decision(2)]).await;
    all_that_may_go_is_forgotten(&*journal, 3).await;
    assert!(journal.find(id(1)).await.unwrap().is_some(), "a branch is not notified yet");
    assert_eq!(journal.kept(), (0, 1));
    journal.notified(id(1), 1);
    // Of one that has no such branch, and one that is not there.
    journal.notified(id(2), 0);
    journal.notified(id(9), 0);
    eventually("none is kept", async || journal.kept() == (0, 0)).await;
    assert_eq!(forget(&*journal, by_age(LONG)).await.count, 0, "its age begins anew");
    is_forgotten(&*journal, 1).await;
    journal.close().await;
}

/// Which a restart does not take away.
pub async fn what_is_forgotten_leaves_a_watermark(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [decision(1), decision(3), end(3, Keep::default())]).await;
    let epoch = journal.run().epoch;
    is_forgotten(&*journal, 3).await;
    let check = async |journal: &dyn Journal| {
        for number in [2, 3] {
            assert_eq!(journal.recall(id(number), epoch).await.unwrap(), Recalled::Forgotten);
        }
        assert!(matches!(journal.recall(id(1), epoch).await.unwrap(), Recalled::Stored(_)));
        assert_eq!(journal.recall(id(4), epoch).await.unwrap(), Recalled::Never);
    };
    check(&*journal).await;
    journal.close().await;
    if subject.is_durable() {
        let journal = subject.open();
        check(&*journal).await;
        journal.close().await;
    }
}

/// Above it the oldest go before their time, and it is said.
pub async fn bytes_cut_nothing_below_the_floor(subject: &dyn Subject) {
    if !subject.counts_bytes() {
        return;
    }
    let journal = subject.open();
    append(&*journal, [decision(1), end(1, Keep::default())]).await;
    let held = Retention { age: LONG, max_bytes: 1, floor: LONG };
    for _ in 0..10 {
        let step = forget(&*journal, held).await;
        assert!(step.count == 0 && step.too_large, "{step:?}");
        tokio::time::sleep(SHORT).await;
    }
    let cut = Retention { floor: SHORT, ..held };
    eventually("it is cut", async || {
        let step = forget(&*journal, cut).await;
        assert_eq!(step.early, step.count);
        step.count == 1
    })
    .await;
    let small = Retention { max_bytes: u64::MAX, ..held };
    assert!(!forget(&*journal, small).await.too_large);
    journal.close().await;
}

/// And says that there is more.
pub async fn a_step_forgets_no_more_than_its_limit(subject: &dyn Subject) {
    let journal = subject.open();
    for number in 1..=5 {
        append(&*journal, [decision(number), end(number, Keep::default())]).await;
    }
    let mut gone = Vec::new();
    eventually("all are gone", async || {
        let step = journal.forget(by_age(SHORT), 2).await.unwrap();
        assert!(step.count <= 2 && (step.count < 2 || step.more), "{step:?}");
        gone.push(step.count);
        gone.iter().sum::<usize>() == 5
    })
    .await;
    assert_eq!(journal.finished(None, 10).await.unwrap(), []);
    journal.close().await;
}
