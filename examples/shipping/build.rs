//! Makes Rust of `shipping.proto`, and keeps its descriptors for JSON and reflection.

use std::{env, error::Error, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=shipping.proto");
    let descriptors = protox::compile(["shipping.proto"], ["."])?;
    fs::write(env::var("OUT_DIR")? + "/descriptors.bin", descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    Ok(tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?)
}
