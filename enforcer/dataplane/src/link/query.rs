//! Questions about interfaces and addresses.

use super::LinkError;
use super::socket::{ask, dump};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its frames are: `Ether` for Ethernet.
    pub link_layer: String,
    /// True for Ethernet.
    pub is_ethernet: bool,
    /// True when it is administratively up.
    pub is_up: bool,
    /// Index of its peer or of the interface below it.
    pub link: Option<u32>,
    /// Number of the network namespace `link` is in, as this namespace counts them; `None` for this one.
    pub link_namespace: Option<i32>,
}

/// A workload's interface as the host sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSide {
    /// The host's end of the pair.
    pub interface: Interface,
    /// Addresses of the workload's end, link-local ones included.
    pub addresses: Vec<IpAddr>,
    /// The cookie of the workload's network namespace, where what its sockets are told to reach is what the host's end
    /// sees; otherwise why that is not certain.
    pub sockets: Result<u64, String>,
}

/// Every interface of this network namespace.
pub fn interfaces() -> Result<Vec<Interface>, LinkError> {
    links(None)
}

/// The interface of this index in this network namespace, if there is one.
pub fn by_index(index: u32) -> Result<Option<Interface>, LinkError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    one(request)
}

/// The interface of this name in this network namespace.
///
/// # Errors
///
/// [`LinkError::UnknownInterface`] when there is none.
pub fn by_name(name: &str) -> Result<Interface, LinkError> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    one(request)?.ok_or_else(|| LinkError::UnknownInterface(name.to_owned()))
}

/// Addresses of this host: of all interfaces of this network namespace, loopback and link-local ones included.
pub fn host_addresses() -> Result<Vec<IpAddr>, LinkError> {
    Ok(addresses(None)?.into_iter().map(|(_, address)| address).collect())
}

/// The host side of interface `name` of the network namespace at `path` (such as `/run/netns/web`), with the
/// addresses of the workload's side.
///
/// # Errors
///
/// Names the namespace that cannot be opened, the interface it lacks, or the peer that is not here.
pub fn host_side(path: &Path, name: &str) -> Result<HostSide, LinkError> {
    let namespace = namespace_number(path)?;
    let inside = links(Some(namespace))?.into_iter().find(|interface| interface.name == name);
    let inside =
        inside.ok_or_else(|| LinkError::NotInNamespace { name: name.to_owned(), path: path.to_owned() })?;
    let is_peer =
        |outside: &Interface| outside.link == Some(inside.index) && outside.link_namespace == Some(namespace);
    // Its end says which one the other is. Only where that does not lead back are all of them asked.
    let told = inside.link.map(by_index).transpose()?.flatten().filter(is_peer);
    let interface = match told {
        Some(interface) => interface,
        None => interfaces()?
            .into_iter()
            .find(is_peer)
            .ok_or_else(|| LinkError::NoHostSide { name: name.to_owned(), path: path.to_owned() })?,
    };
    let own = addresses(Some(namespace))?.into_iter().filter(|(index, _)| *index == inside.index);
    let sockets = super::inside::sockets(path, name);
    Ok(HostSide { interface, addresses: own.map(|(_, address)| address).collect(), sockets })
}

/// Addresses of all interfaces of the network namespace at `path` but the loopback's.
pub fn namespace_addresses(path: &Path) -> Result<Vec<IpAddr>, LinkError> {
    let found = addresses(Some(namespace_number(path)?))?;
    Ok(found.into_iter().map(|(_, address)| address).filter(|address| !address.is_loopback()).collect())
}

/// Index of the interface that packets to an address leave by, where the address is the next one; `None` where no route leads
/// there, or one by a gateway: what is behind that interface is the gateway.
///
/// # Errors
/// When rtnetlink fails.
pub fn route_to(address: IpAddr) -> Result<Option<u32>, LinkError> {
    let mut request = RouteMessage::default();
    let (family, length, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    request.attributes.push(RouteAttribute::Destination(destination));
    let answers = match ask("find a route", RouteNetlinkMessage::GetRoute(request)) {
        Err(LinkError::Netlink { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) =>
        {
            return Ok(None);
        }
        answers => answers?,
    };
    let direct = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => Some(message.attributes).filter(|all| !has_gateway(all)),
        _ => None,
    });
    Ok(direct.flatten().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(index),
        _ => None,
    }))
}

