//! Forks that nobody can share: a participant that locks at prepare.

fn main() -> std::process::ExitCode {
    integration_tests::forks::run_from_args()
}
