//! The items of a distributed Map: objects read, texts parsed. Pure: it says what it wants and is given it.

use crate::fault;
use crate::limit;
use crate::machine::Format;
use crate::run::Failure;
use crate::size;
use jsonata::json;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::io::Read;

/// Something that [`Reading`] wants to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// The bytes of an object. The parameters are those of S3's GetObject: `Bucket`, `Key`, perhaps `VersionId`.
    Object { parameters: Value },
    /// One page of the objects of a bucket. The parameters are those of S3's ListObjectsV2: `Bucket`, perhaps `Prefix`,
    /// and from the second page on `ContinuationToken`.
    Listing { parameters: Value },
}

/// What it is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Object(Vec<u8>),
    Listing {
        /// With S3's names: `Key`, `Size`, `Etag`, `LastModified`, `StorageClass`.
        objects: Vec<Value>,
        /// Where the next page begins, if there is one.
        next: Option<String>,
    },
}

/// Items on their way: as long as it [wants](Reading::wants) something, give it the [answer](Reading::take).
#[derive(Debug)]
pub struct Reading {
    format: Format,
    parameters: Value,
    /// Items at most.
    most: usize,
    /// Bytes of what grows as it is read: see [`limit::TABLES`].
    room: usize,
    wants: VecDeque<Request>,
    /// The columns of the objects that a manifest names.
    schema: Option<Vec<String>>,
    items: Vec<Value>,
}

impl Reading {
    pub(crate) fn new(format: Format, parameters: Value, most: usize) -> Self {
        let parameters_of = parameters.clone();
        let first = match format {
            Format::List => Request::Listing {
                parameters: parameters_of,
            },
            _ => Request::Object {
                parameters: parameters_of,
            },
        };
        Self {
            format,
            parameters,
            most,
            room: limit::TABLES,
            wants: VecDeque::from([first]),
            schema: None,
            items: Vec::new(),
        }
    }

    /// The same reading with less of it: `most` items, and `room` for those of tables.
    pub(crate) fn within(self, most: usize, room: usize) -> Self {
        Self {
            most: self.most.min(most),
            room: self.room.min(room),
            ..self
        }
    }

    /// What is wanted next; `None` when all has been read.
    pub fn wants(&self) -> Option<&Request> {
        self.wants.front()
    }

    /// Takes the answer to what is wanted.
    ///
    /// # Errors
    /// What was read cannot be made into items, or into too many.
    pub fn take(&mut self, answer: Answer) -> Result<(), Failure> {
        let Some(request) = self.wants.pop_front() else {
            return Ok(());
        };
        match (answer, request) {
            (Answer::Listing { objects, next }, Request::Listing { mut parameters }) => {
                self.add(objects.into_iter())?;
                if let Some(next) = next.filter(|_| self.items.len() < self.most) {
                    parameters["ContinuationToken"] = next.into();
                    self.wants.push_back(Request::Listing { parameters });
                }
                Ok(())
            }
            (Answer::Object(bytes), Request::Object { .. }) => {
                if bytes.len() > limit::OBJECT {
                    return Err(failed(format!(
                        "The object has {} bytes, {} are allowed.",
                        bytes.len(),
                        limit::OBJECT
                    )));
                }
                self.object(bytes)
            }
            _ => Err(failed("The answer does not fit what was asked for.")),
        }
    }

    pub(crate) fn items(self) -> Vec<Value> {
        self.items
    }

    fn object(&mut self, bytes: Vec<u8>) -> Result<(), Failure> {
        if let Some(schema) = self.schema.clone() {
            let bytes = inflated(bytes)?;
            return self.rows(&bytes, Some(schema), b',');
        }
        match self.format.clone() {
            Format::Json { pointer } => self.json(&bytes, &pointer),
            Format::JsonLines => self.lines(&bytes),
            Format::Csv { headers, delimiter } => self.rows(&bytes, headers, delimiter),
            Format::Manifest => self.manifest(&bytes),
            Format::List => Err(failed("The answer does not fit what was asked for.")),
        }
    }

    fn json(&mut self, bytes: &[u8], pointer: &str) -> Result<(), Failure> {
        let mut document = parsed(bytes)?;
        let found = document.pointer_mut(pointer).map(Value::take).ok_or_else(|| {
            failed(format!(
                "The items pointer '{pointer}' does not point to anything."
            ))
        })?;
        match found {
            Value::Array(items) => self.add(items.into_iter()),
            _ => Err(failed("Attempting to map over non-iterable node.")),
        }
    }

