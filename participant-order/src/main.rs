//! See `participant-order --help`.

fn main() -> std::process::ExitCode {
    participant_order::run_from_args()
}
