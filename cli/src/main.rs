//! The program `dtc`.

fn main() -> std::process::ExitCode {
    dtc_cli::run(std::env::args_os())
}
