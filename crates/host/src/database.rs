//! Databases on hosts of their own. Knows how one engine is prepared and given its user; never what is stored in it.
//!
//! Data is in a directory of the environment that outlives hosts. Credentials go into the server through the standard
//! input of its own client, as the local root; they are in no file, log or command line.

mod dump;
mod load;

pub use dump::{Dumped, breaking, making, recounting};
pub use load::loading;

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest, HostId, Place, Secret, Ticket,
    port::{
        DatabaseEngine, DatabaseOrder, DatabaseUp, Databases as Port, Fault, HostOrder, HostRole, Resources,
    },
};
use tracing::info;

use crate::{
    agent::{
        Client,
        api::{DaemonOrder, RunOrder, RunOutcome, ServiceState},
    },
    bake::Oven,
    base,
    container::{Bind, chain},
    hosts::{Extra, Hosts, Record},
    mount, now,
    ticket::Tickets,
};

/// MariaDB's registered port.
pub const PORT: u16 = 3306;

/// From a started server to one that takes its user: recovery after a crash may read a lot.
const READY: Duration = Duration::from_secs(120);

/// The service's name at its agent.
const SERVICE: &str = "mariadb";

const IMAGE_SCRIPT: &str = include_str!("database/mariadb.sh");

/// Where the image keeps the data directory that new ones are a copy of.
const TEMPLATE: &str = "usr/share/vend/mysql";

/// The databases of one data directory. Clones are the same.
#[derive(Clone)]
pub struct Databases {
    node: Utf8PathBuf,
    hosts: Hosts,
    oven: Oven,
    tickets: Tickets,
    turns: Arc<Mutex<HashMap<Place, Arc<Turn>>>>,
}

/// One thing at a time is done to the database of an environment.
#[derive(Default)]
struct Turn {
    lock: tokio::sync::Mutex<()>,
    /// How often it was destroyed. Whatever was ordered before has no effect after.
    destroyed: AtomicU64,
}

impl Databases {
    pub fn new(node: Utf8PathBuf, hosts: Hosts, oven: Oven, tickets: Tickets) -> Self {
        Self {
            node,
            hosts,
            oven,
            tickets,
            turns: Arc::default(),
        }
    }

