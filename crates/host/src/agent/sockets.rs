//! Sockets that the agent listens at for services: who connects first starts the service, which gets them all
//! (`sd_listen_fds(3)`). Connections wait in the kernel meanwhile, and while the service is started again.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{PermissionsExt as _, chown},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use rustix::{
    io::fcntl_dupfd_cloexec,
    net::{
        AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
        sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::sleep,
};

use super::{
    api::ServiceState,
    services::Services,
    unit::{
        Rate,
        rate::Count,
        socket::{Address, Place, Socket},
    },
    users::Users,
};

/// Connections that wait for a service.
const BACKLOG: i32 = 4096;

/// How often the service is looked at while it runs, and the longest wait for one that does not stay up.
const LOOK: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// Numbers from here on are out of the way of those that a service gets its sockets under.
const HIGH: i32 = 64;

/// Open sockets with their name, for a service that starts.
#[derive(Clone)]
pub struct Lent {
    pub name: String,
    pub files: Arc<Vec<OwnedFd>>,
}

/// A socket unit that was started. It ends with this value.
pub struct Listening {
    pub socket: Socket,
    files: Arc<Vec<OwnedFd>>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Opens the sockets, or goes on with those that another agent had opened.
    ///
    /// # Errors
    /// An address that cannot be listened at, with its reason.
    pub fn start(
        unit: &str,
        socket: Socket,
        opened: Option<Vec<OwnedFd>>,
        services: Services,
    ) -> Result<Self, String> {
        let files = match opened.filter(|files| !files.is_empty()) {
            Some(files) => files,
            None => open_all(&socket)?,
        };
        let files = Arc::new(files);
        let watch = Watch {
            unit: unit.to_owned(),
            service: socket.unit.clone(),
            files: Arc::clone(&files),
            services,
            triggers: socket.triggers,
            triggered: Count::default(),
            started: Count::default(),
        };
        let task = tokio::spawn(watch.run());
        Ok(Self { socket, files, task })
    }

    pub fn lent(&self) -> Lent {
        Lent {
            name: self.socket.name.clone(),
            files: Arc::clone(&self.files),
        }
    }

