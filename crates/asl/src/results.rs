//! The files that a `ResultWriter` leaves: a manifest, and one file of results for each way in which children ended.

use crate::execution::Status;
use crate::machine::Transformation;
use crate::run::{Ended, MapRun};
use serde_json::{Value, json};

/// Where the results of a Map run go, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    pub(crate) arn: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) transformation: Transformation,
    /// JSON Lines rather than one array.
    pub(crate) lines: bool,
}

/// An object to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub key: String,
    pub bytes: Vec<u8>,
}

impl Writing {
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The objects to write, the manifest last: who finds it finds all.
    pub fn files(&self, run: &MapRun, children: &[Ended]) -> Vec<File> {
        let mut results = Results::new(self);
        children.iter().for_each(|child| results.add(run, child));
        results.files()
    }

    /// The output of the run.
    pub fn output(&self) -> Value {
        json!({
            "MapRunArn": self.arn,
            "ResultWriterDetails": { "Bucket": self.bucket, "Key": self.manifest() },
        })
    }

    fn manifest(&self) -> String {
        format!("{}/manifest.json", self.prefix)
    }

    /// Failures always keep what is known of their execution.
    fn records(&self, run: &MapRun, child: &Ended) -> Vec<Value> {
        match (&child.status, self.transformation) {
            (
                Status::Succeeded {
                    output: Value::Array(items),
                },
                Transformation::Flatten,
            ) => items.clone(),
            (Status::Succeeded { output }, Transformation::Compact | Transformation::Flatten) => {
                vec![output.clone()]
            }
            _ => vec![run.record(child)],
        }
    }
}

const KINDS: [&str; 3] = ["FAILED", "PENDING", "SUCCEEDED"];

/// Files in the making: children are added one after the other, and only texts are held.
pub struct Results<'a> {
    writing: &'a Writing,
    texts: [String; 3],
}

impl<'a> Results<'a> {
    pub fn new(writing: &'a Writing) -> Self {
        Self {
            writing,
            texts: Default::default(),
        }
    }

    /// Adds the next child, in the order of the items.
    pub fn add(&mut self, run: &MapRun, child: &Ended) {
        let kind = match child.status {
            Status::Failed { .. } | Status::TimedOut | Status::Aborted { .. } => 0,
            Status::Running => 1,
            Status::Succeeded { .. } => 2,
        };
        let text = &mut self.texts[kind];
        for record in self.writing.records(run, child) {
            if !self.writing.lines {
                text.push(if text.is_empty() { '[' } else { ',' });
            }
            text.push_str(&record.to_string());
            if self.writing.lines {
                text.push('\n');
            }
        }
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.texts.iter().map(String::len).sum()
    }

    /// As [`Writing::files`].
    pub fn files(self) -> Vec<File> {
        let writing = self.writing;
        let suffix = if writing.lines { "jsonl" } else { "json" };
        let mut files = Vec::new();
        let mut named = json!({});
        for (kind, mut text) in KINDS.into_iter().zip(self.texts) {
            named[kind] = json!([]);
            if text.is_empty() {
                continue;
            }
            if !writing.lines {
                text.push(']');
            }
            let file = File {
                key: format!("{}/{kind}_0.{suffix}", writing.prefix),
                bytes: text.into_bytes(),
            };
            named[kind] = json!([{ "Key": file.key, "Size": file.bytes.len() }]);
            files.push(file);
        }
        let manifest = json!({
            "DestinationBucket": writing.bucket,
            "MapRunArn": writing.arn,
            "ResultFiles": named,
        });
        files.push(File {
            key: writing.manifest(),
            bytes: manifest.to_string().into_bytes(),
        });
        files
    }
}
