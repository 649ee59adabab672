//! `participant-inventory` as tests run it: with crash points, and with the test VFS and
//! another wall clock where they are asked for.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration_tests::vfs::install_if_asked();
    participant_inventory::program().run_from_args_in(integration_tests::wall_clock::environment())
}
