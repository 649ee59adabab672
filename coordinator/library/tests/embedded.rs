//! The coordinator within a program.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use dtc::{
    BoxError, Branch, Closures, CommitPolicy, Error, OptimisticResource, Participant, Payload,
    Phase, Resource, Settings, Source, TransactionCoordinator, TransactionId, Vote, async_trait,
};
use serde_json::json;
use tokio::sync::Semaphore;

/// What a resource was asked, in order.
type Calls = Arc<Mutex<Vec<&'static str>>>;

/// Does what it is told to, and notes what it was asked.
#[derive(Clone)]
struct Scripted {
    name: &'static str,
    calls: Calls,
    prepare: fn() -> Result<bool, String>,
    /// How often commit fails, from now on.
    failures: Arc<AtomicU32>,
    /// Commit waits for it.
    gate: Arc<Semaphore>,
}

impl Scripted {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            calls: Calls::default(),
            prepare: || Ok(true),
            failures: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    fn preparing(self, prepare: fn() -> Result<bool, String>) -> Self {
        Self { prepare, ..self }
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Resource for Scripted {
    fn name(&self) -> Cow<'_, str> {
        self.name.into()
    }

    async fn prepare(&self) -> Result<bool, String> {
        self.calls.lock().unwrap().push("prepare");
        (self.prepare)()
    }

    async fn commit(&self) -> Result<(), String> {
        self.calls.lock().unwrap().push("commit");
        let _open = self.gate.acquire().await;
        let failed = self.failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        failed.map_or(Ok(()), |_| Err("not yet".into()))
    }

    async fn rollback(&self) -> Result<(), String> {
        self.calls.lock().unwrap().push("rollback");
        Ok(())
    }
}

fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.decision_timeout = Duration::from_millis(200);
    settings.wait = Duration::from_secs(20);
    settings
}

async fn in_memory() -> TransactionCoordinator {
    TransactionCoordinator::in_memory_with(quick()).await.unwrap()
}

async fn with(coordinator: &TransactionCoordinator, resources: &[&Scripted]) -> TransactionId {
    let id = coordinator.begin_transaction().await.unwrap();
    for (number, resource) in (0..).zip(resources) {
        let resource = Scripted::clone(resource);
        assert_eq!(coordinator.enlist_resource(id, resource).await, Ok(number));
    }
    id
}

#[tokio::test]
async fn all_resources_commit_or_all_roll_back() {
    let coordinator = in_memory().await;
    let (one, two) = (Scripted::new(""), Scripted::new(""));
    let id = with(&coordinator, &[&one, &two]).await;
    assert_eq!(coordinator.commit_transaction(id).await, Ok(()));
    assert_eq!([one.calls(), two.calls()], [["prepare", "commit"], ["prepare", "commit"]]);
    // Told again, it says the same.
    assert_eq!(coordinator.commit_transaction(id).await, Ok(()));
    let late = coordinator.rollback_transaction(id).await.unwrap_err();
    assert!(matches!(late, Error::WrongState { .. }), "{late}");
    let late = coordinator.enlist_resource(id, one.clone()).await.unwrap_err();
    assert!(matches!(late, Error::WrongState { .. }), "{late}");

    let (yes, no) = (Scripted::new("till"), Scripted::new("stock").preparing(|| Ok(false)));
    let id = with(&coordinator, &[&yes, &no]).await;
    let refused = coordinator.commit_transaction(id).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { resource, .. } if resource == "stock"),
        "{refused}"
    );
    assert!(refused.to_string().contains(&id.to_string()), "{refused}");
    assert_eq!(coordinator.rollback_transaction(id).await, Ok(()), "it is rolled back already");
    // Perhaps before it was asked: the other's no ends it all.
    assert_eq!(yes.calls().last(), Some(&"rollback"));
    assert_eq!(no.calls(), ["prepare"]);
}

