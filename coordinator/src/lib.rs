//! The coordinator's server: gRPC and HTTP over the library `dtc`.

mod config;
mod grpc;
mod rest;
mod run;
mod time;

pub use run::{run_from_args, run_from_args_in, run_in};
