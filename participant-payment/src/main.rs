//! See `participant-payment --help`.

fn main() -> std::process::ExitCode {
    participant_payment::run_from_args()
}
