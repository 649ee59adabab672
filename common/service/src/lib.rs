//! What every process of ours has, once: flags, logs, one port for gRPC and
//! `/metrics`, reflection, health, a clean stop, exit codes.
//!
//! ```no_run
//! use clap::Parser;
//! use dtc_runtime::Environment;
//! use dtc_service::{Fatal, Server, ServiceArgs};
//!
//! #[derive(Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     service: ServiceArgs,
//! }
//!
//! async fn run(args: ServiceArgs, environment: Environment) -> Result<(), Fatal> {
//!     let listener = dtc_service::bind(&environment, args.listen).await?;
//!     Ok(Server::new(&args).serve(listener, environment.shutdown.begun()).await?)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let Args { service } = dtc_service::parse_args("127.0.0.1:7100");
//!     let environment = Environment::real();
//!     dtc_service::run_process(&service.clone(), environment, |it| run(service, it))
//! }
//! ```

mod accepting;
mod args;
mod counting;
mod error;
#[cfg(target_os = "linux")]
mod files;
mod intake;
mod listener;
mod log_limit;
mod logging;
mod metrics;
mod probes;
mod process;
#[cfg(target_os = "linux")]
mod process_metrics;
mod reflection;
mod server;

pub use accepting::LIVENESS;
pub use args::{LogFormat, ServiceArgs, parse_args, parse_args_from, parse_duration};
pub use error::ServiceError;
pub use listener::bind;
pub use logging::{LogGuard, init_logging};
pub use probes::enough_room;
pub use process::{Fatal, run_process};
pub use server::{Peer, Server};
