//! Compiles the journal's format with protox, so that no `protoc` has to be installed.

use std::error::Error;

const FILE: &str = "src/journal/disk.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["src/journal"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