    /// Their numbers, for the next agent.
    pub fn numbers(&self) -> Vec<i32> {
        self.files.iter().map(|file| file.as_raw_fd()).collect()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        if self.socket.removes {
            for path in self.socket.addresses.iter().filter_map(path) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn path(address: &Address) -> Option<&Path> {
    match &address.place {
        Place::Path(path) => Some(path),
        Place::Abstract(_) | Place::Net(_) => None,
    }
}

/// Starts the service whenever somebody is there and it does not run.
struct Watch {
    /// The socket unit.
    unit: String,
    service: String,
    files: Arc<Vec<OwnedFd>>,
    services: Services,
    triggers: Rate,
    triggered: Count,
    started: Count,
}

impl Watch {
    /// Goes on until one of the limits is reached, as `systemd.socket(5)` has it: then the socket unit has failed, and
    /// who connects is refused instead of waiting for nothing.
    async fn run(mut self) {
        let mut wait = LOOK;
        let (result, why) = loop {
            // One that is being started or stopped, or waits to be started again, is its supervisor's.
            if !self.rests() {
                sleep(LOOK).await;
                continue;
            }
            if let Err(error) = somebody(&self.files).await {
                break ("resources", format!("its sockets cannot be watched: {error}"));
            }
            // Somebody else may have started it meanwhile.
            if !self.rests() {
                continue;
            }
            let starts = self.services.starts(&self.service);
            if let Err(gives_up) = self.count(starts) {
                break gives_up;
            }
            let outcome = self.services.wake(&self.service).await;
            if let Err(why) = &outcome {
                tracing::warn!("{} did not start for its socket: {why}", self.service);
            }
            sleep(wait).await;
            let longest = starts.pause().unwrap_or(LONGEST).clamp(LOOK, LONGEST);
            wait = match outcome.is_err() || self.failed() {
                true => (wait * 2).min(longest),
                false => LOOK,
            };
        };
        self.services.give_up(&self.unit, result, &why);
    }

    fn count(&mut self, starts: Rate) -> Result<(), (&'static str, String)> {
        let (now, service) = (Instant::now(), &self.service);
        if !self.triggered.another(self.triggers, now) {
            let why = format!(
                "it started {service} too often: TriggerLimitBurst= is {}",
                self.triggers
            );
            return Err(("trigger-limit-hit", why));
        }
        if !self.started.another(starts, now) {
            let why =
                format!("{service} was started too often and does not stay up: StartLimitBurst= is {starts}");
            return Err(("service-start-limit-hit", why));
        }
        Ok(())
    }

    fn rests(&self) -> bool {
        matches!(
            self.services.state(&self.service),
            ServiceState::Inactive | ServiceState::Failed
        )
    }

    /// It was started, and is not up at the next look; one that ended well has served who was there.
    fn failed(&self) -> bool {
        matches!(
            self.services.state(&self.service),
            ServiceState::Failed | ServiceState::Activating
        )
    }
}

/// Waits until one of them can be read.
async fn somebody(files: &[OwnedFd]) -> io::Result<()> {
    let watched = files.iter().map(|file| {
        // Watched anew each time: what waits already is seen, too.
        watched(fcntl_dupfd_cloexec(file, HIGH)?)
    });
    let watched = watched.collect::<io::Result<Vec<_>>>()?;
    let readable = watched.iter().map(|file| Box::pin(file.readable()));
    select_all(readable).await.0.map(drop)
}

#[allow(unsafe_code)]
fn watched(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the file is owned by what watches it, so its number is no other file's meanwhile.
    unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }.map_err(io::Error::from)
}

fn open_all(socket: &Socket) -> Result<Vec<OwnedFd>, String> {
    let any = |address: &Address| {
        let opened = match open(socket, address) {
            // A host without IPv6: a port alone is one of IPv4 then.
            Err(_) if address.place.on_v4().is_some() => address.place.on_v4().map_or_else(
                || Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
                |at| {
                    let place = Place::Net(at);
                    let datagrams = address.datagrams;
                    open(socket, &Address { place, datagrams })
                },
            ),
            opened => opened,
        };
        opened.map_err(|error| format!("cannot listen at {}: {error}", address.place))
    };
    socket.addresses.iter().map(any).collect()
}

fn open(socket: &Socket, address: &Address) -> io::Result<OwnedFd> {
    let (family, at): (AddressFamily, SocketAddrAny) = match &address.place {
        Place::Net(at) if at.is_ipv6() => (AddressFamily::INET6, (*at).into()),
        Place::Net(at) => (AddressFamily::INET, (*at).into()),
        Place::Path(path) => (AddressFamily::UNIX, SocketAddrUnix::new(path)?.into()),
        Place::Abstract(name) => {
            let at = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
            (AddressFamily::UNIX, at.into())
        }
    };
    let kind = if address.datagrams {
        SocketType::DGRAM
    } else {
        SocketType::STREAM
    };
    let file = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if family == AddressFamily::INET6 {
        set_ipv6_v6only(&file, socket.only_v6)?;
    }
    if family != AddressFamily::UNIX {
        set_socket_reuseaddr(&file, true)?;
    }
    if let Some(path) = path(address) {
        clear(path, socket.directory_mode)?;
    }
    bind(&file, &at)?;
    if let Some(path) = path(address) {
        hand_over(path, socket)?;
    }
    if !address.datagrams {
        listen(&file, BACKLOG)?;
    }
    Ok(fcntl_dupfd_cloexec(file.as_fd(), HIGH)?)
}

/// Makes the directories above, and removes a socket that nobody listens at any more.
fn clear(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(mode).create(parent)?;
    }
    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn hand_over(path: &Path, socket: &Socket) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(socket.mode))?;
    if socket.user.is_none() && socket.group.is_none() {
        return Ok(());
    }
    let user = socket.user.as_deref().unwrap_or("0");
    let identity = Users::read().identity(user, socket.group.as_deref());
    let identity = identity.ok_or_else(|| io::Error::other("its user or its group does not exist"))?;
    chown(path, Some(identity.uid), Some(identity.gid))
}
