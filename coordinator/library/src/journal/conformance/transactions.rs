//! What is written is what is found.

use std::sync::{Arc, Mutex};

use dtc_protocol::SessionId;

use super::*;
use crate::journal::{Capabilities, Recalled, Registration};

/// A begin is replaced by a decision, that by a later one, and an end stands beside it.
pub async fn entries_of_a_transaction_replace_each_other(subject: &dyn Subject) {
    let journal = subject.open();
    let find = async || journal.find(id(1)).await.unwrap();
    assert_eq!(find().await, None);
    append(&*journal, [begin(1)]).await;
    let begun = Stored { id: id(1), begin: Some(body("begin", 1)), decision: None, end: None };
    assert_eq!(find().await, Some(begun));
    append(&*journal, [decision(1)]).await;
    let decided = Stored { id: id(1), begin: None, decision: Some(body("decision", 1)), end: None };
    assert_eq!(find().await, Some(decided.clone()));
    let again = Entry::Decision { id: id(1), key: Some(key(1)), body: body("again", 1) };
    append(&*journal, [again]).await;
    let decided = Stored { decision: Some(body("again", 1)), ..decided };
    assert_eq!(find().await, Some(decided.clone()));
    append(&*journal, [end(1, Keep::default())]).await;
    assert_eq!(find().await, Some(Stored { end: Some(end_body()), ..decided }));
    assert_eq!(journal.find(id(2)).await.unwrap(), None);
    journal.close().await;
}

/// The callbacks come in the order of the appends, those that may wait included.
pub async fn appends_are_durable_in_their_order(subject: &dyn Subject) {
    let journal = subject.open();
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..100 {
        let order = Arc::clone(&order);
        let durable = Box::new(move || order.lock().unwrap().push(number));
        journal.append(vec![decision(number)], number % 3 == 0, durable);
    }
    append(&*journal, [decision(100)]).await;
    let order = order.lock().unwrap().clone();
    assert!(order.iter().copied().eq(0..100), "{order:?}");
    let unfinished = journal.unfinished().await.unwrap();
    assert!(ids(&unfinished).into_iter().eq((0..=100).map(id)), "oldest first");
    journal.close().await;
}

/// Begin, decision and end in one append are as good as one by one.
pub async fn an_append_may_hold_all_of_a_transaction(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [begin(1), decision(1), end(1, Keep::default()), decision(2)]).await;
    let stored = journal.find(id(1)).await.unwrap().unwrap();
    assert_eq!((stored.begin, stored.end), (None, Some(end_body())));
    assert_eq!(stored.decision, Some(body("decision", 1)));
    assert_eq!(ids(&journal.unfinished().await.unwrap()), [id(2)]);
    journal.close().await;
}

/// From its first entry on, with its fingerprint, and in the order in which was asked.
pub async fn a_key_is_its_transactions(subject: &dyn Subject) {
    let journal = subject.open();
    let with_key = Entry::Begin { id: id(1), key: Some(key(1)), body: body("begin", 1) };
    append(&*journal, [with_key, decision(2)]).await;
    let users = async || {
        let keys = ["key-2", "key-9", "key-1"].map(Into::into).into();
        journal.find_keys(keys).await.unwrap()
    };
    let expected = [Some((id(2), [2; 32])), None, Some((id(1), [1; 32]))];
    assert_eq!(users().await, expected);
    append(&*journal, [decision(1), end(1, Keep::default()), end(2, Keep::default())]).await;
    assert_eq!(users().await, expected, "when they have ended, too");
    journal.close().await;
}

/// And stays so when the earlier one ends.
pub async fn a_key_that_is_taken_again_is_the_later_ones(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [decision(1)]).await;
    let later =
        Entry::Decision { id: id(2), key: Some((key(1).0, [2; 32])), body: body("decision", 2) };
    append(&*journal, [later]).await;
    append(&*journal, [end(1, Keep::default())]).await;
    let users = journal.find_keys(vec!["key-1".into()]).await.unwrap();
    assert_eq!(users, [Some((id(2), [2; 32]))]);
    assert!(journal.find(id(1)).await.unwrap().is_some());
    journal.close().await;
}