    fn lines(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for line in bytes.split(|byte| *byte == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if self.items.len() >= self.most {
                break;
            }
            self.add(std::iter::once(parsed(line)?))?;
        }
        Ok(())
    }

    /// Rows by the names of their columns; without `headers` the first row has them.
    fn rows(&mut self, bytes: &[u8], headers: Option<Vec<String>>, delimiter: u8) -> Result<(), Failure> {
        let text = std::str::from_utf8(bytes).map_err(|_| failed("The object is not UTF-8."))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(text.as_bytes());
        let mut rows = reader.records();
        let unreadable = |error: csv::Error| failed(format!("The object is not CSV: {error}"));
        let headers = match headers {
            Some(headers) => headers,
            None => match rows.next() {
                None => return Ok(()),
                Some(row) => row.map_err(unreadable)?.iter().map(str::to_owned).collect(),
            },
        };
        let mut sorted: Vec<_> = headers.iter().collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(failed("CSV headers cannot contain duplicates."));
        }
        // Every row has all names, whatever its own length.
        let names = headers.iter().map(|name| name.len() + limit::CELL).sum::<usize>();
        for row in rows {
            if self.items.len() >= self.most {
                break;
            }
            let row = row.map_err(unreadable)?;
            self.charge(names + row.as_slice().len())?;
            let cells = headers.iter().enumerate();
            let cells = cells.map(|(at, name)| (name.clone(), row.get(at).unwrap_or_default().into()));
            let item = Value::Object(cells.collect::<Map<_, _>>());
            self.add(std::iter::once(item))?;
        }
        Ok(())
    }

    /// An inventory of S3: the objects that it names are tables without headers.
    fn manifest(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let manifest = parsed(bytes)?;
        if manifest["fileFormat"] != "CSV" {
            return Err(failed(format!(
                "The file format {} of the manifest is not supported.",
                manifest["fileFormat"]
            )));
        }
        let schema = manifest["fileSchema"].as_str().unwrap_or_default();
        self.schema = Some(schema.split(',').map(|name| name.trim().to_owned()).collect());
        let files = manifest["files"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let each = size::within(&self.parameters, usize::MAX, usize::MAX).unwrap_or_default();
        for file in files {
            self.charge(each + limit::CELL)?;
            let mut parameters = self.parameters.clone();
            parameters["Key"] = file["key"].clone();
            if let Some(fields) = parameters.as_object_mut() {
                fields.shift_remove("VersionId");
            }
            self.wants.push_back(Request::Object { parameters });
        }
        Ok(())
    }

    /// Pays for something whose size is not that of the text that it is read from.
    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or_default();
        left.map(drop)
            .ok_or_else(|| failed("The items of the table are too large together."))
    }

    /// There was no room for what was to be read.
    pub(crate) fn is_full(&self) -> bool {
        self.room == 0
    }

    /// As many as still fit.
    fn add(&mut self, items: impl Iterator<Item = Value>) -> Result<(), Failure> {
        let room = self.most.saturating_sub(self.items.len());
        for item in items.take(room) {
            if self.items.len() == limit::ITEMS {
                return Err(failed(format!("There are more than {} items.", limit::ITEMS)));
            }
            self.items.push(item);
        }
        if self.items.len() >= self.most {
            self.wants.clear();
        }
        Ok(())
    }
}

fn parsed(bytes: &[u8]) -> Result<Value, Failure> {
    json::read(bytes).map_err(|error| failed(format!("The object is not JSON: {error}")))
}

/// Inventories are compressed; those that are not are taken as they are.
fn inflated(bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]).take(limit::OBJECT as u64 + 1);
    reader
        .read_to_end(&mut text)
        .map_err(|error| failed(format!("The object is not compressed as gzip: {error}")))?;
    if text.len() > limit::OBJECT {
        return Err(failed("The object is too large when it is decompressed."));
    }
    Ok(text)
}

fn failed(cause: impl Into<String>) -> Failure {
    Failure {
        error: fault::ITEM_READER.into(),
        cause: cause.into(),
    }
}

#[cfg(test)]
mod tests;
