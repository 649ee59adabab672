//! See `participant-inventory --help`.

fn main() -> std::process::ExitCode {
    participant_inventory::run_from_args()
}
