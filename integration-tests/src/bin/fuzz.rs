//! Bad bytes against real processes for as long as is wanted:
//! `cargo run --release -p integration-tests --bin fuzz -- --minutes 5 --seed 1`

use std::time::{Duration, Instant};

use clap::Parser;
use integration_tests::fuzz::Fuzz;

#[derive(Parser)]
struct Args {
    /// Duration, in minutes
    #[arg(long, default_value_t = 5)]
    minutes: u64,

    /// Seed of the first batch; each later batch has the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Calls in a batch; the processes are checked after each batch
    #[arg(long, default_value_t = 1000)]
    calls: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let end = Instant::now() + Duration::from_secs(60 * args.minutes);
    let mut fuzz = Fuzz::start().await?;
    println!("{} methods, {:?} KiB", fuzz.methods().count(), fuzz.memory_kib()?);
    let mut seed = args.seed;
    while Instant::now() < end {
        if let Err(error) = fuzz.batch(seed, args.calls).await {
            let calls = args.calls;
            eprintln!("failed; again with: --seed {seed} --calls {calls}");
            return Err(error);
        }
        println!("seed {seed}: fine, {:?} KiB", fuzz.memory_kib()?);
        seed += 1;
    }
    Ok(())
}
