//! Compiles the protocol without a hand-installed `protoc`.

use anyhow::Result;
use prost::Message;

const FILES: [&str; 2] = ["proto/handover/v1/agent.proto", "proto/handover/v1/coordinator.proto"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), set.encode_to_vec())?;
    // Serialize, so that `--json` prints what went over the wire.
    tonic_prost_build::configure().type_attribute(".", "#[derive(serde::Serialize)]").compile_fds(set)?;
    Ok(())
}
