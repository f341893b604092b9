//! SimpleCov's JSON: the result set that it keeps (`.resultset.json`), or what its JSON formatter writes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use model::port::Coverage;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Error, Telling};

pub(super) fn read(bytes: &[u8], telling: Telling<'_>) -> Result<Coverage, Error> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| Error::Json(telling.short(&error.to_string())))?;
    // Each command that ran tests tells of the same files: a line is reached when one of them reaches it.
    let mut files: HashMap<String, File> = HashMap::new();
    for (path, file) in document.0.into_iter().flatten() {
        files.entry(path).or_default().merge(file);
    }
    let mut coverage = Coverage::default();
    for line in files.values().flat_map(|file| &file.lines) {
        if *line != Line::Irrelevant {
            coverage.lines.count(*line == Line::Reached);
        }
    }
    for hits in files.values().flat_map(|file| file.branches.values()) {
        coverage.branches.count(*hits > 0);
    }
    match coverage.lines.total {
        0 => Err(Error::NoLines),
        _ => Ok(coverage),
    }
}

/// By command, or the only one.
struct Document(Vec<BTreeMap<String, File>>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Document;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a result set of SimpleCov")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Document, M::Error> {
                let mut all = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "coverage" => all.push(map.next_value()?),
                        "meta" | "timestamp" | "groups" | "metrics" | "total" | "errors" | "files" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => all.push(map.next_value::<Command>()?.coverage),
                    }
                }
                Ok(Document(all))
            }
        }
        deserializer.deserialize_map(Whole)
    }
}

#[derive(Deserialize)]
struct Command {
    #[serde(default)]
    coverage: BTreeMap<String, File>,
}

#[derive(Debug, Default)]
struct File {
    lines: Vec<Line>,
    /// By the text that names them; how often each was taken.
    branches: BTreeMap<String, u64>,
}

impl File {
    fn merge(&mut self, other: Self) {
        let common = self.lines.len().min(other.lines.len());
        for (line, own) in self.lines.iter_mut().zip(&other.lines) {
            *line = (*line).max(*own);
        }
        self.lines.extend_from_slice(&other.lines[common..]);
        for (name, hits) in other.branches {
            let own = self.branches.entry(name).or_default();
            *own = own.saturating_add(hits);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Irrelevant,
    Missed,
    Reached,
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Hits(f64),
            Other(IgnoredAny),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Hits(hits) if hits > 0.0 => Self::Reached,
            Written::Hits(_) => Self::Missed,
            Written::Other(_) => Self::Irrelevant,
        })
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = File;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("the lines of a file")
            }

            /// The oldest SimpleCov: the lines alone.
            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<File, S::Error> {
                let mut file = File::default();
                while let Some(line) = seq.next_element()? {
                    file.lines.push(line);
                }
                Ok(file)
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<File, M::Error> {
                let mut file = File::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "lines" => file.lines = map.next_value()?,
                        "branches" => file.branches = map.next_value::<Branches>()?.0,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(file)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `{condition: {branch: hits}}` of a result set, `[{…, "coverage": hits}]` of the formatter.
#[derive(Default)]
struct Branches(BTreeMap<String, u64>);

impl<'de> Deserialize<'de> for Branches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct One {
            #[serde(default)]
            coverage: Option<Line>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Listed(Vec<One>),
            Nested(BTreeMap<String, BTreeMap<String, u64>>),
            Other(IgnoredAny),
        }
        let mut all = BTreeMap::new();
        match Written::deserialize(deserializer)? {
            Written::Listed(list) => {
                for (number, one) in list.into_iter().enumerate() {
                    match one.coverage {
                        Some(Line::Reached) => drop(all.insert(number.to_string(), 1)),
                        Some(Line::Missed) => drop(all.insert(number.to_string(), 0)),
                        Some(Line::Irrelevant) | None => {}
                    }
                }
            }
            Written::Nested(conditions) => {
                for (condition, branches) in conditions {
                    all.extend(
                        branches
                            .into_iter()
                            .map(|(branch, hits)| (format!("{condition} {branch}"), hits)),
                    );
                }
            }
            Written::Other(_) => {}
        }
        Ok(Self(all))
    }
}
