//! Faults at random moments under many clients, and a checker of what they were told.

use std::process::ExitCode;

fn main() -> ExitCode {
    integration_tests::torture::run()
}
