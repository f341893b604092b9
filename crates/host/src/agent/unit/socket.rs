//! Socket units (`systemd.socket(5)`), as far as the agent listens for services. Pure: text in, a socket and notes out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{Rate, expand, syntax};

/// Sockets of one unit, at most: each is an open file of the agent.
const MOST: usize = 16;

/// What a socket unit listens at, for which service, and what of its file was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Full name of the service that gets the sockets.
    pub unit: String,
    pub addresses: Vec<Address>,
    /// What the service finds the sockets under.
    pub name: String,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Of paths, and of directories made for them.
    pub mode: u32,
    pub directory_mode: u32,
    /// Paths go when it is stopped.
    pub removes: bool,
    /// A service for each connection is wanted, which the agent does not do.
    pub accepts: bool,
    /// An address of IPv6 does not stand for IPv4, too.
    pub only_v6: bool,
    /// How often it may start the service.
    pub triggers: Rate,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Path(PathBuf),
    /// In Linux's abstract namespace.
    Abstract(String),
    Net(SocketAddr),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub place: Place,
    /// Else streams of connections.
    pub datagrams: bool,
}

/// Reads a socket's file. `name` is without `.socket`.
pub fn parse(name: &str, text: &str) -> Socket {
    let mut socket = Socket {
        unit: format!("{name}.service"),
        addresses: Vec::new(),
        name: format!("{name}.socket"),
        user: None,
        group: None,
        mode: 0o666,
        directory_mode: 0o755,
        removes: false,
        accepts: false,
        only_v6: false,
        triggers: Rate::TRIGGERS,
        notes: Vec::new(),
    };
    let mut section = String::new();
    for line in syntax::logical_lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if section == "Socket"
            && let Some((key, value)) = line.split_once('=')
        {
            let (key, value) = (key.trim(), expand(value.trim(), name));
            if !socket.assign(key, &value) {
                socket.notes.push(format!("{key}={value} is ignored"));
            }
        }
    }
    socket
}

impl Socket {
    /// False when it is not understood.
    fn assign(&mut self, key: &str, value: &str) -> bool {
        let flag = || matches!(value, "1" | "yes" | "y" | "true" | "t" | "on");
        let text = || (!value.is_empty()).then(|| value.to_owned());
        match key {
            "ListenStream" | "ListenDatagram" if value.is_empty() => {
                let datagrams = key == "ListenDatagram";
                self.addresses.retain(|address| address.datagrams != datagrams);
            }
            "ListenStream" | "ListenDatagram" => match place(value) {
                Some(place) if self.addresses.len() < MOST => self.addresses.push(Address {
                    place,
                    datagrams: key == "ListenDatagram",
                }),
                _ => return false,
            },
            "Service" => value.clone_into(&mut self.unit),
            "FileDescriptorName" => value.clone_into(&mut self.name),
            "SocketUser" => self.user = text(),
            "SocketGroup" => self.group = text(),
            "SocketMode" => return set(&mut self.mode, value),
            "DirectoryMode" => return set(&mut self.directory_mode, value),
            "RemoveOnStop" => self.removes = flag(),
            "Accept" => self.accepts = flag(),
            "BindIPv6Only" => self.only_v6 = value == "ipv6-only",
            "TriggerLimitIntervalSec" => return self.triggers.assign("IntervalSec", value),
            "TriggerLimitBurst" => return self.triggers.assign("Burst", value),
            // How busy sockets are served is for the host's kernel and its limits.
            "Backlog"
            | "MaxConnections"
            | "MaxConnectionsPerSource"
            | "PollLimitIntervalSec"
            | "PollLimitBurst"
            | "TimeoutSec"
            | "ReusePort"
            | "FlushPending" => {}
            _ => return false,
        }
        true
    }
}

fn set(mode: &mut u32, value: &str) -> bool {
    let read = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
    *mode = read.unwrap_or(*mode);
    read.is_some()
}

/// `/path`, `@abstract`, `80`, `127.0.0.1:80`, `[::1]:80`. A port alone is on all addresses.
fn place(value: &str) -> Option<Place> {
    // As long as the kernel takes (`unix(7)`).
    const LONGEST: usize = 107;
    match value.as_bytes().first()? {
        b'/' if value.len() <= LONGEST => Some(Place::Path(value.into())),
        b'@' if value.len() <= LONGEST => Some(Place::Abstract(value[1..].to_owned())),
        b'/' | b'@' => None,
        _ => {
            let all = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
            let port = value.parse().ok().filter(|port| *port > 0).map(all);
            port.or_else(|| value.parse().ok()).map(Place::Net)
        }
    }
}

impl Place {
    /// The same on IPv4, for hosts without IPv6.
    pub fn on_v4(&self) -> Option<SocketAddr> {
        match self {
            Self::Net(at) if at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), at.port()))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::Net(at) => at.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_socket_as_packages_write_it() {
        let text = "[Unit]\nDescription=RPC\n[Socket]\nListenStream=/run/%p.sock\nListenStream=111\nListenDatagram=127.0.0.1:111\n\
                    ListenStream=@%p\nSocketMode=0660\nSocketUser=www-data\nBindIPv6Only=ipv6-only\nListenFIFO=/run/fifo\n\
                    ListenStream=somewhere\nTriggerLimitIntervalSec=5s\nTriggerLimitBurst=7\nTriggerLimitBurst=x\n[Install]\nWantedBy=sockets.target\n";
        let socket = parse("rpcbind", text);
        let told: Vec<String> = socket
            .addresses
            .iter()
            .map(|address| format!("{} {}", address.place, address.datagrams))
            .collect();
        assert_eq!(
            told,
            [
                "/run/rpcbind.sock false",
                "[::]:111 false",
                "127.0.0.1:111 true",
                "@rpcbind false"
            ]
        );
        assert_eq!((socket.unit.as_str(), socket.mode), ("rpcbind.service", 0o660));
        assert_eq!((socket.user.as_deref(), socket.only_v6), (Some("www-data"), true));
        assert_eq!(
            socket.notes,
            [
                "ListenFIFO=/run/fifo is ignored",
                "ListenStream=somewhere is ignored",
                "TriggerLimitBurst=x is ignored"
            ]
        );
        assert_eq!(socket.triggers.to_string(), "7 in 5 s");
        assert_eq!(
            parse("a", "[Socket]\nListenStream=1\nListenStream=\n").addresses,
            []
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            let _ = parse("a", &format!("[Socket]\nListenStream={text}\nSocketMode={text}\n{text}"));
        }
    }
}
