//! The coordinator's program.

fn main() -> std::process::ExitCode {
    coordinator::run_from_args()
}
