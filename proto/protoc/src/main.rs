//! As much of `protoc` as a build script needs: files and include paths in, one descriptor set out.

use anyhow::{Context, Result, bail};
use prost::Message;

fn main() -> Result<()> {
    let (mut files, mut includes, mut out) = (Vec::new(), Vec::new(), None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-I" => includes.push(args.next().context("-I needs a path")?),
            "-o" => out = args.next(),
            "--include_imports" | "--include_source_info" => {}
            flag if flag.starts_with('-') => bail!("protoc shim: {flag} is not supported"),
            file => files.push(file.to_owned()),
        }
    }
    let out = out.context("protoc shim: -o FILE is missing")?;
    let set = protox::compile(files, includes)?;
    std::fs::write(&out, set.encode_to_vec()).with_context(|| format!("cannot write {out}"))
}
