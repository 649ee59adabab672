//! `participant-inventory` as tests run it: with crash points, and with the test VFS where it is
//! asked for.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration_tests::vfs::install_if_asked();
    participant_inventory::run_from_args()
}