    fn turn(&self, place: &Place) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(place.clone()).or_default())
    }

    async fn up(&self, order: &DatabaseOrder) -> Result<DatabaseUp, Fault> {
        let DatabaseEngine::Mariadb = order.engine;
        check(order)?;
        // Held to the end: who destroys meanwhile is seen.
        let turn = self.turn(&order.place);
        let destroyed = turn.destroyed.load(Ordering::SeqCst);
        let image = self
            .oven
            .platform(SERVICE, base::DEBIAN, IMAGE_SCRIPT)
            .await?
            .image;
        let begin = now();
        let _turn = turn.lock.lock().await;
        if turn.destroyed.load(Ordering::SeqCst) != destroyed {
            let text = format!("the database of {} was deleted while it was made", order.place);
            return Err(Fault::order(text).next("order it again"));
        }
        self.check_alone(order)?;
        let volume = self.volume(&order.place);
        let existing_data = volume.exists();
        if !existing_data {
            self.template(&image, &volume).await?;
        }
        let host = host_order(order, image);
        self.replace(&host).await?;
        let extra = Extra {
            binds: vec![Bind {
                source: volume,
                target: "/var/lib/mysql".into(),
                read_only: false,
                id_mapped: true,
            }],
            only_port: Some(PORT),
        };
        self.hosts.up(&host, extra).await?;
        let agent = self.hosts.agent(&order.host);
        agent
            .daemon(&daemon(order))
            .await
            .map_err(|error| failed("start the server on", &order.host, &error))?;
        credentials(&agent, order).await?;
        let duration_ms = now().duration_since(begin).as_millis().try_into().unwrap_or(0);
        info!(place = %order.place, host = %order.host, duration_ms, "the database of {} takes its user", order.place);
        Ok(DatabaseUp {
            host: order.host.clone(),
            address: order.address,
            port: PORT,
            existing_data,
            duration_ms,
        })
    }

    async fn down(&self, host: &HostId, place: &Place) -> Result<(), Fault> {
        let turn = self.turn(place);
        turn.destroyed.fetch_add(1, Ordering::SeqCst);
        let _turn = turn.lock.lock().await;
        if let Some(other) = self.of(place).into_iter().find(|record| &record.host != host) {
            return Err(Fault::order(format!(
                "the data of {place} is that of {}",
                other.host
            )));
        }
        self.hosts.down(host).await?;
        let volume = self.volume(place);
        // Out of sight first: half a data directory is never taken for a whole one.
        let gone = volume.with_extension("gone");
        mount::remove(&gone).map_err(|error| failed("delete the data of", host, &error))?;
        match fs::rename(&volume, &gone) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("delete the data of", host, &error));
            }
            _ => {}
        }
        let removed = tokio::task::spawn_blocking(move || mount::remove(&gone)).await;
        match removed {
            Ok(Err(error)) => Err(failed("delete the data of", host, &error)),
            _ => Ok(()),
        }
    }

    /// Stops a host that runs from another order: with other resources, say.
    async fn replace(&self, order: &HostOrder) -> Result<(), Fault> {
        let wanted = Record::of(order, now());
        match self.hosts.record(&order.host) {
            Some(record) if !record.is_same(&wanted) => self.hosts.down(&order.host).await,
            _ => Ok(()),
        }
    }

    /// Two servers on one data directory would destroy it.
    fn check_alone(&self, order: &DatabaseOrder) -> Result<(), Fault> {
        match self
            .of(&order.place)
            .into_iter()
            .find(|record| record.host != order.host)
        {
            Some(other) => Err(Fault::order(format!(
                "{} has a database on {} already",
                order.place, other.host
            ))
            .next("stop that host first")),
            None => Ok(()),
        }
    }

    fn of(&self, place: &Place) -> Vec<Record> {
        let mut all = Record::all(&self.node.join("hosts"));
        all.retain(|record| record.role == HostRole::Database && &record.place == place);
        all
    }

    /// Begins the data of an environment as a copy of the image's.
    async fn template(&self, image: &Digest, volume: &Utf8Path) -> Result<(), Fault> {
        let lowers = self.oven.images().lowers(image)?;
        let found = lowers
            .iter()
            .map(|lower| lower.join(TEMPLATE))
            .find(|path| path.is_dir());
        let template = found.ok_or_else(|| Fault::platform("the image of MariaDB has no data directory"))?;
        let cannot =
            |why: String| Fault::platform(format!("cannot begin the data directory {volume}: {why}"));
        let parent = volume
            .parent()
            .expect("a volume is under the directory of volumes");
        fs::create_dir_all(parent).map_err(|error| cannot(error.to_string()))?;
        let fresh = volume.with_extension("new");
        mount::remove(&fresh).map_err(|error| cannot(chain(&error)))?;
        let copied = tokio::process::Command::new("cp")
            .args([
                "--archive",
                "--sparse=always",
                "--reflink=auto",
                template.as_str(),
                fresh.as_str(),
            ])
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| cannot(error.to_string()))?;
        if !copied.status.success() {
            return Err(cannot(String::from_utf8_lossy(&copied.stderr).into_owned()));
        }
        // All of it is on the disk before it has its name: what has the name is never begun anew.
        let (fresh, volume) = (fresh, volume.to_owned());
        tokio::task::spawn_blocking(move || publish(&fresh, &volume))
            .await
            .map_err(|error| cannot(error.to_string()))?
            .map_err(|error| cannot(error.to_string()))
    }

    fn volume(&self, place: &Place) -> Utf8PathBuf {
        let of_app = self
            .node
            .join("volumes")
            .join(place.tenant.as_str())
            .join(place.app.as_str());
        of_app.join(place.environment.as_str()).join("mysql")
    }
}

