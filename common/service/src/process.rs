//! A service's process, from its flags to its exit code.

use std::process::ExitCode;

use crate::{ServiceArgs, init_logging};
use dtc_runtime::{Environment, Exit, terminated};

/// Why a service ended that nobody told to.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Fatal {
    /// What the process ends with; see [`Exit`].
    pub exit: u8,
    /// What was wrong, and what would be right.
    pub reason: String,
}

/// Runs a service as this process: with logs, a runtime, and a clean stop on
/// SIGTERM and SIGINT.
pub fn run_process<F: Future<Output = Result<(), Fatal>>>(
    args: &ServiceArgs,
    environment: Environment,
    run: impl FnOnce(Environment) -> F,
) -> ExitCode {
    let _logs = init_logging(args);
    #[cfg(target_os = "linux")]
    crate::files::raise_limit();
    let threads = args.worker_threads.map_or_else(half_of_the_cores, usize::from);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("the runtime cannot be started: {error}");
            return Exit::Software.into();
        }
    };
    let ran = runtime.block_on(async {
        let shutdown = environment.shutdown.clone();
        tokio::spawn(async move {
            terminated().await;
            shutdown.begin();
        });
        run(environment).await
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!("{fatal}");
            fatal.exit.into()
        }
    }
}

fn half_of_the_cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).max(1)
}