fn has_gateway(attributes: &[RouteAttribute]) -> bool {
    let is_one = |one: &RouteAttribute| matches!(one, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    attributes.iter().any(is_one)
}

/// The number this namespace knows the one at `path` by, where it has one.
pub(crate) fn number_of(path: &Path) -> Option<i32> {
    known_number(&File::open(path).ok()?).ok()?
}

/// The number this namespace knows the one at `path` by; one is given to it when it has none.
fn namespace_number(path: &Path) -> Result<i32, LinkError> {
    let failed = |source| LinkError::Namespace { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if let Some(number) = known_number(&file).map_err(|error| namespace_error(path, error))? {
        return Ok(number);
    }
    let mut request = NsidMessage::default();
    request.attributes = vec![NsidAttribute::Fd(file.as_raw_fd() as u32), NsidAttribute::Id(-1)];
    // Another process may have been faster: then the number is there now.
    let given = ask("number a network namespace", RouteNetlinkMessage::NewNsId(request));
    match known_number(&file).map_err(|error| namespace_error(path, error))? {
        Some(number) => Ok(number),
        None => Err(given.err().unwrap_or_else(|| failed(std::io::Error::other("it has no number")))),
    }
}

fn known_number(file: &File) -> Result<Option<i32>, LinkError> {
    let mut request = NsidMessage::default();
    request.attributes = vec![NsidAttribute::Fd(file.as_raw_fd() as u32)];
    let answers = ask("find the number of a network namespace", RouteNetlinkMessage::GetNsId(request))?;
    let numbers = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => Some(message.attributes),
        _ => None,
    });
    Ok(numbers.flatten().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) if number >= 0 => Some(number),
        _ => None,
    }))
}

/// The kernel's refusal of the descriptor means that the file is no network namespace.
fn namespace_error(path: &Path, error: LinkError) -> LinkError {
    match error {
        LinkError::Netlink { source, .. } => LinkError::Namespace { path: path.to_owned(), source },
        other => other,
    }
}

/// The interface a request is for, if there is one.
fn one(request: LinkMessage) -> Result<Option<Interface>, LinkError> {
    match ask("find an interface", RouteNetlinkMessage::GetLink(request)) {
        Ok(answers) => Ok(read_links(answers).next()),
        Err(LinkError::Netlink { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn links(namespace: Option<i32>) -> Result<Vec<Interface>, LinkError> {
    let mut request = LinkMessage::default();
    request.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
    let answers = dump("list interfaces", RouteNetlinkMessage::GetLink(request))?;
    Ok(read_links(answers).collect())
}

fn read_links(answers: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = Interface> {
    answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(interface(&message)),
        _ => None,
    })
}

/// What counts of a link message.
pub(super) fn interface(message: &LinkMessage) -> Interface {
    let header = &message.header;
    let mut interface = Interface {
        index: header.index,
        name: String::new(),
        link_layer: format!("{:?}", header.link_layer_type),
        is_ethernet: header.link_layer_type == LinkLayerType::Ether,
        is_up: header.flags.contains(LinkFlags::Up),
        link: None,
        link_namespace: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Link(link) => interface.link = Some(*link),
            LinkAttribute::LinkNetNsId(namespace) => interface.link_namespace = Some(*namespace),
            _ => {}
        }
    }
    interface
}

/// Interface index and address of every address.
pub(super) fn addresses(namespace: Option<i32>) -> Result<Vec<(u32, IpAddr)>, LinkError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = AddressMessage::default();
        request.header.family = family;
        request.attributes.extend(namespace.map(AddressAttribute::TargetNetNsId));
        for answer in dump("list addresses", RouteNetlinkMessage::GetAddress(request))? {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                found.extend(own_address(&message).map(|address| (message.header.index, address)));
            }
        }
    }
    Ok(found)
}

/// The interface's own address: `IFA_LOCAL` where it is given, for `IFA_ADDRESS` may be the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(any)
}
