//! `cargo run --release -p integration-tests --bin recovery -- --transactions 50000`

use clap::Parser;
use integration_tests::recovery;

/// Kills a coordinator that has decided and got no acknowledgement, and measures how
/// fast it finishes
#[derive(Parser)]
struct Args {
    /// Transactions that are committed and not acknowledged
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    transactions: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Args { transactions } = Args::parse();
    let measured = recovery::measure(transactions as usize).await?;
    let recovery::Recovery { normal, recovered, start_up, new, longest } = measured;
    println!("{transactions} transactions of three branches, decided and not acknowledged");
    println!("where nothing fails     {normal:>9.0} a second");
    println!(
        "after the crash         {recovered:>9.0} a second, {:.2} of that",
        recovered / normal
    );
    println!("serving again after     {start_up:>9.1?}");
    println!("new ones meanwhile      {new:>9}, the longest took {longest:.0?}");
    Ok(())
}
