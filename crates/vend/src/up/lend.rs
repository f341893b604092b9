//! Which sockets there are, and which role gets which.

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

use tracing::warn;

use super::{
    Endpoints, Error, Users,
    replace::Held,
    sockets::{listen, listen_local, listen_names},
};
use crate::{
    config::{Data, Platform},
    flow::chain,
};

/// One that is started and supervised.
pub struct Role {
    pub name: &'static str,
    /// None is root.
    pub user: Option<u32>,
    /// By the names under which it gets them.
    pub sockets: Vec<(&'static str, OwnedFd)>,
}

impl Role {
    /// How long it may take to end: edge finishes its visitors' requests first.
    pub fn grace(&self) -> Duration {
        match self.name {
            "edge" => edge::Limits::default().drain + Duration::from_secs(5),
            _ => super::GRACE,
        }
    }
}

/// The roles with their sockets, those of the supervisor before where they fit, and where a platform is reached by them.
///
/// # Errors
///
/// An address that somebody else has; while a platform runs, only one without which nobody could ask what is wrong.
pub fn roles(
    data: &Data,
    platform: &Platform,
    users: Users,
    held: &mut Held,
) -> Result<(Vec<Role>, Endpoints), Error> {
    let after = !held.is_empty();
    let (api, api_at) = listen("api", platform.listen.api, held).or_else(|error| held.api(error))?;
    let local = match held.local("local") {
        Some(local) => local,
        None => listen_local(&data.api_socket())?,
    };
    let mut of_edge = Vec::new();
    let mut take = |name, at: SocketAddr, held: &mut Held| {
        let taken = without(after, listen(name, at, held))?;
        let (socket, at) = taken.map_or((None, at), |(socket, at)| (Some(socket), at));
        of_edge.extend(socket.map(|socket| (name, socket)));
        Ok::<_, Error>(at)
    };
    let http_at = take("http", platform.listen.http, held)?;
    let https = platform.listen.https;
    let https_at = https.map(|at| take("https", at, held)).transpose()?;
    // A port that somebody else has is no reason to serve nobody.
    let metrics = platform.edge.metrics.0;
    let metrics = metrics.map(|at| listen("metrics", at, held)).transpose();
    let metrics = metrics.unwrap_or_else(|error| {
        warn!("nobody can ask for metrics: {}", chain(&error));
        None
    });
    let metrics_at = metrics.as_ref().map(|(_, at)| *at);
    of_edge.extend(metrics.map(|(socket, _)| ("metrics", socket)));
    let mut dns_at = Vec::new();
    for address in &platform.dns.listen {
        let taken = without(after, listen_names(*address, held))?;
        let Some((udp, tcp, at)) = taken else {
            dns_at.push(*address);
            continue;
        };
        of_edge.extend([("dns-udp", udp), ("dns-tcp", tcp)]);
        dns_at.push(at);
    }
    let roles = vec![
        Role {
            name: "node",
            user: None,
            sockets: Vec::new(),
        },
        Role {
            name: "edge",
            user: Some(users.edge),
            sockets: of_edge,
        },
        Role {
            name: "serve",
            user: Some(users.serve),
            sockets: vec![("local", local), ("api", api)],
        },
    ];
    Ok((
        roles,
        Endpoints {
            http: http_at,
            api: api_at,
            https: https_at,
            dns: dns_at,
            metrics: metrics_at,
        },
    ))
}

/// At a start, an address that cannot be had is an error. A platform that runs goes on without: the edge tries it
/// again, and says so.
fn without<T>(runs: bool, listened: Result<T, Error>) -> Result<Option<T>, Error> {
    match listened {
        Ok(listened) => Ok(Some(listened)),
        Err(error) if runs => {
            warn!("{}", chain(&error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// All sockets of the roles, once more: they outlive this program when another takes its place.
pub fn lent(roles: &[Role]) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
    let sockets = roles.iter().flat_map(|role| &role.sockets);
    let again = sockets.map(|(name, socket)| Ok((*name, socket.try_clone()?)));
    let again: std::io::Result<_> = again.collect();
    again.map_err(|source| Error::Replace { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_platform_that_runs_goes_on_without_what_it_cannot_bind() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data(folder.path().to_owned().try_into().unwrap());
        std::fs::create_dir_all(data.run()).unwrap();
        let socket = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (http, api, taken, names) = (socket(), socket(), socket(), socket());
        let at = |socket: &std::net::TcpListener| socket.local_addr().unwrap();
        let text = format!(
            "[listen]\nhttp = '{}'\nhttps = '{2}'\napi = '{2}'\n[dns]\nlisten = ['{}']\n[edge]\nmetrics = false\n",
            at(&http),
            at(&names),
            at(&taken),
        );
        let platform: Platform = toml::from_str(&text).unwrap();
        let users = Users::of_this_machine();
        let mut held = Held::of(vec![
            ("http".into(), http.try_clone().unwrap().into()),
            ("api".into(), api.try_clone().unwrap().into()),
        ]);
        let (roles, endpoints) = roles(&data, &platform, users, &mut held).unwrap();
        let lent = |name: &str| {
            let role = roles.iter().find(|role| role.name == name).unwrap();
            role.sockets.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert_eq!(lent("edge"), ["http"], "the edge tries the others itself");
        assert_eq!(lent("serve"), ["local", "api"]);
        assert_eq!((endpoints.http, endpoints.api), (at(&http), at(&api)));
        assert_eq!(
            (endpoints.https, endpoints.dns),
            (Some(at(&taken)), vec![at(&names)])
        );

        // One that starts says so, and does not.
        drop((roles, http, api));
        let refused = super::roles(&data, &platform, users, &mut Held::default());
        assert!(matches!(refused, Err(Error::Listen { .. })));
    }
}
