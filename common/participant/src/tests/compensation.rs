//! A domain that can undo what it has committed: a till that gives refunds.

use tonic::Code;

use super::*;

#[derive(Clone, Default)]
struct Refunds {
    fail: Arc<AtomicBool>,
}

fn pay(transaction: &Transaction<'_>, amount: i64) -> Result<(), Error> {
    transaction.execute("UPDATE till SET balance = balance - ?1", [amount])?;
    Ok(())
}

impl ResourceManager for Refunds {
    const NAME: &'static str = "refunds";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS till (only INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
        INSERT OR IGNORE INTO till VALUES (1, 100);
    ";
    const COMPENSATES: bool = true;
    type Payload = TakePayment;
    type Output = GetAccountRequest;

    fn descriptors() -> &'static dtc_proto::Descriptors {
        &shop_proto::DESCRIPTORS
    }

    fn prepare(
        &self,
        _: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
    ) -> Result<crate::Vote<GetAccountRequest>, Error> {
        Ok(crate::Vote::Commit(GetAccountRequest { account: payload.account.clone() }))
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        _: &GetAccountRequest,
    ) -> Result<(), Error> {
        pay(transaction, payload.amount_minor)
    }

    fn rollback(
        &self,
        _: &Transaction<'_>,
        _: &BranchId,
        _: &TakePayment,
        _: &GetAccountRequest,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn compensate(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &TakePayment,
        output: &GetAccountRequest,
    ) -> Result<(), Error> {
        assert_eq!(output.account, payload.account);
        pay(transaction, -payload.amount_minor)?;
        match self.fail.load(SeqCst) {
            true => Err(Error::Inconsistent("as the test wants")),
            false => Ok(()),
        }
    }
}

impl Bench<Refunds> {
    async fn open_refunds(folder: &TempDir) -> Self {
        let options = options_of::<Refunds>();
        Self::of(folder.path(), limits(), options, Refunds::default()).await
    }

    async fn balance(&self) -> i64 {
        let read = |connection: &rusqlite::Connection| {
            connection.query_row("SELECT balance FROM till", [], |row| row.get(0))
        };
        self.engine.store.read(read).await.unwrap()
    }

    async fn committed(&self, number: u8, may_compensate: bool) {
        let request = PrepareRequest { may_compensate, ..prepare(number, 30) };
        assert_eq!(self.send(request).await.unwrap().vote(), Vote::Commit);
        self.commit(number).await.unwrap();
    }

    /// Whether it stays committed.
    async fn undo(&self, number: u8) -> Result<bool, Status> {
        let undo = RollbackRequest { decision_number: 2, compensate: true, ..rollback(number) };
        let undone = self.service.rollback(Request::new(undo)).await?;
        Ok(undone.into_inner().committed)
    }

    async fn kept_payloads(&self) -> i64 {
        let sql = "SELECT count(*) FROM decided WHERE payload IS NOT NULL";
        let read =
            |connection: &rusqlite::Connection| connection.query_row(sql, [], |row| row.get(0));
        self.engine.store.read(read).await.unwrap()
    }
}

#[tokio::test]
async fn what_was_committed_is_undone_once() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open_refunds(&folder).await;
    bench.committed(1, true).await;
    assert_eq!((bench.balance().await, bench.kept_payloads().await), (70, 1));
    let before = bench.engine.footprint.bytes();
    for _ in 0..2 {
        assert!(!bench.undo(1).await.unwrap());
        assert_eq!((bench.balance().await, bench.kept_payloads().await), (100, 0));
    }
    let payload = TakePayment { account: "a".into(), amount_minor: 30, ..TakePayment::default() };
    let freed = i64::try_from(payload.encoded_len()).unwrap();
    assert_eq!(bench.engine.footprint.bytes(), before - freed);
    assert_eq!(bench.engine.metrics.compensations.get(), 1);
    assert_eq!(bench.commit(1).await.unwrap_err().code(), Code::FailedPrecondition, "late");
    bench.close().await;
    let bench = Bench::open_refunds(&folder).await;
    assert!(!bench.undo(1).await.unwrap());
    assert_eq!(bench.balance().await, 100);
    bench.close().await;
}

#[tokio::test]
async fn an_undoing_that_fails_changes_nothing_and_works_when_it_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open_refunds(&folder).await;
    bench.committed(1, true).await;
    bench.till.fail.store(true, SeqCst);
    let status = bench.undo(1).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().ends_with("as the test wants"), "{status}");
    assert_eq!((bench.balance().await, bench.kept_payloads().await), (70, 1));
    assert_eq!(bench.engine.metrics.compensations.get(), 0);
    bench.till.fail.store(false, SeqCst);
    assert!(!bench.undo(1).await.unwrap());
    assert_eq!(bench.balance().await, 100);
    bench.close().await;
}

#[tokio::test]
async fn what_was_not_announced_is_not_undone() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open_refunds(&folder).await;
    bench.committed(1, false).await;
    assert_eq!(bench.kept_payloads().await, 0);
    let status = bench.undo(1).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("its prepare lacked may_compensate"), "{status}");
    assert_eq!(bench.balance().await, 70);
    // Nor is anything kept of what was rolled back.
    let announced = PrepareRequest { may_compensate: true, ..prepare(2, 30) };
    bench.send(announced).await.unwrap();
    bench.rollback(2).await.unwrap();
    assert_eq!(bench.kept_payloads().await, 0);
    bench.close().await;
}

#[tokio::test]
async fn a_domain_undoes_nothing_by_default() {
    let mut connection = rusqlite::Connection::open_in_memory().unwrap();
    let transaction = connection.transaction().unwrap();
    let branch =
        BranchId { coordinator: coordinator(), transaction: super::transaction(1), number: 0 };
    let (payload, output) = (TakePayment::default(), GetAccountRequest::default());
    let undone = Till::default().compensate(&transaction, &branch, &payload, &output);
    assert!(matches!(undone, Err(Error::Inconsistent(_))), "{undone:?}");
}