/// Whatever the order in which they ended.
pub async fn what_is_unfinished_is_told_from_what_is_finished(subject: &dyn Subject) {
    let journal = subject.open();
    assert_eq!(journal.newest().await.unwrap(), None);
    append(&*journal, [decision(2), begin(3), decision(1), decision(4)]).await;
    append(&*journal, [end(4, Keep::default()), end(2, Keep::default())]).await;
    assert_eq!(ids(&journal.unfinished().await.unwrap()), [id(1), id(3)]);
    assert_eq!(ids(&journal.finished(None, 10).await.unwrap()), [id(4), id(2)]);
    assert_eq!(journal.lost().await.unwrap(), []);
    assert_eq!(journal.newest().await.unwrap(), Some(id(4)));
    append(&*journal, [begin(5)]).await;
    assert_eq!(journal.newest().await.unwrap(), Some(id(5)));
    journal.close().await;
}

/// `before` is not among them.
pub async fn finished_ones_come_newest_first_in_pages(subject: &dyn Subject) {
    let journal = subject.open();
    for number in 1..=5 {
        append(&*journal, [decision(number), end(number, Keep::default())]).await;
    }
    let page = async |before| ids(&journal.finished(before, 2).await.unwrap());
    assert_eq!(page(None).await, [id(5), id(4)]);
    assert_eq!(page(Some(id(4))).await, [id(3), id(2)]);
    assert_eq!(page(Some(id(2))).await, [id(1)]);
    assert_eq!(page(Some(id(1))).await, []);
    let all = journal.finished(None, 10).await.unwrap();
    assert!(all.iter().all(|it| it.decision.is_some() && it.end.is_some()), "{all:?}");
    journal.close().await;
}

/// What was written is given back, unfinished or finished.
pub async fn what_was_never_written_is_never(subject: &dyn Subject) {
    let journal = subject.open();
    append(&*journal, [begin(1), decision(2), decision(3), end(3, Keep::default())]).await;
    let epoch = journal.run().epoch;
    for number in 1..=3 {
        let stored = journal.find(id(number)).await.unwrap().unwrap();
        let recalled = journal.recall(id(number), epoch).await.unwrap();
        assert_eq!(recalled, Recalled::Stored(Box::new(stored)));
    }
    for number in [0, 4] {
        assert_eq!(journal.recall(id(number), epoch).await.unwrap(), Recalled::Never);
    }
    journal.close().await;
}

/// What it holds is what it was last said to hold.
pub async fn a_session_is_replaced_and_ended(subject: &dyn Subject) {
    let journal = subject.open();
    let session = |number: u8| SessionId::from_bytes(*id(number).as_bytes());
    let held = |number: u8, body: &[u8]| Entry::Session { id: session(number), body: body.into() };
    append(&*journal, [held(1, b"a"), held(2, b"b")]).await;
    append(&*journal, [held(1, b"c")]).await;
    let sessions = async || journal.sessions().await.unwrap();
    assert_eq!(sessions().await, [(session(1), b"c".into()), (session(2), b"b".into())]);
    append(&*journal, [Entry::SessionEnd { id: session(1) }]).await;
    assert_eq!(sessions().await, [(session(2), b"b".into())]);
    journal.close().await;
}

/// By name.
pub async fn a_registration_is_replaced_and_taken_away(subject: &dyn Subject) {
    let journal = subject.open();
    let at = |address: &str| address.parse().unwrap();
    let first = Registration::permanent("stock", at("http://a.example:1"), Capabilities::default());
    journal.register(first.clone()).await.unwrap();
    assert_eq!(journal.registered().await.unwrap(), [first]);
    let second = Registration {
        address: at("http://b.example:80/prepare"),
        capabilities: Capabilities { supports_inquiry: true, compensates: true },
        lease: Some(Duration::from_millis(1500)),
        draining: true,
        name: "stock".into(),
    };
    let other = Registration { name: "ledger".into(), ..second.clone() };
    journal.register(second.clone()).await.unwrap();
    journal.register(other.clone()).await.unwrap();
    let mut registered = journal.registered().await.unwrap();
    registered.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(registered, [other.clone(), second]);
    journal.deregister("stock").await.unwrap();
    journal.deregister("nobody").await.unwrap();
    assert_eq!(journal.registered().await.unwrap(), [other]);
    journal.close().await;
}
