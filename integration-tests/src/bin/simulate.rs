//! See `simulate --help`.

fn main() -> std::process::ExitCode {
    integration_tests::simulation::run()
}
