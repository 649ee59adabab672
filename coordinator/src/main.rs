//! The coordinator's program.

use mimalloc::MiMalloc;

/// What one thread allocates another one frees, messages and transactions alike: glibc's allocator
/// takes a sixth of the coordinator's CPU time for that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    coordinator::run_from_args()
}
