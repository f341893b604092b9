//! All of a database in one file, for whoever takes it elsewhere, or from elsewhere: made and loaded by the engine's own
//! client, on the database's host, where nobody writes any more.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    HostId, Place,
    port::{COUNT, Fault, HostRole},
};
use tracing::{info, warn};

use super::{Databases, failed};
use crate::{
    agent::{Client, api::RunOrder},
    mount,
};

/// A dump may take so long.
const MAKES: Duration = Duration::from_secs(3_000);
/// One statement.
const QUICK: Duration = Duration::from_secs(60);
/// The file that a dump is written to, beside the server's own. It is no directory, so it is no database.
const FILE: &str = "vend-dump.gz";

/// What all of them begin with.
pub(super) const ASK: &str = r#"set -euo pipefail
umask 077
socket=/run/mysqld/mysqld.sock
ask() { mariadb --no-defaults --socket="$socket" "$@" "$database"; }
"#;
const MAKE: &str = include_str!("dump.sh");
/// A dump under way ends, because nobody answers it any more.
const BREAK: &str = include_str!("break.sh");
/// The count of what nobody could write to since it was dumped or loaded.
pub(super) const STILL: &str = include_str!("still.sh");
/// For so long a dump under way is waited for before it is broken off.
const PATIENCE: Duration = Duration::from_secs(2);

/// A dump, and what was counted of the data in it.
pub struct Dumped {
    /// `3 tables, 120 rows, 0123456789abcdef`
    pub counted: String,
    /// Compressed by gzip; it is in no directory any more.
    pub file: File,
}

impl Databases {
    /// Writes all of a database into a file. From then on only [`open`](Self::open) lets anybody write.
    ///
    /// # Errors
    /// When the database is not of the place, or does not run, or cannot be read whole. Then the app may write as before.
    pub async fn dump(&self, host: &HostId, place: &Place, name: &str) -> Result<Dumped, Fault> {
        let agent = self.agent_of(host, place, name)?;
        let (own, host, place, name) = (self.clone(), host.clone(), place.clone(), name.to_owned());
        // Brought to its end also when nobody waits for it any more: what is half done would stay read-only.
        let whole = tokio::spawn(async move {
            let turn = own.turn(&place);
            let _turn = turn.lock.lock().await;
            let made = own.make(&agent, &host, &place, &name).await;
            if made.is_err()
                && let Err(fault) = writable(&agent, &host, &name).await
            {
                warn!(%place, "the database of {place} may be read-only: {fault}");
            }
            made
        });
        let ended = whole.await;
        ended.unwrap_or_else(|error| Err(Fault::platform(format!("the dump ended half way: {error}"))))
    }

    async fn make(&self, agent: &Client, host: &HostId, place: &Place, name: &str) -> Result<Dumped, Fault> {
        let volume = self.volume(place);
        let path = volume.join(FILE);
        // Whatever was half made.
        for old in [path.clone(), Utf8PathBuf::from(format!("{path}.part"))] {
            mount::remove(&old).map_err(|error| failed("begin a dump on", host, &error))?;
        }
        let said = shell(agent, host, &making(name), MAKES).await?;
        let counted =
            counted(&said).ok_or_else(|| Fault::platform("the dump says nothing of what is in it"))?;
        let file = taken(&path).map_err(|error| failed("read the dump of", host, &error))?;
        info!(%place, counted, "the database of {place} was dumped");
        Ok(Dumped { counted, file })
    }

    /// Lets the app write again. A dump that is under way is broken off.
    pub async fn open(&self, host: &HostId, place: &Place, name: &str) -> Result<(), Fault> {
        let agent = self.agent_of(host, place, name)?;
        let turn = self.turn(place);
        let _turn = loop {
            match tokio::time::timeout(PATIENCE, turn.lock.lock()).await {
                Ok(held) => break held,
                // Whoever has it may have ended meanwhile, and a server that is being started answers nobody.
                Err(_) => drop(shell(&agent, host, &breaking(name), QUICK).await),
            }
        };
        writable(&agent, host, name).await
    }

    /// Counts what was dumped, where it was.
    ///
    /// # Errors
    /// Also when somebody could write since: a server that was started again is not read-only any more.
    pub async fn count(&self, host: &HostId, place: &Place, name: &str) -> Result<String, Fault> {
        let agent = self.agent_of(host, place, name)?;
        let turn = self.turn(place);
        let _turn = turn.lock.lock().await;
        let said = shell(&agent, host, &recounting(name), MAKES).await?;
        counted(&said).ok_or_else(|| Fault::platform("the database does not say what is in it"))
    }

    /// The agent of a place's own database.
    pub(super) fn agent_of(&self, host: &HostId, place: &Place, name: &str) -> Result<Client, Fault> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(Fault::order("that is not the name of a database"));
        }
        let mine = |record: crate::hosts::Record| record.role == HostRole::Database && &record.place == place;
        match self.hosts.record(host).is_some_and(mine) {
            true => Ok(self.hosts.agent(host)),
            false => Err(Fault::order(format!("{host} is not the database of {place}"))),
        }
    }
}

/// A dump, and then the count: nobody writes meanwhile. Lines of bash, as all of these.
pub fn making(name: &str) -> String {
    format!("database='{name}'\n{ASK}file=/var/lib/mysql/{FILE}\ndir=$(mktemp -d)\n{MAKE}{COUNT}whole=yes\n")
}

/// Breaks a dump off that is under way.
pub fn breaking(name: &str) -> String {
    format!("database='{name}'\n{ASK}{BREAK}")
}

/// Counts again, where nobody could write since the dump.
pub fn recounting(name: &str) -> String {
    format!("database='{name}'\n{ASK}dir=$(mktemp -d)\ntrap 'rm -rf \"$dir\"' EXIT\n{COUNT}{STILL}")
}

async fn writable(agent: &Client, host: &HostId, name: &str) -> Result<(), Fault> {
    let script = format!("database='{name}'\n{ASK}ask --execute 'SET GLOBAL read_only = 0'\n");
    shell(agent, host, &script, QUICK).await.map(drop)
}

/// What was counted, of all that a script says.
pub(super) fn counted(said: &str) -> Option<String> {
    let line = said.lines().find_map(|line| line.strip_prefix("counted: "))?;
    Some(line.trim().to_owned())
}

pub(super) async fn shell(
    agent: &Client,
    host: &HostId,
    script: &str,
    within: Duration,
) -> Result<String, Fault> {
    let run = RunOrder {
        command: ["/bin/bash", "-c", script].map(str::to_owned).to_vec(),
        user: None,
        directory: None,
        environment: Default::default(),
        stdin: None,
        timeout_ms: within.as_millis().try_into().unwrap_or(u64::MAX),
    };
    let outcome = agent
        .run(&run)
        .await
        .map_err(|error| failed("ask the database on", host, &error))?;
    match outcome.code {
        Some(0) => Ok(outcome.stdout),
        _ => {
            let said: String = outcome.stderr.trim().chars().take(300).collect();
            let said = if said.is_empty() { "it says nothing" } else { &said };
            Err(Fault::platform(format!(
                "the database on {host} does not do what it was asked: {said}"
            ))
            .next("look at its log"))
        }
    }
}

/// Opens the file and takes its name away. What a server has put in its place is not followed.
fn taken(path: &Utf8Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let file = File::options().read(true).custom_flags(nofollow).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
