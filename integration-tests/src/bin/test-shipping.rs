//! `example-shipping` as tests run it: with crash points.

fn main() -> std::process::ExitCode {
    example_shipping::run_from_args()
}
