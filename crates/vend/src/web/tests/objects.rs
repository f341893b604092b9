//! The contract of what keeps bytes by a name that is made of them, on both that do: a node's directory, and a bucket with what
//! `vend aws push` and moves put and fetch objects by.

use std::{collections::BTreeMap, sync::Mutex};

use aws::{
    Client, bucket,
    download::Download,
    upload::{PIECE, Upload},
};
use camino::{Utf8Path, Utf8PathBuf};
use model::port::Objects as _;
use sha2::{Digest as _, Sha256};

use super::moto::Moto;

const BUCKET: &str = "vend-production-artifacts";

trait Objects {
    /// Gives the name.
    async fn put(&self, bytes: &[u8]) -> String;
    async fn has(&self, name: &str) -> bool;
    /// None: there is none.
    async fn get(&self, name: &str) -> Option<Vec<u8>>;
}

async fn contract(objects: &impl Objects) {
    let nobody = name(b"nobody has put this");
    assert!(!objects.has(&nobody).await && objects.get(&nobody).await.is_none());
    let large: Vec<u8> = (0..PIECE as u32 / 3).flat_map(u32::to_le_bytes).collect();
    assert!(large.len() > PIECE, "it goes in pieces");
    for bytes in [&b"\0 one\r\n\xff"[..], b"two", &large] {
        let name = objects.put(bytes).await;
        assert_eq!(name, self::name(bytes));
        assert!(objects.has(&name).await);
        assert!(objects.get(&name).await.as_deref() == Some(bytes));
        // The same again is the same.
        assert_eq!(objects.put(bytes).await, name);
        assert!(objects.get(&name).await.as_deref() == Some(bytes));
    }
    assert_eq!(objects.get(&name(b"two")).await.as_deref(), Some(&b"two"[..]));
    assert!(!objects.has(&nobody).await);
}

fn name(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

struct Own(host::objects::Directory, Utf8PathBuf);

impl Objects for Own {
    async fn put(&self, bytes: &[u8]) -> String {
        let path = self.1.join("in");
        std::fs::write(&path, bytes).unwrap();
        self.0.put(&path).await.unwrap().to_string()
    }

    async fn has(&self, name: &str) -> bool {
        self.0.has(&name.parse().unwrap()).await.unwrap()
    }

    async fn get(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.1.join("out");
        let _ = std::fs::remove_file(&path);
        let got = self.0.get(&name.parse().unwrap(), &path).await;
        assert_eq!(got.is_ok(), path.exists(), "what failed leaves nothing");
        got.ok().map(|()| std::fs::read(&path).unwrap())
    }
}

/// Keys as those of sources: made of what they hold, and put once.
struct Amazon {
    client: Client,
    versions: Mutex<BTreeMap<String, String>>,
}

impl Objects for Amazon {
    async fn put(&self, bytes: &[u8]) -> String {
        let name = name(bytes);
        if self.has(&name).await {
            return name;
        }
        let mut upload = Upload::begin(&self.client, BUCKET, &name).await.unwrap();
        for piece in bytes.chunks(PIECE) {
            upload.put(piece.to_vec().into()).await.unwrap();
        }
        let version = upload.end().await.unwrap();
        self.versions.lock().unwrap().insert(name.clone(), version);
        name
    }

    async fn has(&self, name: &str) -> bool {
        bucket::has(&self.client, BUCKET, name).await.unwrap()
    }

    async fn get(&self, name: &str) -> Option<Vec<u8>> {
        let version = self.versions.lock().unwrap().get(name).cloned();
        let version = version.unwrap_or_else(|| "none".to_owned());
        let mut download = Download::new(&self.client, BUCKET, name, &version);
        let mut all = Vec::new();
        loop {
            match download.next().await {
                Ok(Some(piece)) => all.extend_from_slice(&piece),
                Ok(None) => return Some(all),
                Err(_) => return None,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_in_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(root.path()).unwrap();
    let objects = host::objects::Directory::open(root, 1 << 30).unwrap();
    contract(&Own(objects, root.to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_in_s3() {
    let Some(moto) = Moto::start().await else { return };
    moto.python(
        "s3 = client('s3')\n\
         s3.create_bucket(Bucket=sys.argv[2], CreateBucketConfiguration={'LocationConstraint': 'eu-central-1'})\n\
         s3.put_bucket_versioning(Bucket=sys.argv[2], VersioningConfiguration={'Status': 'Enabled'})",
        BUCKET,
    )
    .await;
    let objects = Amazon {
        client: moto.client(),
        versions: Mutex::default(),
    };
    contract(&objects).await;
    // What a move carried goes again, with every version of it.
    let name = objects.put(b"two").await;
    bucket::put(&objects.client, BUCKET, &name, b"another".to_vec())
        .await
        .unwrap();
    bucket::erase(&objects.client, BUCKET, &name).await.unwrap();
    assert!(!objects.has(&name).await && objects.get(&name).await.is_none());
    assert!(bucket::is_there(&objects.client, BUCKET).await.unwrap());
    assert!(!bucket::is_there(&objects.client, "no-such-bucket").await.unwrap());
}
