//! The short version of `cargo run -p integration-tests --bin fuzz`.

use integration_tests::fuzz::Fuzz;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bytes_for_every_method_change_nothing() {
    let mut fuzz = Fuzz::start().await.unwrap();
    for seed in 1..=2 {
        fuzz.batch(seed, 700).await.unwrap();
    }
}
