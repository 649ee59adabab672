//! What every process of ours has, once: flags, logs, one port for gRPC and
//! `/metrics`, reflection, health, a clean stop, exit codes.
//!
//! ```no_run
//! use clap::Parser;
//! use common_service::{Server, ServiceArgs};
//!
//! #[derive(Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     service: ServiceArgs,
//! }
//!
//! async fn run() -> Result<(), common_service::ServiceError> {
//!     let args: Args = common_service::parse_args("127.0.0.1:7100");
//!     common_service::init_logging(&args.service);
//!     let listener = common_service::bind(args.service.listen).await?;
//!     let registry = prometheus::Registry::new();
//!     Server::new(&args.service).registry(registry).serve(listener, common_service::terminated()).await
//! }
//! ```

mod args;
mod error;
mod exit;
mod listener;
mod logging;
mod metrics;
mod reflection;
mod server;
mod shutdown;

pub use args::{LogFormat, ServiceArgs, parse_args, parse_duration};
pub use error::ServiceError;
pub use exit::Exit;
pub use listener::bind;
pub use logging::init_logging;
pub use server::Server;
pub use shutdown::{Shutdown, terminated};