#[tokio::test]
async fn a_client_may_prepare_first_and_decide_then() {
    let coordinator = in_memory().await;
    for commit in [true, false] {
        let (one, two) = (Scripted::new(""), Scripted::new(""));
        let id = with(&coordinator, &[&one, &two]).await;
        assert_eq!(coordinator.prepare_transaction(id).await, Ok(true));
        let last = match commit {
            true => {
                assert_eq!(coordinator.commit_transaction(id).await, Ok(()));
                "commit"
            }
            false => {
                assert_eq!(coordinator.rollback_transaction(id).await, Ok(()));
                "rollback"
            }
        };
        assert_eq!([one.calls(), two.calls()], [["prepare", last], ["prepare", last]]);
    }
    let (one, no) = (Scripted::new(""), Scripted::new("").preparing(|| Ok(false)));
    let id = with(&coordinator, &[&one, &no]).await;
    assert_eq!(coordinator.prepare_transaction(id).await, Ok(false));
    let id = coordinator.begin_transaction().await.unwrap();
    assert_eq!(coordinator.execute(id, [one.clone(), no.clone()]).await, Ok(false));
    let id = coordinator.begin_transaction().await.unwrap();
    assert_eq!(coordinator.execute(id, [one.clone(), one]).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_breaks_panics_or_blocks_rolls_back_with_an_error_of_its_own() {
    let mut settings = quick();
    settings.prepare_timeout = Duration::from_secs(2);
    let coordinator = TransactionCoordinator::in_memory_with(settings).await.unwrap();
    for (prepare, is) in [
        (
            (|| Err("no disk".into())) as fn() -> Result<bool, String>,
            (|error| matches!(error, Error::Broken { cause, .. } if cause == "no disk"))
                as fn(&Error) -> bool,
        ),
        (
            || panic!("a bug"),
            |error| matches!(error, Error::Panicked { cause, .. } if cause == "a bug"),
        ),
        (
            || {
                std::thread::sleep(Duration::from_secs(4));
                Ok(true)
            },
            |error| matches!(error, Error::PrepareTimeout { .. }),
        ),
    ] {
        let (fine, bad) = (Scripted::new("fine"), Scripted::new("bad").preparing(prepare));
        let id = with(&coordinator, &[&fine, &bad]).await;
        let begun = Instant::now();
        let error = coordinator.commit_transaction(id).await.unwrap_err();
        assert!(is(&error), "{error:?} after {:?}", begun.elapsed());
        let text = error.to_string();
        assert!(text.contains("'bad'") && text.contains(&id.to_string()), "{text}");
        eventually(|| fine.calls().last() == Some(&"rollback")).await;
        eventually(|| bad.calls().last() == Some(&"rollback")).await;
        // Nobody else noticed.
        let other = Scripted::new("");
        let id = with(&coordinator, &[&other]).await;
        assert_eq!(coordinator.commit_transaction(id).await, Ok(()));
    }
}

async fn eventually(is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it did not come to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_that_hangs_in_commit_is_called_again_and_reported_and_blocks_nobody() {
    let mut settings = quick();
    settings.wait = Duration::from_secs(2);
    let coordinator = TransactionCoordinator::in_memory_with(settings).await.unwrap();
    let (fine, mut hangs) = (Scripted::new("fine"), Scripted::new("hangs"));
    hangs.gate = Arc::new(Semaphore::new(0));
    let id = with(&coordinator, &[&fine, &hangs]).await;
    let unfinished = coordinator.commit_transaction(id).await.unwrap_err();
    let Error::Unfinished { resource, phase, .. } = &unfinished else { panic!("{unfinished}") };
    assert_eq!((resource.as_str(), *phase), ("hangs", Phase::Commit));
    assert_eq!(fine.calls(), ["prepare", "commit"], "the decision stands");
    let other = Scripted::new("");
    let next = with(&coordinator, &[&other]).await;
    assert_eq!(coordinator.commit_transaction(next).await, Ok(()));
    eventually(|| hangs.calls().len() >= 3).await;
    hangs.gate.add_permits(1000);
    eventually_ok(&coordinator, id).await;

    // And one that fails, with what it said.
    let fails = Scripted::new("fails");
    fails.failures.store(1_000_000, SeqCst);
    let id = with(&coordinator, &[&fails]).await;
    let unfinished = coordinator.commit_transaction(id).await.unwrap_err();
    assert!(
        matches!(&unfinished, Error::Unfinished { cause, .. } if cause == "not yet"),
        "{unfinished}"
    );
    fails.failures.store(0, SeqCst);
    eventually_ok(&coordinator, id).await;
}

#[tokio::test]
async fn different_resources_may_be_in_one_list() {
    let coordinator = in_memory().await;
    let (till, account) =
        (Scripted::new("till"), OptimisticResource::new(Scripted::new("account")));
    let all: Vec<Box<dyn Participant>> = vec![Box::new(till.clone()), Box::new(account.clone())];
    let id = coordinator.begin_transaction().await.unwrap();
    assert_eq!(coordinator.execute(id, all).await, Ok(true));
    assert_eq!(till.calls(), ["prepare", "commit"]);
    assert_eq!(account.current_version(), 1);
}

#[tokio::test]
async fn a_commit_that_keeps_failing_rolls_back_also_what_has_committed() {
    let coordinator = in_memory().await;
    let (till, stock) = (Scripted::new("till"), Scripted::new("stock"));
    let account = OptimisticResource::new(Scripted::new("account"));
    stock.failures.store(u32::MAX, SeqCst);
    let policy = CommitPolicy::Compensate { after: 3 };
    let id = coordinator.begin_transaction_with(policy).await.unwrap();
    for resource in [&till, &stock] {
        coordinator.enlist_resource(id, Scripted::clone(resource)).await.unwrap();
    }
    coordinator.enlist_resource(id, account.clone()).await.unwrap();
    let error = coordinator.commit_transaction(id).await.unwrap_err();
    assert!(
        matches!(&error, Error::CommitFailed { resource, .. } if resource == "stock"),
        "{error}"
    );
    assert!(error.to_string().contains("in 3 attempts"), "{error}");
    assert_eq!(till.calls(), ["prepare", "commit", "rollback"]);
    assert_eq!(stock.calls(), ["prepare", "commit", "commit", "commit", "rollback"]);
    assert_eq!(account.get().calls(), ["prepare", "commit", "rollback"]);
    assert_eq!(account.current_version(), 2, "committed, and undone");
}

async fn eventually_ok(coordinator: &TransactionCoordinator, id: TransactionId) {
    let begun = Instant::now();
    while let Err(error) = coordinator.commit_transaction(id).await {
        assert!(matches!(error, Error::Unfinished { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
    }
}

#[tokio::test]
async fn what_was_unfinished_in_the_journal_goes_on_with_resources_of_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transactions.db");
    let mut settings = quick();
    settings.wait = Duration::from_secs(2);
    let open = || TransactionCoordinator::open_with(&path, settings.clone());
    let (one, mut two) = (Scripted::new("one"), Scripted::new("two"));
    two.gate = Arc::new(Semaphore::new(0));

    let coordinator = open().await.unwrap();
    let committed = with(&coordinator, &[&one, &two]).await;
    let unfinished = coordinator.commit_transaction(committed).await.unwrap_err();
    assert!(matches!(unfinished, Error::Unfinished { .. }), "{unfinished}");
    let undecided = with(&coordinator, &[&one, &two]).await;
    assert_eq!(coordinator.prepare_transaction(undecided).await, Ok(true));
    assert!(open().await.is_err(), "the file is in use");
    coordinator.close().await;
    let closed = coordinator.begin_transaction().await.unwrap_err();
    assert!(matches!(closed, Error::Stopped(_)), "{closed}");
    drop(coordinator);

    let coordinator = open().await.unwrap();
    let mut orphans = coordinator.orphans().await.unwrap();
    orphans.sort_by_key(|orphan| (orphan.transaction, orphan.resource.clone()));
    let seen = orphans.iter().map(|it| (it.transaction, it.resource.as_str(), it.committed));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        // Who has acknowledged is written with the end.
        [
            (committed, "one", true),
            (committed, "two", true),
            (undecided, "one", false),
            (undecided, "two", false)
        ]
    );
    let (one, two) = (Scripted::new("one"), Scripted::new("two"));
    coordinator.attach(one.clone()).await.unwrap();
    coordinator.attach(two.clone()).await.unwrap();
    for resource in [&one, &two] {
        let has = |call| resource.calls().contains(&call);
        eventually(|| has("commit") && has("rollback")).await;
        assert!(!has("prepare"));
    }
    assert_eq!(coordinator.commit_transaction(committed).await, Ok(()));
    assert_eq!(coordinator.orphans().await.unwrap(), []);
    let rolled_back = coordinator.commit_transaction(undecided).await.unwrap_err();
    assert!(matches!(rolled_back, Error::RolledBack { .. }), "{rolled_back}");
    assert!(coordinator.attach(Scripted::new("")).await.is_err());
}

/// Whether it was a commit, and the output that came back.
type Returned = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// A map of amounts, with a key as input and what was there before as output.
#[derive(Clone, Default)]
struct Accounts {
    amounts: Arc<Mutex<HashMap<String, i64>>>,
    returned: Returned,
}

#[async_trait]
impl Participant for Accounts {
    async fn prepare(&self, branch: &Branch) -> Result<Vote, BoxError> {
        let key = String::from_utf8(branch.input.clone())?;
        Ok(match self.amounts.lock().unwrap().get(&key) {
            Some(amount) => Vote::Commit(amount.to_string().into_bytes()),
            None if key.is_empty() => Vote::ReadOnly,
            None => Vote::Abort(format!("there is no '{key}'")),
        })
    }

    async fn commit(&self, _: &Branch, output: &[u8]) -> Result<(), BoxError> {
        self.returned.lock().unwrap().push((true, output.to_vec()));
        Ok(())
    }

    async fn rollback(&self, _: &Branch, output: Option<&[u8]>) -> Result<(), BoxError> {
        self.returned.lock().unwrap().push((false, output.unwrap_or_default().to_vec()));
        Ok(())
    }
}

#[tokio::test]
async fn a_resource_without_a_name_is_called_by_its_type_without_what_that_is_generic_over() {
    let coordinator = in_memory().await;
    let id = coordinator.begin_transaction().await.unwrap();
    let no = Closures::new(|| async { Ok(false) }, || async { Ok(()) }, || async { Ok(()) });
    let boxed: Box<dyn Resource> = Box::new(no);
    coordinator.enlist_resource(id, boxed).await.unwrap();
    let refused = coordinator.commit_transaction(id).await.unwrap_err();
    let Error::Refused { resource, .. } = &refused else { panic!("{refused}") };
    assert_eq!(resource, "dtc::embedded::resource::Closures");
}

#[tokio::test]
async fn inputs_go_in_and_outputs_come_back_with_the_decision() {
    let coordinator = in_memory().await;
    let accounts = Accounts::default();
    accounts.amounts.lock().unwrap().insert("ada".into(), 7);
    let id = coordinator.begin_transaction().await.unwrap();
    for input in ["ada", ""] {
        coordinator.enlist_resource_with(id, accounts.clone(), input.into()).await.unwrap();
    }
    assert_eq!(coordinator.commit_transaction(id).await, Ok(()));
    let id = coordinator.begin_transaction().await.unwrap();
    for input in ["ada", "bob"] {
        coordinator.enlist_resource_with(id, accounts.clone(), input.into()).await.unwrap();
    }
    let refused = coordinator.commit_transaction(id).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { resource, cause, .. }
        if cause == "there is no 'bob'" && resource == "embedded::Accounts"));
    let rolled_back = |returned: &Returned| returned.lock().unwrap().iter().any(|it| !it.0);
    eventually(|| rolled_back(&accounts.returned)).await;
    // Whether its output was known by then depends on whose vote came first.
    accounts.returned.lock().unwrap().truncate(1);

    let id = coordinator.begin_transaction().await.unwrap();
    coordinator.enlist_resource_with(id, accounts.clone(), vec![0xff]).await.unwrap();
    let broken = coordinator.commit_transaction(id).await.unwrap_err();
    let source = std::error::Error::source(&broken).expect("the resource's own error");
    let source = source.downcast_ref::<Source>().unwrap().get();
    assert!(source.is::<std::string::FromUtf8Error>(), "{source}");
    eventually(|| accounts.returned.lock().unwrap().len() == 2).await;
    accounts.returned.lock().unwrap().truncate(1);

    let id = coordinator.begin_transaction().await.unwrap();
    coordinator.enlist_resource_with(id, accounts.clone(), "ada".into()).await.unwrap();
    assert_eq!(coordinator.prepare_transaction(id).await, Ok(true));
    assert_eq!(coordinator.rollback_transaction(id).await, Ok(()));
    let returned = accounts.returned.lock().unwrap().clone();
    assert_eq!(returned, [(true, b"7".to_vec()), (false, b"7".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_saw_one_version_exactly_one_commits() {
    let coordinator = in_memory().await;
    let commits = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&commits);
    let counter = OptimisticResource::new(Closures::new(
        || async { Ok(true) },
        move || {
            count.fetch_add(1, SeqCst);
            async { Ok(()) }
        },
        || async { Ok(()) },
    ));
    for round in 1..=20 {
        let mut ids = Vec::new();
        for _ in 0..10 {
            let id = coordinator.begin_transaction().await.unwrap();
            coordinator.enlist_resource(id, counter.clone()).await.unwrap();
            ids.push(id);
        }
        let all = ids.into_iter().map(|id| {
            let coordinator = coordinator.clone();
            tokio::spawn(async move { coordinator.commit_transaction(id).await })
        });
        let mut won = 0;
        for running in all.collect::<Vec<_>>() {
            match running.await.unwrap() {
                Ok(()) => won += 1,
                Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"),
            }
        }
        assert_eq!(
            (won, counter.current_version(), commits.load(SeqCst)),
            (1, round, round as u32)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_go_on_at_once() {
    let coordinator = TransactionCoordinator::in_memory().await.unwrap();
    let open = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..2000 {
        let (coordinator, open) = (coordinator.clone(), Arc::clone(&open));
        running.push(tokio::spawn(async move {
            let id = coordinator.begin_transaction().await?;
            let waits = Closures::new(
                move || {
                    let open = Arc::clone(&open);
                    async move {
                        while !open.load(SeqCst) {
                            tokio::task::yield_now().await;
                        }
                        Ok(true)
                    }
                },
                || async { Ok(()) },
                || async { Ok(()) },
            );
            coordinator.enlist_resource(id, waits).await?;
            coordinator.commit_transaction(id).await
        }));
    }
    open.store(true, SeqCst);
    for each in running {
        assert_eq!(each.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn what_is_unknown_or_left_alone_is_named() {
    let mut settings = quick();
    settings.idle_timeout = Duration::from_secs(1);
    let coordinator = TransactionCoordinator::in_memory_with(settings).await.unwrap();
    let nobody = "0192f0c1-7a3e-7c5d-9b1e-3f2a6c8d4e5f".parse().unwrap();
    assert_eq!(
        coordinator.commit_transaction(nobody).await,
        Err(Error::UnknownTransaction(nobody))
    );
    let one = Scripted::new("one");
    let id = with(&coordinator, &[&one]).await;
    let begun = Instant::now();
    loop {
        match coordinator.enlist_resource(id, one.clone()).await {
            Err(error) => {
                assert!(matches!(error, Error::WrongState { .. }), "{error}");
                break;
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(1500)).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    let refused = coordinator
        .enlist_remote(nobody, "http://10.0.0.1:1", Payload::json(json!({})).unwrap())
        .await
        .unwrap_err();
    assert!(matches!(&refused, Error::Participant(why) if why.contains("allow")), "{refused}");
}

/// A refusal that came after the registration was durable would be found at the next start.
#[cfg(not(feature = "grpc-client"))]
#[tokio::test]
async fn a_participant_that_this_build_cannot_call_is_refused_and_leaves_nothing() {
    use dtc::api::NewParticipant;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transactions.db");
    let address = "http://127.0.0.1:1";
    for _ in 0..2 {
        let coordinator = TransactionCoordinator::open_with(&path, quick()).await.unwrap();
        let id = coordinator.begin_transaction().await.unwrap();
        for _ in 0..2 {
            let new =
                NewParticipant { name: "x".into(), address: address.into(), ..Default::default() };
            let refused = coordinator.api().register(new).await.unwrap_err().to_string();
            assert!(refused.contains("grpc-client"), "{refused}");
            let payload = Payload::json(json!({})).unwrap();
            let refused = coordinator.enlist_remote(id, address, payload).await.unwrap_err();
            assert!(refused.to_string().contains("grpc-client"), "{refused}");
        }
        assert!(coordinator.api().participants().await.unwrap().is_empty());
        coordinator.close().await;
    }
}

const CHILD: &str = "EMBEDDED_CHILD_JOURNAL";

/// Not a test by itself: a process that decides a transaction, leaves another prepared,
/// and is killed then.
#[tokio::test]
#[ignore = "run by the test below"]
async fn a_process_that_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let mut settings = quick();
    settings.wait = Duration::from_millis(500);
    let coordinator = TransactionCoordinator::open_with(path, settings).await.unwrap();
    let mut hangs = Scripted::new("stock");
    hangs.gate = Arc::new(Semaphore::new(0));
    let decided = with(&coordinator, &[&hangs]).await;
    let unfinished = coordinator.commit_transaction(decided).await.unwrap_err();
    assert!(matches!(unfinished, Error::Unfinished { phase: Phase::Commit, .. }), "{unfinished}");
    let undecided = with(&coordinator, &[&hangs]).await;
    while coordinator.prepare_transaction(undecided).await != Ok(true) {}
    println!("ready {decided} {undecided}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_process_that_was_killed_is_taken_up_from_its_journal() {
    use std::io::{BufRead, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transactions.db");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["a_process_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ready = lines
        .map_while(Result::ok)
        .filter_map(|line| line.split_once("ready ").map(|(_, ids)| ids.to_owned()));
    let ids = ready.next().expect("the child got so far");
    child.kill().unwrap();
    child.wait().unwrap();

    let ids: Vec<TransactionId> = ids.split(' ').map(|id| id.parse().unwrap()).collect();
    let coordinator = TransactionCoordinator::open_with(&path, quick()).await.unwrap();
    assert_eq!(coordinator.orphans().await.unwrap().len(), 2);
    let stock = Scripted::new("stock");
    coordinator.attach(stock.clone()).await.unwrap();
    assert_eq!(coordinator.commit_transaction(ids[0]).await, Ok(()));
    let rolled_back = coordinator.commit_transaction(ids[1]).await.unwrap_err();
    assert!(matches!(rolled_back, Error::RolledBack { .. }), "{rolled_back}");
    eventually(|| {
        let calls = stock.calls();
        calls.contains(&"commit") && calls.contains(&"rollback") && !calls.contains(&"prepare")
    })
    .await;
}
