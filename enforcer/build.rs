//! Makes the messages and services of the observer API from `proto/`, without a compiler that would have to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["observer/observer.proto", "peer/peer.proto"], ["proto"])?;
    // Its octets are written without it.
    let (answer, octets) = (".observer.GetFlowsResponse", "crate::telemetry::observer::answer::Answer");
    tonic_prost_build::configure().build_client(false).extern_path(answer, octets).compile_fds(files)?;
    Ok(())
}
