//! The coordinator's server: gRPC and HTTP over the library `dtc`.

mod admin;
mod config;
mod rest;
mod run;

pub use run::{run_from_args, run_from_args_in, run_in};
