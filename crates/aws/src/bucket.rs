//! Buckets: what goes into them, and out of them when they go.

use crate::{
    call,
    client::{Client, Error, Node, Rest},
    sign::{checksum, encoded},
    upload::{PIECE, Upload},
};
use hyper::{Method, body::Bytes};

/// Objects that one call deletes.
const BATCH: usize = 1000;

/// Puts an object where its bucket encrypts it. Templates are small; a source and the receiver are put piece by piece, so that each
/// has its own time, and is sent again alone.
pub async fn put(client: &Client, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
    let bytes = Bytes::from(bytes);
    if bytes.len() > PIECE {
        let mut upload = Upload::begin(client, bucket, key).await?;
        for at in (0..bytes.len()).step_by(PIECE) {
            upload.put(bytes.slice(at..bytes.len().min(at + PIECE))).await?;
        }
        return upload.end().await.map(drop);
    }
    let rest = Rest {
        method: Method::PUT,
        bucket: Some(bucket),
        path: format!("/{}", encoded(key, "/")),
        query: String::new(),
        headers: Vec::new(),
        body: bytes,
    };
    client.rest(&call::PUT_OBJECT, rest).await.map(drop)
}

/// Is there such an object?
pub async fn has(client: &Client, bucket: &str, key: &str) -> Result<bool, Error> {
    let rest = Rest {
        method: Method::HEAD,
        bucket: Some(bucket),
        path: format!("/{}", encoded(key, "/")),
        query: String::new(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    match client.rest(&call::FIND_SOURCE, rest).await {
        Ok(_) => Ok(true),
        // A HEAD has no body, so the status is all there is; S3 says 403 of what is not there to who may not list.
        Err(error) if ["404", "403"].contains(&error.code()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where CloudFormation finds an object.
pub fn url(client: &Client, bucket: &str, key: &str) -> String {
    let end = match client.partition() {
        "aws-cn" => "amazonaws.com.cn",
        _ => "amazonaws.com",
    };
    format!(
        "https://{bucket}.s3.{}.{end}/{}",
        client.region(),
        encoded(key, "/")
    )
}

/// Deletes every version of every object, and uploads that nobody ended. Gives the number of what went; None: there is no
/// such bucket.
pub async fn empty(client: &Client, bucket: &str) -> Result<Option<usize>, Error> {
    let mut gone = 0;
    loop {
        // Always the first page: what was on it is gone the next time.
        let page = match get(client, &call::LIST_VERSIONS, bucket, "max-keys=1000&versions=").await {
            Err(error) if error.code() == "NoSuchBucket" => return Ok(None),
            other => other?,
        };
        let versions = |node: &&Node| node.name == "Version" || node.name == "DeleteMarker";
        let versions: Vec<&Node> = page.children.iter().filter(versions).take(BATCH).collect();
        if versions.is_empty() {
            break;
        }
        delete(client, bucket, &versions).await?;
        gone += versions.len();
    }
    loop {
        // Here too: the first page, until nothing is on it.
        let page = get(client, &call::LIST_UPLOADS, bucket, "uploads=").await?;
        let uploads: Vec<&Node> = page
            .children
            .iter()
            .filter(|node| node.name == "Upload")
            .collect();
        for upload in &uploads {
            abort(client, bucket, upload).await?;
        }
        gone += uploads.len();
        if uploads.is_empty() || page.text("IsTruncated") != "true" {
            break;
        }
    }
    Ok(Some(gone))
}

async fn abort(client: &Client, bucket: &str, upload: &Node) -> Result<(), Error> {
    let rest = Rest {
        method: Method::DELETE,
        bucket: Some(bucket),
        path: format!("/{}", encoded(upload.text("Key"), "/")),
        query: format!("uploadId={}", encoded(upload.text("UploadId"), "")),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    client.rest(&call::ABORT_UPLOAD, rest).await.map(drop)
}

/// Is there such a bucket?
pub async fn is_there(client: &Client, bucket: &str) -> Result<bool, Error> {
    match get(client, &call::LIST_VERSIONS, bucket, "max-keys=1&versions=").await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == "NoSuchBucket" => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes every version of one object; one that is not there is as good.
pub async fn erase(client: &Client, bucket: &str, key: &str) -> Result<(), Error> {
    let query = format!("max-keys=1000&prefix={}&versions=", encoded(key, ""));
    let page = get(client, &call::LIST_VERSIONS, bucket, &query).await?;
    let versions = |node: &&Node| {
        let is_one = node.name == "Version" || node.name == "DeleteMarker";
        is_one && node.text("Key") == key
    };
    let versions: Vec<&Node> = page.children.iter().filter(versions).collect();
    match versions.is_empty() {
        true => Ok(()),
        false => delete(client, bucket, &versions).await,
    }
}

/// Deletes an empty bucket; one that is gone is as good.
pub async fn remove(client: &Client, bucket: &str) -> Result<(), Error> {
    let rest = Rest {
        method: Method::DELETE,
        bucket: Some(bucket),
        path: "/".into(),
        query: String::new(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    match client.rest(&call::DELETE_BUCKET, rest).await {
        Err(error) if error.code() == "NoSuchBucket" => Ok(()),
        other => other.map(drop),
    }
}

async fn get(client: &Client, call: &call::Call, bucket: &str, query: &str) -> Result<Node, Error> {
    let rest = Rest {
        method: Method::GET,
        bucket: Some(bucket),
        path: "/".into(),
        query: query.to_owned(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    let answer = client.rest(call, rest).await?;
    Node::parse(&answer.body).ok_or(Error::Answer {
        service: call.service,
        operation: call.operation,
    })
}

async fn delete(client: &Client, bucket: &str, versions: &[&Node]) -> Result<(), Error> {
    let escape = |text: &str| quick_xml::escape::escape(text).into_owned();
    let object = |node: &&Node| {
        // A key may begin or end with a blank, which is part of it.
        let key = node.get("Key").map_or("", |key| key.text.as_str());
        let (key, version) = (escape(key), escape(node.text("VersionId")));
        format!("<Object><Key>{key}</Key><VersionId>{version}</VersionId></Object>")
    };
    let objects: String = versions.iter().map(object).collect();
    let body = format!("<Delete><Quiet>true</Quiet>{objects}</Delete>");
    let rest = Rest {
        method: Method::POST,
        bucket: Some(bucket),
        path: "/".into(),
        query: "delete=".into(),
        headers: vec![
            ("content-type".into(), "application/xml".into()),
            ("x-amz-checksum-sha256".into(), checksum(body.as_bytes())),
        ],
        body: body.into(),
    };
    client.rest(&call::DELETE_OBJECTS, rest).await.map(drop)
}
