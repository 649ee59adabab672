//! See `example-shipping --help`.

fn main() -> std::process::ExitCode {
    example_shipping::run_from_args()
}