/// Gives a whole and durable directory its name.
fn publish(fresh: &Utf8Path, path: &Utf8Path) -> std::io::Result<()> {
    rustix::fs::syncfs(fs::File::open(fresh)?)?;
    fs::rename(fresh, path)?;
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl Port for Databases {
    async fn ensure(&self, ticket: &Ticket, order: &DatabaseOrder) -> Result<DatabaseUp, Fault> {
        let (this, order) = (self.clone(), order.clone());
        // Without the password: what is kept about a ticket must not help to guess it.
        let like = Record::of(
            &host_order(&order, Digest::of(SERVICE)),
            jiff::Timestamp::UNIX_EPOCH,
        );
        let digest = Digest::of_parts([like.digest().as_bytes(), order.name.as_bytes()]);
        self.tickets
            .once(ticket, digest, async move { this.up(&order).await })
            .await
    }

    async fn destroy(&self, host: &HostId, place: &Place) -> Result<(), Fault> {
        let (this, host, place) = (self.clone(), host.clone(), place.clone());
        // Not cut short when the caller goes away.
        tokio::spawn(async move { this.down(&host, &place).await })
            .await
            .map_err(|_| Fault::platform("deleting a database was cut short"))?
    }
}

fn host_order(order: &DatabaseOrder, image: Digest) -> HostOrder {
    HostOrder {
        host: order.host.clone(),
        place: order.place.clone(),
        role: HostRole::Database,
        image,
        network: order.network.clone(),
        address: order.address,
        uid_base: order.uid_base,
        resources: order.resources.clone(),
        port: PORT,
        secrets: [].into(),
        environment: Default::default(),
        processes: Default::default(),
    }
}

/// Small buffers: most databases here are small, and all share a machine.
fn daemon(order: &DatabaseOrder) -> DaemonOrder {
    let server = format!(
        "install -d -m 0755 -o mysql -g mysql /run/mysqld && exec mariadbd --no-defaults --user=mysql \
         --datadir=/var/lib/mysql --socket=/run/mysqld/mysqld.sock --pid-file=/run/mysqld/mysqld.pid \
         --bind-address={} --port={PORT} --skip-name-resolve --skip-symbolic-links --local-infile=0 \
         --character-set-server=utf8mb4 --collation-server=utf8mb4_unicode_ci --performance-schema=OFF \
         --innodb-buffer-pool-size={}M --innodb-log-file-size=16M --innodb-log-buffer-size=4M \
         --innodb-use-native-aio=0 --key-buffer-size=1M --aria-pagecache-buffer-size=1M --max-connections=150 \
         --max-allowed-packet=64M",
        order.address,
        buffer_mib(&order.resources)
    );
    DaemonOrder {
        name: SERVICE.to_owned(),
        command: ["/bin/sh", "-c", &server].map(str::to_owned).to_vec(),
        user: None,
        directory: None,
        environment: Default::default(),
        stop_timeout_ms: 60_000,
    }
}

/// A quarter of the memory, at least 16 MiB: the rest is for connections.
fn buffer_mib(resources: &Resources) -> u64 {
    (resources.memory_mib / 4).max(16)
}

/// Gives the server its database and user; asked until it is there to be asked.
async fn credentials(agent: &Client, order: &DatabaseOrder) -> Result<(), Fault> {
    let run = RunOrder {
        command: [
            "mariadb",
            "--no-defaults",
            "--socket=/run/mysqld/mysqld.sock",
            "--batch",
        ]
        .map(str::to_owned)
        .to_vec(),
        user: None,
        directory: None,
        environment: Default::default(),
        stdin: Some(statements(order)),
        timeout_ms: 30_000,
    };
    let end = tokio::time::Instant::now() + READY;
    loop {
        let outcome = agent
            .run(&run)
            .await
            .map_err(|error| failed("give its user to", &order.host, &error))?;
        match outcome.code {
            Some(0) => return Ok(()),
            _ if is_away(&outcome) && tokio::time::Instant::now() < end => {}
            _ => return Err(refused(order, &outcome)),
        }
        let services = agent.services().await.unwrap_or_default();
        let mine = services.iter().find(|service| service.name.starts_with(SERVICE));
        if mine.is_some_and(|service| service.state == ServiceState::Failed) {
            return Err(refused(order, &outcome));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Errors 2002 and 2003 of the client: nobody listens (yet).
fn is_away(outcome: &RunOutcome) -> bool {
    ["ERROR 2002 ", "ERROR 2003 ", "ERROR 2013 "]
        .iter()
        .any(|error| outcome.stderr.contains(error))
}

fn refused(order: &DatabaseOrder, outcome: &RunOutcome) -> Fault {
    // The first line only: later ones may repeat a statement.
    let said: String = outcome
        .stderr
        .lines()
        .next()
        .unwrap_or("nothing")
        .chars()
        .take(200)
        .collect();
    let said = said.replace(order.password.expose(), "***");
    let log = format!("host/{}/{SERVICE}", order.host)
        .parse()
        .expect("a host's id is a part of a log's name");
    Fault::platform(format!(
        "the server of {} does not take its user: {said}",
        order.place
    ))
    .next("look at its log")
    .evidence(log)
}

fn statements(order: &DatabaseOrder) -> Secret {
    let (name, network) = (&order.name, &order.network);
    let user = format!("'{name}'@'{}/255.255.255.0'", network.subnet);
    let password = quoted(order.password.expose());
    Secret::new(format!(
        "CREATE DATABASE IF NOT EXISTS `{name}`;\n\
         CREATE USER IF NOT EXISTS {user} IDENTIFIED BY {password};\n\
         ALTER USER {user} IDENTIFIED BY {password};\n\
         GRANT ALL ON `{name}`.* TO {user};\n"
    ))
}

/// A string literal of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn check(order: &DatabaseOrder) -> Result<(), Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let name = &order.name;
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(Fault::order(
            "the name of a database has 1 to 64 letters, digits, hyphens and underscores",
        ));
    }
    let password = order.password.expose();
    if password.len() < 8 || password.len() > 200 || password.chars().any(char::is_control) {
        return Err(Fault::order(
            "the password of a database has 8 to 200 characters, none of them a control",
        ));
    }
    if order.resources.memory_mib < 128 {
        return Err(Fault::order("a database needs at least 128 MiB of memory"));
    }
    Ok(())
}

fn failed(doing: &str, host: &HostId, error: &dyn std::error::Error) -> Fault {
    Fault::platform(format!("cannot {doing} {host}: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_leave_its_quotes() {
        assert_eq!(quoted("a'b\\c"), r"'a''b\\c'");
        assert_eq!(quoted("\\' OR 1"), r"'\\'' OR 1'");
    }
}
