//! Compiles the demo service's gRPC side without a hand-installed `protoc`.

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(["proto/billing.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
