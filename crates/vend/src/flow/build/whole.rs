//! The artifacts of a batch as one object. Knows nothing of how they were built.

use std::{
    fs::{self, File},
    io,
};

use camino::Utf8Path;
use host::build::combine;
use model::{
    Digest,
    port::{Built, Fault, Objects},
};
use tokio_util::sync::CancellationToken;

/// Combines what builds left, below `tmp`: nothing stays there, also when nobody waits for the end.
pub(super) async fn combined(
    node: &impl Objects,
    tmp: &Utf8Path,
    built: &[(String, Built)],
) -> Result<Digest, Fault> {
    combine::fits(built.iter().map(|(_, built)| built.size_bytes))?;
    let platform = |error: io::Error| {
        Fault::platform(format!("cannot write to {tmp}: {error}"))
            .next("see whether the data directory's disk is full")
    };
    fs::create_dir_all(tmp).map_err(platform)?;
    // What is left behind by a crash is removed when serve starts.
    let directory = tempfile::Builder::new()
        .prefix("batch-")
        .tempdir_in(tmp)
        .map_err(platform)?;
    let own = Utf8Path::from_path(directory.path()).expect("below a path that is UTF-8, by a name that is");
    let mut parts = Vec::new();
    for (number, (name, built)) in built.iter().enumerate() {
        let part = own.join(format!("{number}.tar"));
        node.get(&built.artifact, &part).await?;
        parts.push((name.clone(), File::open(&part).map_err(platform)?));
    }
    let whole = own.join("whole.tar");
    let to = io::BufWriter::with_capacity(1 << 18, File::create(&whole).map_err(platform)?);
    // The thread goes on when nobody waits for it any more, until it is told; the directory goes with the last of both.
    let stop = CancellationToken::new();
    let _told = stop.clone().drop_guard();
    let work = move || {
        let done = combine::combine(parts, to, || stop.is_cancelled());
        (done, directory)
    };
    let (done, _directory) = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Fault::platform("combining artifacts was interrupted"))?;
    done?;
    node.put(&whole).await
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use camino::Utf8PathBuf;
    use host::{objects::Directory, tree};
    use model::port::Blame;

    use super::*;

    fn built(artifact: Digest, size_bytes: u64) -> Built {
        Built {
            artifact,
            size_bytes,
            phases: Vec::new(),
            reports: Vec::new(),
            exported: BTreeMap::new(),
            log: "build/t".parse().unwrap(),
            name: None,
            secondary: BTreeMap::new(),
        }
    }

    /// A directory with objects in `node`, and these builds' artifacts: a file of the build's name each.
    fn objects(directory: &Utf8Path, names: &[&str]) -> (Directory, Vec<(String, Built)>) {
        let objects = Directory::open(&directory.join("node"), 1 << 20).unwrap();
        let artifact = |name: &&str| {
            let tar = tar_of(name);
            let size = tar.len() as u64;
            let digest = objects.keep(&tar[..], Utf8Path::new(name)).unwrap();
            ((*name).to_owned(), built(digest, size))
        };
        let all = names.iter().map(artifact).collect();
        (objects, all)
    }

    fn tar_of(name: &str) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, name).unwrap();
        let mut packer = tree::Packer::new(Vec::new(), 7);
        packer.file(name.as_ref(), file.path()).unwrap();
        packer.finish().unwrap().0
    }

    fn left(tmp: &Utf8Path) -> Vec<Utf8PathBuf> {
        let entries = tmp.read_dir_utf8().unwrap();
        entries.map(|entry| entry.unwrap().path().to_owned()).collect()
    }

    /// A node whose bytes come but in part, or which must not be asked.
    struct Stuck {
        asked: bool,
    }

    impl Objects for Stuck {
        async fn put(&self, _: &Utf8Path) -> Result<Digest, Fault> {
            panic!("there is nothing to keep")
        }

        async fn get(&self, _: &Digest, path: &Utf8Path) -> Result<(), Fault> {
            assert!(self.asked, "what is too large is not fetched");
            fs::write(path, "half").unwrap();
            std::future::pending().await
        }

        async fn has(&self, _: &Digest) -> Result<bool, Fault> {
            panic!("nobody asks")
        }
    }

    #[tokio::test]
    async fn what_builds_leave_is_one_object_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let (node, all) = objects(directory, &["a", "b"]);
        let tmp = directory.join("tmp");
        let whole = combined(&node, &tmp, &all).await.unwrap();
        let mut names = Vec::new();
        let object = node.open_object(&whole).unwrap();
        tree::visit(object, &tree::Limits::SOURCE, |member, _| {
            names.push(member.path.display().to_string());
            Ok(())
        })
        .unwrap();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(left(&tmp), Vec::<Utf8PathBuf>::new());
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_before_it_is_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let tmp = Utf8Path::from_path(directory.path()).unwrap();
        let half = built(Digest::of("x"), tree::Limits::SOURCE.total_bytes / 2 + 1);
        let all = [("a".to_owned(), half.clone()), ("b".to_owned(), half)];
        let fault = combined(&Stuck { asked: false }, tmp, &all).await.unwrap_err();
        assert_eq!(fault.blame, Blame::Customer);
        assert!(
            fault.message.contains("4294967298 bytes together") && fault.next.is_some(),
            "{fault:?}"
        );
    }

    #[tokio::test]
    async fn nothing_stays_when_nobody_waits_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let tmp = Utf8Path::from_path(directory.path()).unwrap();
        let all = [("a".to_owned(), built(Digest::of("x"), 1))];
        let node = Stuck { asked: true };
        let waiting = combined(&node, tmp, &all);
        tokio::time::timeout(Duration::from_millis(50), waiting)
            .await
            .unwrap_err();
        assert_eq!(left(tmp), Vec::<Utf8PathBuf>::new());
    }
}
