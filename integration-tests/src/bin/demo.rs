//! `cargo demo`: the shop's four processes, some orders, some of them killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration_tests::demo::run()
}
