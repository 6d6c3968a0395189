//! Flows through a NAT that stay open and silent while another one is measured.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Context;
use super::echo::{SERVER_COMMAND, port};
use super::helpers::{connect, helper, start};
use crate::host::Namespace;
use crate::process::{Process, Result, pause};

/// The hidden command that runs [`hold_open`].
pub(crate) const COMMAND: &str = "idle-connections";
/// Printed when all flows are open.
const OPEN: &str = "open";
/// Time limit for opening the flows: a slow NAT takes a few milliseconds each.
const START: Duration = Duration::from_secs(60);

/// Opens the requested number of connections from the client to the server and echoes a byte on
/// each. They last until the value is dropped.
pub(super) fn flows(
    context: &Context,
    client: &Namespace,
    server: &Namespace,
) -> Result<Vec<Process>> {
    if context.variant.idle_flows == 0 {
        return Ok(Vec::new());
    }
    let address = Namespace::address(1);
    let server = start(server, &[SERVER_COMMAND, &address])?;
    let mut client = helper(client, &[COMMAND, &address, &context.variant.idle_flows.to_string()])?;
    client.wait_for(OPEN, START)?;
    Ok(vec![client, server])
}

/// Opens the connections and holds them.
pub(crate) fn hold_open(address: Ipv4Addr, count: usize) -> Result<()> {
    let open = |number| {
        let mut stream = connect((address, port(number)).into())?;
        let describe = |e| format!("idle connection {number}: {e}");
        stream.write_all(&[0]).and_then(|()| stream.read_exact(&mut [0])).map_err(describe)?;
        Ok(stream)
    };
    let _streams = (0..count).map(open).collect::<Result<Vec<_>>>()?;
    println!("{OPEN}");
    loop {
        pause(START)?;
    }
}
