//! Objects that are too large for one call: put piece by piece, so that no more than a piece is ever in memory.

use hyper::{Method, body::Bytes};

use crate::{
    call::{self, Call},
    client::{Client, Error, Node, Rest, http::Answer},
    sign::encoded,
};

/// Bytes of a piece. S3 takes 10,000 of them, which is 156 GiB; all but the last have 5 MiB at least.
pub const PIECE: usize = 16 << 20;

/// An upload under way. One that nobody ends is ended by the bucket's lifecycle.
pub struct Upload<'c> {
    client: &'c Client,
    bucket: &'c str,
    key: &'c str,
    id: String,
    tags: Vec<String>,
}

impl<'c> Upload<'c> {
    pub async fn begin(client: &'c Client, bucket: &'c str, key: &'c str) -> Result<Self, Error> {
        let upload = Self {
            client,
            bucket,
            key,
            id: String::new(),
            tags: Vec::new(),
        };
        let answer = upload
            .call(&call::BEGIN_UPLOAD, Method::POST, "uploads=".into(), Bytes::new())
            .await?;
        let id = Node::parse(&answer.body).map(|node| node.text("UploadId").to_owned());
        let id = id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| unreadable(&call::BEGIN_UPLOAD))?;
        Ok(Self { id, ..upload })
    }

    /// The next piece.
    pub async fn put(&mut self, piece: Bytes) -> Result<(), Error> {
        let query = format!(
            "partNumber={}&uploadId={}",
            self.tags.len() + 1,
            encoded(&self.id, "")
        );
        let answer = self.call(&call::PUT_PIECE, Method::PUT, query, piece).await?;
        let tag = answer.headers.get("etag").and_then(|tag| tag.to_str().ok());
        self.tags
            .push(tag.ok_or_else(|| unreadable(&call::PUT_PIECE))?.to_owned());
        Ok(())
    }

    /// The object is there from now on. Gives its version.
    pub async fn end(self) -> Result<String, Error> {
        let part = |(number, tag): (usize, &String)| {
            let tag = quick_xml::escape::escape(tag.as_str());
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        };
        let parts: String = (1..).zip(&self.tags).map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let query = format!("uploadId={}", encoded(&self.id, ""));
        let answer = self
            .call(&call::END_UPLOAD, Method::POST, query, body.into())
            .await?;
        let version = answer.headers.get("x-amz-version-id");
        let version = version.and_then(|version| version.to_str().ok());
        version
            .map(str::to_owned)
            .ok_or_else(|| unreadable(&call::END_UPLOAD))
    }

    async fn call(&self, call: &Call, method: Method, query: String, body: Bytes) -> Result<Answer, Error> {
        let rest = Rest {
            method,
            bucket: Some(self.bucket),
            path: format!("/{}", encoded(self.key, "/")),
            query,
            headers: Vec::new(),
            body,
        };
        self.client.rest(call, rest).await
    }
}

fn unreadable(call: &Call) -> Error {
    Error::Answer {
        service: call.service,
        operation: call.operation,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, sync::mpsc};

    use super::*;
    use crate::{bucket, fixtures};

    /// A store that takes what is put in pieces, and tells of each call: its line, and how many bytes came with it.
    fn store() -> (Client, mpsc::Receiver<(String, usize)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (told, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (first, body) = fixtures::asked(&stream);
                let call = first.rsplit_once(' ').unwrap().0.to_owned();
                if told.send((call, body.len())).is_err() {
                    return;
                }
                let body = "<Result><UploadId>u</UploadId></Result>";
                let head = "HTTP/1.1 200 OK\r\nETag: \"t\"\r\nx-amz-version-id: 1\r\nConnection: close\r\n";
                let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (Client::at(address), asked)
    }

    /// One call's time is not shared by all the bytes of a source.
    #[tokio::test]
    async fn what_is_large_is_put_piece_by_piece() {
        let (client, asked) = store();
        bucket::put(&client, "b", "k", vec![0; 2 * PIECE + 5])
            .await
            .unwrap();
        bucket::put(&client, "b", "k", vec![0; PIECE]).await.unwrap();
        let asked: Vec<(String, usize)> = asked.try_iter().collect();
        let parts = &asked[1..4];
        assert_eq!(asked[0].0, "POST /b/k?uploads=");
        for (number, (call, bytes)) in (1..).zip(parts) {
            assert_eq!(*call, format!("PUT /b/k?partNumber={number}&uploadId=u"));
            assert_eq!(*bytes, if number < 3 { PIECE } else { 5 });
        }
        assert_eq!(asked[4].0, "POST /b/k?uploadId=u");
        assert_eq!(asked[5], ("PUT /b/k".to_owned(), PIECE));
    }
}
