//! Makes the messages and services of the observer API, and the messages of NRI, from `proto/`, without a compiler that would
//! have to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let protocols = ["observer/observer.proto", "peer/peer.proto", "nri/nri.proto", "ttrpc/ttrpc.proto"];
    let files = protox::compile(protocols, ["proto"])?;
    // Its octets are written without it.
    let (answer, octets) = (".observer.GetFlowsResponse", "crate::telemetry::observer::answer::Answer");
    tonic_prost_build::configure().build_client(false).extern_path(answer, octets).compile_fds(files)?;
    Ok(())
}
