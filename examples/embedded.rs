//! Two accounts of one program that change together or not at all.
//!
//! `cargo run -p dtc --example embedded`

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use dtc::{BoxError, Branch, Error, Participant, TransactionCoordinator, Vote, async_trait};

/// What each owner has, and what is reserved of it by branches that are prepared.
#[derive(Clone, Default)]
struct Accounts(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    balances: HashMap<String, i64>,
    reserved: HashMap<Key, (String, i64)>,
}

/// A branch of a transaction.
type Key = (dtc::TransactionId, u32);

/// Such as `ada -70`.
fn parse(input: &[u8]) -> Result<(String, i64), BoxError> {
    let text = std::str::from_utf8(input)?;
    let (owner, change) = text.split_once(' ').ok_or("write it as 'owner change'")?;
    Ok((owner.into(), change.parse()?))
}

#[async_trait]
impl Participant for Accounts {
    async fn prepare(&self, branch: &Branch) -> Result<Vote, BoxError> {
        let (owner, change) = parse(&branch.input)?;
        let books = &mut *self.0.lock().unwrap();
        let of_owner = books.reserved.values().filter(|(other, _)| *other == owner);
        let reserved: i64 = of_owner.map(|(_, change)| change.min(&0)).sum();
        let balance = books.balances.get(&owner).copied().unwrap_or_default();
        if balance + reserved + change < 0 {
            return Ok(Vote::Abort(format!("{owner} has {}", balance + reserved)));
        }
        books.reserved.insert((branch.transaction, branch.number), (owner, change));
        Ok(Vote::Commit(Vec::new()))
    }

    async fn commit(&self, branch: &Branch, _output: &[u8]) -> Result<(), BoxError> {
        let books = &mut *self.0.lock().unwrap();
        // It may be called again: the reservation is there once.
        if let Some((owner, change)) = books.reserved.remove(&(branch.transaction, branch.number)) {
            *books.balances.entry(owner).or_default() += change;
        }
        Ok(())
    }

    async fn rollback(&self, branch: &Branch, _output: Option<&[u8]>) -> Result<(), BoxError> {
        self.0.lock().unwrap().reserved.remove(&(branch.transaction, branch.number));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = Accounts::default();
    accounts.0.lock().unwrap().balances.insert("ada".into(), 100);
    let coordinator = TransactionCoordinator::in_memory().await?;
    for amount in [70, 50] {
        let id = coordinator.begin_transaction().await?;
        for input in [format!("ada -{amount}"), format!("bob {amount}")] {
            coordinator.enlist_resource_with(id, accounts.clone(), input.into()).await?;
        }
        match coordinator.commit_transaction(id).await {
            Ok(()) => println!("{amount}: committed"),
            Err(Error::Refused { cause, .. }) => println!("{amount}: rolled back, {cause}"),
            Err(error) => return Err(error.into()),
        }
    }
    let books = accounts.0.lock().unwrap();
    assert_eq!((books.balances["ada"], books.balances["bob"]), (30, 70));
    println!("ada has {}, bob has {}", books.balances["ada"], books.balances["bob"]);
    Ok(())
}
