use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use super::*;

const HOUR: i64 = 3600;

fn open(path: &Path, restored: bool, wall: &Arc<AtomicI64>) -> SqliteJournal {
    let wall = Arc::clone(wall);
    let environment = Environment {
        wall_clock: Arc::new(move || Duration::from_secs(wall.load(SeqCst).cast_unsigned())),
        ..Environment::real()
    };
    SqliteJournal::open(path, 0, restored, environment).unwrap()
}

fn id(number: u8) -> TransactionId {
    let mut bytes = [number; 16];
    bytes[6] = 0x70;
    TransactionId::from_bytes(bytes)
}

async fn append(journal: &SqliteJournal, entries: Vec<Entry>) {
    let (durable, is_durable) = tokio::sync::oneshot::channel();
    journal.append(
        entries,
        true,
        Box::new(move || {
            let _ = durable.send(());
        }),
    );
    is_durable.await.unwrap();
}

fn decided(number: u8) -> Entry {
    let key = Some((format!("key-{number}"), [number; 32]));
    Entry::Decision { id: id(number), key, body: b"decision".into() }
}

fn ended(number: u8) -> [Entry; 2] {
    [decided(number), Entry::End { id: id(number), keep: Keep::default(), body: b"end".into() }]
}

/// All that retention removes now, of what ended at least `age` ago.
async fn forget(journal: &SqliteJournal, age: Duration) -> usize {
    let floor = age;
    let mut count = 0;
    loop {
        let step = journal.forget(Retention { age, max_bytes: u64::MAX, floor }, 10).await.unwrap();
        count += step.count;
        if !step.more && step.count == 0 {
            return count;
        }
    }
}

#[tokio::test]
async fn no_jump_of_the_wall_clock_brings_a_removal_nearer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.db");
    let wall = Arc::new(AtomicI64::new(1_800_000_000));
    let day = Duration::from_secs(86_400);
    let mut number = 0;
    // In a run, and between two, in both directions.
    for between in [25 * HOUR, -25 * HOUR, 0] {
        let journal = open(&path, false, &wall);
        number += 1;
        append(&journal, ended(number).into()).await;
        for jump in [25 * HOUR, -25 * HOUR, -300 * HOUR, 600 * HOUR] {
            wall.fetch_add(jump, SeqCst);
            assert_eq!(forget(&journal, day).await, 0, "after {jump} s");
        }
        let keys = (1..=number).map(|number| format!("key-{number}").into()).collect();
        let users = journal.find_keys(keys).await.unwrap();
        assert!(users.iter().all(Option::is_some), "{users:?}");
        journal.close().await;
        wall.fetch_add(between, SeqCst);
    }
    // Time that a service has run does, over all runs.
    let journal = open(&path, false, &wall);
    let mut gone = forget(&journal, Duration::from_millis(1)).await;
    append(&journal, ended(200).into()).await;
    while gone < 4 {
        gone += forget(&journal, Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.recall(id(1), 1).await.unwrap(), Recalled::Forgotten);
    assert_eq!(journal.recall(id(200), 1).await.unwrap(), Recalled::Forgotten);
    assert_eq!(journal.recall(id(201), 1).await.unwrap(), Recalled::Never);
    journal.close().await;
    let journal = open(&path, false, &wall);
    assert_eq!(journal.recall(id(1), 1).await.unwrap(), Recalled::Forgotten, "after a restart");
    journal.close().await;
}

/// Puts a file to the rules of every journal.
mod conformance {
    use std::sync::atomic::AtomicBool;

    use dtc_store::FailStop;

    use super::*;
    use crate::journal::conformance::Subject;

    struct InFile {
        folder: tempfile::TempDir,
        stopped: Arc<AtomicBool>,
    }

    impl InFile {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), stopped: Arc::default() }
        }

        fn run(&self, restored: bool) -> Arc<dyn Journal> {
            let stopped = Arc::clone(&self.stopped);
            let on_failure = FailStop::new(move |_| stopped.store(true, SeqCst));
            let real = Environment::real();
            let storage = Options { on_failure, ..real.storage };
            let path = self.folder.path().join("coordinator.db");
            let environment = Environment { storage, ..real };
            Arc::new(SqliteJournal::open(&path, 0, restored, environment).unwrap())
        }
    }

    impl Subject for InFile {
        fn open(&self) -> Arc<dyn Journal> {
            self.run(false)
        }

        fn take_over(&self) -> Option<Arc<dyn Journal>> {
            // What keeps others out.
            std::fs::remove_file(self.folder.path().join("coordinator.db.lock")).unwrap();
            Some(self.run(false))
        }

        fn restore(&self) -> Option<Arc<dyn Journal>> {
            Some(self.run(true))
        }

        fn has_stopped(&self) -> bool {
            self.stopped.load(SeqCst)
        }

        fn is_durable(&self) -> bool {
            true
        }

        fn counts_bytes(&self) -> bool {
            true
        }
    }

    crate::journal_conformance!(InFile::new());
}
