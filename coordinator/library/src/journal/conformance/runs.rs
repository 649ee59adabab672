//! One run writes, and the next one finds what it wrote.

use dtc_protocol::SessionId;

use super::*;
use crate::journal::{Capabilities, Recalled, Registration};

/// Neither an append nor anything else of it is written or reported, and it is stopped.
pub async fn a_run_that_was_replaced_writes_nothing_more(subject: &dyn Subject) {
    let old = subject.open();
    append(&*old, [decision(1)]).await;
    assert!(!old.is_replaced().await.unwrap());
    let Some(new) = subject.take_over() else { return };
    let reported = append_and_note(&*old, decision(2));
    eventually("the old run is stopped", async || subject.has_stopped()).await;
    append(&*new, [decision(3)]).await;
    assert!(!reported.load(SeqCst), "an append of a run that was replaced is reported durable");
    assert_eq!(ids(&new.unfinished().await.unwrap()), [id(1), id(3)]);
    assert!(new.run().epoch > old.run().epoch);
    assert!(!new.is_replaced().await.unwrap());
    new.close().await;
}

/// Its epoch is higher, and it is told from all others.
pub async fn a_run_is_above_those_before_it(subject: &dyn Subject) {
    let first = subject.open();
    let (coordinator, run) = (first.coordinator(), first.run());
    assert!(run.epoch > 0 && first.was_mine(&run));
    first.close().await;
    let second = subject.open();
    let later = second.run();
    assert_ne!(later.incarnation, run.incarnation);
    let stranger = dtc_protocol::fence::Run { incarnation: run.incarnation, ..later };
    assert!(second.was_mine(&later) && !second.was_mine(&stranger));
    match subject.is_durable() {
        true => {
            assert_eq!(second.coordinator(), coordinator);
            assert!(later.epoch > run.epoch && second.was_mine(&run));
        }
        false => assert_ne!(second.coordinator(), coordinator, "a memory is a new identity"),
    }
    second.close().await;
}

/// All that was durable is there, and how it was.
pub async fn a_restart_changes_nothing(subject: &dyn Subject) {
    if !subject.is_durable() {
        return;
    }
    let journal = subject.open();
    let session = SessionId::from_bytes(*id(7).as_bytes());
    append(&*journal, [begin(1), decision(2), decision(3)]).await;
    append(&*journal, [Entry::Session { id: session, body: b"held".into() }]).await;
    let keep = Keep { operator: true, unnotified: true };
    append(&*journal, [end(3, keep)]).await;
    // What may wait is written when it is closed, at the latest.
    journal.append(vec![decision(4)], false, Box::new(|| ()));
    let address = "http://a.example:1".parse().unwrap();
    let registration = Registration::permanent("stock", address, Capabilities::default());
    journal.register(registration.clone()).await.unwrap();
    let epoch = journal.run().epoch;
    journal.close().await;

    let journal = subject.open();
    let unfinished = journal.unfinished().await.unwrap();
    assert_eq!(ids(&unfinished), [1, 2, 4].map(id));
    assert_eq!(unfinished[0].begin, Some(body("begin", 1)));
    assert_eq!(unfinished[1].decision, Some(body("decision", 2)));
    let finished = journal.finished(None, 10).await.unwrap();
    assert_eq!(ids(&finished), [id(3)]);
    assert_eq!(finished[0].end, Some(end_body()));
    assert_eq!(journal.kept(), (1, 1));
    assert_eq!(journal.sessions().await.unwrap(), [(session, b"held".into())]);
    assert_eq!(journal.registered().await.unwrap(), [registration]);
    assert_eq!(journal.newest().await.unwrap(), Some(id(4)));
    let users = journal.find_keys(vec!["key-3".into(), "key-2".into()]).await.unwrap();
    assert_eq!(users, [Some((id(3), [3; 32])), Some((id(2), [2; 32]))]);
    assert_eq!(journal.recall(id(9), epoch).await.unwrap(), Recalled::Never);
    append(&*journal, [end(2, Keep::default()), decision(1)]).await;
    assert_eq!(ids(&journal.unfinished().await.unwrap()), [id(1), id(4)]);
    journal.close().await;
}

/// It is not taken up, what is decided is, and what is not known of an earlier run may
/// have been there.
pub async fn what_a_backup_holds_as_begun_is_lost(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [begin(1), decision(2), decision(3), end(3, Keep::default())]).await;
    let before = journal.run().epoch;
    journal.close().await;
    let Some(journal) = subject.restore() else { return };
    let restored = journal.run().epoch;
    assert!(restored > before + 1000, "above what participants have seen since: {restored}");
    let check = async |journal: &dyn Journal| {
        assert_eq!(ids(&journal.lost().await.unwrap()), [id(1)]);
        assert_eq!(ids(&journal.unfinished().await.unwrap()), [id(2)]);
        let recall = async |number, epoch| journal.recall(id(number), epoch).await.unwrap();
        assert_eq!(recall(9, before).await, Recalled::Forgotten);
        assert_eq!(recall(9, restored).await, Recalled::Never, "of a run that lost nothing");
        for number in 1..=3 {
            assert!(matches!(recall(number, before).await, Recalled::Stored(_)), "{number}");
        }
    };
    check(&*journal).await;
    journal.close().await;
    // For good, not only in the run that began with the backup.
    let journal = subject.open();
    check(&*journal).await;
    append(&*journal, [decision(1), end(1, Keep { operator: true, unnotified: false })]).await;
    assert_eq!(journal.lost().await.unwrap(), []);
    assert_eq!(ids(&journal.finished(None, 10).await.unwrap()), [id(3), id(1)]);
    journal.close().await;
}
