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
        let kind = |status: &Status| match status {
            Status::Succeeded { .. } => "SUCCEEDED",
            Status::Running => "PENDING",
            Status::Failed { .. } | Status::TimedOut | Status::Aborted { .. } => "FAILED",
        };
        let suffix = if self.lines { "jsonl" } else { "json" };
        let mut files = Vec::new();
        let mut named = json!({});
        for wanted in ["FAILED", "PENDING", "SUCCEEDED"] {
            let records: Vec<Value> = children
                .iter()
                .filter(|child| kind(&child.status) == wanted)
                .flat_map(|child| self.records(run, child))
                .collect();
            named[wanted] = json!([]);
            if records.is_empty() {
                continue;
            }
            let file = File {
                key: format!("{}/{wanted}_0.{suffix}", self.prefix),
                bytes: self.text(records).into_bytes(),
            };
            named[wanted] = json!([{ "Key": file.key, "Size": file.bytes.len() }]);
            files.push(file);
        }
        let manifest = json!({
            "DestinationBucket": self.bucket,
            "MapRunArn": self.arn,
            "ResultFiles": named,
        });
        files.push(File {
            key: self.manifest(),
            bytes: manifest.to_string().into_bytes(),
        });
        files
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

    fn text(&self, records: Vec<Value>) -> String {
        if !self.lines {
            return Value::Array(records).to_string();
        }
        let lines = records.iter().map(|record| format!("{record}\n"));
        lines.collect()
    }
}
