//! What a dump elsewhere wrote, in place of what is here: loaded by the engine's own client, on the database's host.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, time::Duration};

use camino::Utf8Path;
use model::{
    HostId, Place,
    port::{COUNT, Fault},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tracing::info;

use super::{
    Databases,
    dump::{ASK, STILL, counted, shell},
    failed,
};
use crate::mount;

/// A load may take so long.
const LOADS: Duration = Duration::from_secs(4 * 3_600);
/// Bytes of a dump: what S3 takes of one in pieces of 16 MiB.
const MOST: u64 = 160 << 30;
/// The file that a dump comes into, beside the server's own. It is no directory, so it is no database.
const FILE: &str = "vend-load.gz";

const LOAD: &str = include_str!("load.sh");

impl Databases {
    /// Replaces all of a database by what a dump elsewhere wrote, and counts. From then on only [`open`](Self::open) lets
    /// anybody write. The agent is asked when all of it has come: what breaks off on its way changes nothing.
    ///
    /// # Errors
    /// When the database is not of the place, or does not run, or what comes is cut short, too large or no dump. What was
    /// there may be gone then.
    pub async fn load(
        &self,
        host: &HostId,
        place: &Place,
        name: &str,
        dump: impl AsyncRead + Unpin + Send + 'static,
    ) -> Result<String, Fault> {
        let agent = self.agent_of(host, place, name)?;
        let (own, host, place, name) = (self.clone(), host.clone(), place.clone(), name.to_owned());
        // Brought to its end also when nobody waits for it any more: the next must not begin beside it.
        let whole = tokio::spawn(async move {
            let turn = own.turn(&place);
            let _turn = turn.lock.lock().await;
            let path = own.volume(&place).join(FILE);
            let done = match take(&path, dump).await {
                Ok(bytes) => shell(&agent, &host, &loading(&name), LOADS)
                    .await
                    .map(|said| (bytes, said)),
                Err(error) => Err(failed("take in the dump for", &host, &error)),
            };
            let _ = mount::remove(&path);
            let (bytes, said) = done?;
            let counted = counted(&said)
                .ok_or_else(|| Fault::platform("the load says nothing of what is there now"))?;
            info!(%place, counted, bytes, "a dump was loaded into the database of {place}");
            Ok(counted)
        });
        let ended = whole.await;
        ended.unwrap_or_else(|error| Err(Fault::platform(format!("the load ended half way: {error}"))))
    }
}

/// A load, and then the count. Lines of bash.
pub fn loading(name: &str) -> String {
    format!("database='{name}'\n{ASK}file=/var/lib/mysql/{FILE}\ndir=$(mktemp -d)\n{LOAD}{COUNT}{STILL}")
}

/// Writes what comes into a new file. What a server has put in its place is not followed.
async fn take(path: &Utf8Path, dump: impl AsyncRead + Unpin) -> io::Result<u64> {
    mount::remove(path).map_err(io::Error::other)?;
    let file: File = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut file = tokio::fs::File::from_std(file);
    let bytes = tokio::io::copy(&mut dump.take(MOST + 1), &mut file).await?;
    file.flush().await?;
    match bytes {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing came")),
        bytes if bytes > MOST => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {} GiB", MOST >> 30),
        )),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    #[tokio::test]
    async fn what_lies_where_a_dump_comes_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let (secret, path) = (directory.join("secret"), directory.join(FILE));
        std::fs::write(&secret, "of the machine").unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert_eq!(take(&path, &b"a dump"[..]).await.unwrap(), 6);
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of the machine");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a dump");
        // What a load before it has left goes first; and nothing is no dump.
        assert!(take(&path, &b""[..]).await.is_err());
    }

    #[test]
    fn the_script_is_shell() {
        let done = std::process::Command::new("bash")
            .args(["-n", "-c", &loading("app")])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
