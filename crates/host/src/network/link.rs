//! Links and addresses over netlink, here and inside a container's network namespace.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use futures_util::{TryStream, TryStreamExt as _};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
    },
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;

/// One link of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// What [`pair`] noted on it.
    pub note: String,
}

/// Speaks netlink in the network namespace of the calling thread.
pub fn here() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    // It ends by itself when the last handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

/// Speaks netlink in another network namespace. A socket stays in the namespace that it was made in, so that only a
/// short-lived thread has to go there.
pub async fn inside(namespace: File) -> Result<Handle, Error> {
    let runtime = tokio::runtime::Handle::current();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let enter = move || -> io::Result<Handle> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let _in_runtime = runtime.enter();
        here()
    };
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || sender.send(enter()))
        .map_err(Error::namespace)?;
    receiver
        .await
        .map_err(|_| Error::namespace(io::Error::other("the thread ended")))?
        .map_err(Error::namespace)
}

/// The link of that name, or `None`.
pub async fn find(handle: &Handle, name: &str) -> Result<Option<Link>, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(found) => Ok(found.map(|message| read(&message))),
        Err(error) if is(&error, libc::ENODEV) => Ok(None),
        Err(error) => Err(Error::netlink("look for", name)(error)),
    }
}

/// All links whose name starts with `prefix`.
pub async fn list(handle: &Handle, prefix: &str) -> Result<Vec<Link>, Error> {
    let all: Vec<LinkMessage> = whole(|| handle.link().get().execute())
        .await
        .map_err(Error::netlink("list", prefix))?;
    Ok(all
        .iter()
        .map(read)
        .filter(|link| link.name.starts_with(prefix))
        .collect())
}

/// All that a list has. The kernel makes one list at a time for a socket, which all that goes on here shares, and answers
/// EBUSY meanwhile (`__netlink_dump_start`).
async fn whole<T, S>(ask: impl Fn() -> S) -> Result<Vec<T>, rtnetlink::Error>
where
    S: TryStream<Ok = T, Error = rtnetlink::Error>,
{
    const TRIES: u32 = 1000;
    for _ in 1..TRIES {
        match ask().try_collect().await {
            Err(error) if is(&error, libc::EBUSY) => tokio::time::sleep(Duration::from_millis(2)).await,
            done => return done,
        }
    }
    ask().try_collect().await
}

/// One IPv4 address of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Of the link that has it.
    pub link: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// The IPv4 addresses of a link, or of all, with their prefixes.
pub async fn addresses(handle: &Handle, index: Option<u32>) -> Result<Vec<Address>, Error> {
    let ask = || {
        let request = handle.address().get();
        match index {
            Some(index) => request.set_link_index_filter(index).execute(),
            None => request.execute(),
        }
    };
    let all: Vec<_> = whole(ask)
        .await
        .map_err(Error::netlink("list addresses of", ""))?;
    let of = |message: &rtnetlink::packet_route::address::AddressMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(IpAddr::V4(address)) => Some(Address {
                link: message.header.index,
                address: *address,
                prefix: message.header.prefix_len,
            }),
            _ => None,
        })
    };
    Ok(all.iter().filter_map(of).collect())
}

/// Makes a bridge that is up. One that is there stays.
pub async fn bridge(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<Link, Error> {
    let message = LinkBridge::new(name).address(mac.to_vec()).up().build();
    match handle.link().add(message).execute().await {
        Ok(()) => {}
        Err(error) if is(&error, libc::EEXIST) => {}
        Err(error) => return Err(Error::netlink("make the bridge", name)(error)),
    }
    find(handle, name)
        .await?
        .ok_or_else(|| Error::Gone(name.to_owned()))
}

/// Makes a veth pair: `outer` here, attached to `bridge` and up; `eth0` in the other namespace.
pub async fn pair(
    handle: &Handle,
    outer: &str,
    bridge: Option<u32>,
    note: &str,
    namespace: &File,
    own: Ipv4Addr,
) -> Result<(), Error> {
    let mut inner = LinkMessage::default();
    // Always the same for an address: neighbours that knew the host that had it before reach the one that has it now.
    let [a, b, c, d] = own.octets();
    inner
        .attributes
        .push(LinkAttribute::Address(vec![0x02, 0x76, a, b, c, d]));
    inner.attributes.push(LinkAttribute::IfName("eth0".into()));
    inner
        .attributes
        .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
        .name(outer)
        .up();
    if let Some(bridge) = bridge {
        builder = builder.controller(bridge);
    }
    handle
        .link()
        .add(builder.build())
        .execute()
        .await
        .map_err(Error::netlink("make the link", outer))?;
    if !note.is_empty() {
        let noted = LinkUnspec::new_with_name(outer).alias(note).build();
        handle
            .link()
            .set(noted)
            .execute()
            .await
            .map_err(Error::netlink("note on", outer))?;
    }
    Ok(())
}

/// Gives a link an address. One that it has stays.
pub async fn address(handle: &Handle, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    match handle
        .address()
        .add(link.index, IpAddr::V4(address), prefix)
        .execute()
        .await
    {
        Err(error) if !is(&error, libc::EEXIST) => {
            Err(Error::netlink("give an address to", &link.name)(error))
        }
        _ => Ok(()),
    }
}

/// Inside a container: its address, loopback and link up, everything else through the gateway.
pub async fn configure(handle: &Handle, own: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<(), Error> {
    let eth = find(handle, "eth0")
        .await?
        .ok_or_else(|| Error::Gone("eth0".into()))?;
    address(handle, &eth, own, prefix).await?;
    for name in ["lo", "eth0"] {
        let up = LinkUnspec::new_with_name(name).up().build();
        handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(Error::netlink("bring up", name))?;
    }
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    match handle.route().add(route).execute().await {
        Err(error) if !is(&error, libc::EEXIST) => Err(Error::netlink("route through", "eth0")(error)),
        _ => Ok(()),
    }
}

/// Removes a link. One that is not there is removed.
pub async fn remove(handle: &Handle, name: &str) -> Result<(), Error> {
    let Some(link) = find(handle, name).await? else {
        return Ok(());
    };
    match handle.link().del(link.index).execute().await {
        Err(error) if !is(&error, libc::ENODEV) => Err(Error::netlink("remove", name)(error)),
        _ => Ok(()),
    }
}

fn read(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        note: String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.clone(),
            LinkAttribute::IfAlias(note) => link.note = note.clone(),
            _ => {}
        }
    }
    link
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_may_ask_at_once() {
        let handle = here().unwrap();
        let asked = (0..64).map(|_| async {
            let (links, addresses) = (list(&handle, "lo").await?, addresses(&handle, None).await?);
            Ok::<_, Error>((links.len(), addresses.len()))
        });
        for found in futures_util::future::try_join_all(asked).await.unwrap() {
            assert!(found.0 >= 1, "{found:?}");
        }
    }
}
