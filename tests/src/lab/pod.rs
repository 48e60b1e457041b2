//! One pod: a network namespace with an interface to the node. Owns what a workload can do from inside.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::Result;

use crate::client::{self, Family, Outcome};
use crate::internet::{self, Accepted};
use crate::worker::Worker;
use crate::{Journal, Namespace};

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its own namespace in the Kubernetes sense.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses, IPv4 then IPv6.
    pub addresses: [IpAddr; 2],
    /// Name of the node's side of its interface.
    pub interface: String,
    /// Its network namespace.
    pub namespace: Namespace,
    pub(super) resolver: IpAddr,
}

impl Pod {
    /// Its address of one family.
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses[usize::from(family == Family::V6)]
    }

    /// Address of the resolver it asks.
    pub fn resolver(&self) -> IpAddr {
        self.resolver
    }

    /// `namespace/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Looks a name up at the cluster resolver, once.
    ///
    /// # Errors
    /// As [`client::resolve`].
    pub fn resolve(&self, name: &str, family: Family) -> Result<Vec<IpAddr>> {
        client::resolve(&self.namespace, self.resolver, name, family)
    }

    /// Looks a name up and connects to its first address at once.
    pub fn visit(&self, name: &str, port: u16, family: Family) -> Outcome {
        self.namespace.enter(|| client::visit_here(self.resolver, name, port, family))
    }

    /// Connects to an address.
    pub fn connect(&self, address: IpAddr, port: u16) -> Outcome {
        client::outcome(&self.open(address, port))
    }

    /// Connects to an address and keeps the connection.
    ///
    /// # Errors
    /// As [`client::connect_here`].
    pub fn open(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        self.namespace.enter(|| client::connect_here(SocketAddr::new(address, port)))
    }

    /// Sends one datagram and waits for its echo.
    ///
    /// # Errors
    /// As [`client::ping_here`].
    pub fn ping(&self, server: SocketAddr, data: &[u8]) -> io::Result<()> {
        self.namespace.enter(|| client::ping_here(server, data, client::CONNECT))
    }

    /// Serves TCP on a port of this pod until dropped, as the internet does.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn serve(&self, port: u16) -> Result<Served> {
        let accepted = std::sync::Arc::default();
        let worker = internet::serve_tcp(&self.namespace, port, &accepted)?;
        Ok(Served { accepted, _worker: worker })
    }
}

/// A server in a pod; ended on drop.
#[derive(Debug)]
pub struct Served {
    /// Who came.
    pub accepted: std::sync::Arc<Journal<Accepted>>,
    _worker: Worker,
}
