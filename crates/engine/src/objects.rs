//! Where distributed Maps read their items and leave their results.

use std::{io, sync::Arc};

use asl::{Answer, Failure, Reading, Request, Writing};
use serde_json::Value;

/// An object store, as one tenant sees it. Called on threads that may block.
pub trait Objects: Send + Sync {
    /// The object that the parameters of S3's GetObject mean, of 64 MB at most.
    fn read(&self, owner: u64, parameters: &Value) -> io::Result<Vec<u8>>;

    /// All objects that the parameters of S3's ListObjectsV2 mean, with S3's names.
    fn list(&self, owner: u64, parameters: &Value) -> io::Result<Vec<Value>>;

    /// Writes an object, or replaces it.
    fn write(&self, owner: u64, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()>;
}

const READ: &str = "States.ItemReaderFailed";
const WRITE: &str = "States.ResultWriterFailed";
const NONE: &str = "This platform has no object store for state machines.";

/// The object store of a tenant, if there is one.
#[derive(Clone)]
pub(crate) struct Buckets {
    pub objects: Option<Arc<dyn Objects>>,
    pub owner: u64,
}

impl Buckets {
    /// Gives a reading all that it wants.
    pub fn fill(&self, reading: &mut Reading) -> Result<(), Failure> {
        let failed = |cause: String| Failure {
            error: READ.into(),
            cause,
        };
        while let Some(request) = reading.wants() {
            let objects = self.objects.as_deref().ok_or_else(|| {
                failed(format!(
                    "{NONE} A distributed Map can have its items from its input: ItemsPath or Items."
                ))
            })?;
            let (Request::Object { parameters } | Request::Listing { parameters }) = request;
            let answer = match request {
                Request::Object { .. } => objects.read(self.owner, parameters).map(Answer::Object),
                Request::Listing { .. } => objects
                    .list(self.owner, parameters)
                    .map(|objects| Answer::Listing { objects, next: None }),
            };
            let answer = answer.map_err(|error| failed(format!("{parameters} cannot be read: {error}")))?;
            reading.take(answer)?;
        }
        Ok(())
    }

    pub fn keep(&self, writing: &Writing, files: Vec<asl::File>) -> Result<(), Failure> {
        let failed = |cause: String| Failure {
            error: WRITE.into(),
            cause,
        };
        let objects = self.objects.as_deref().ok_or_else(|| failed(NONE.into()))?;
        for file in files {
            let bucket = writing.bucket();
            let written = objects.write(self.owner, bucket, &file.key, &file.bytes);
            written.map_err(|error| failed(format!("{bucket}/{} cannot be written: {error}", file.key)))?;
        }
        Ok(())
    }

    /// The results are too many to be held at once.
    pub fn too_many(bytes: usize) -> Failure {
        Failure {
            error: WRITE.into(),
            cause: format!("The results have more than {bytes} bytes."),
        }
    }
}
