//! One call of git's own http-backend, a CGI program (RFC 3875), streamed both ways.
//!
//! The child belongs to a task that outlives the caller's connection: whether a push was received is decided by git,
//! not by whether somebody was still listening when it ended.

use std::{io, process::Stdio, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use futures_util::{StreamExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::mpsc,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::repository::{Repositories, isolated};

/// How long nothing may move in either direction.
const IDLE: Duration = Duration::from_secs(120);
/// The whole of one call.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Of a pack, as git counts it, and of a request, as we count it.
pub const MAX_PUSH_BYTES: u64 = 1 << 30;
/// Of the CGI answer's header.
const MAX_HEADER_BYTES: u64 = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    UploadPack,
    ReceivePack,
}

/// What is asked of the backend.
#[derive(Debug)]
pub struct Call {
    pub service: Service,
    /// `GET info/refs` instead of `POST git-…-pack`.
    pub advertise: bool,
    /// `/acme/shop.git`
    pub repository: String,
    pub content_type: Option<String>,
    pub content_length: Option<u64>,
    pub content_encoding: Option<String>,
    /// The `Git-Protocol` header.
    pub protocol: Option<String>,
    /// As the ledger writes the caller.
    pub actor: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("git http-backend could not be run")]
    Run(#[source] io::Error),
    #[error("git http-backend gave no answer: {0}")]
    Silent(String),
}

/// What is done after git has received a push: gives the lines that the pusher shall read.
pub type After = Box<dyn FnOnce() -> BoxFuture<'static, Vec<String>> + Send>;

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }
}

/// Runs the call. The answer's body streams while the backend works; `after` runs when git has ended well, before
/// the body ends.
pub async fn run(
    repositories: &Repositories,
    call: Call,
    body: Body,
    after: Option<After>,
    tasks: &TaskTracker,
) -> Result<Response, Error> {
    let mut child = spawn(repositories, &call)?;
    let stdin = child.stdin.take().expect("stdin is piped");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let (send_head, head) = tokio::sync::oneshot::channel();
    let (send, receive) = mpsc::channel(4);
    tasks.spawn(async move {
        let group = Group(child.id());
        let work = converse(child, stdin, stdout, body, send_head, send, after);
        if timeout(DEADLINE, work).await.is_err() {
            tracing::warn!("a call of git http-backend took too long and was ended");
        }
        drop(group);
    });
    let (status, headers) = match timeout(IDLE, head).await {
        Ok(Ok(head)) => head?,
        Ok(Err(_)) => return Err(Error::Silent("it ended".into())),
        Err(_) => return Err(Error::Silent("it took too long".into())),
    };
    let stream = tokio_stream(receive);
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    Ok(response)
}

type Head = (StatusCode, Vec<(HeaderName, HeaderValue)>);

fn tokio_stream(
    mut receive: mpsc::Receiver<io::Result<Bytes>>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::poll_fn(move |context| receive.poll_recv(context))
}

/// Ends the whole process group of the backend when dropped: git's children too.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self
            .0
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // Nobody is left in it in the good case.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

fn spawn(repositories: &Repositories, call: &Call) -> Result<Child, Error> {
    let limit = MAX_PUSH_BYTES.to_string();
    let receive = match call.service {
        Service::ReceivePack => "true",
        Service::UploadPack => "false",
    };
    let config = [
        ("http.receivepack", receive),
        ("http.uploadpack", "true"),
        ("http.getanyfile", "false"),
        ("transfer.fsckObjects", "true"),
        // Old, harmless mistakes that are in many public histories.
        ("receive.fsck.zeroPaddedFilemode", "warn"),
        ("receive.fsck.missingSpaceBeforeDate", "warn"),
        ("receive.fsck.badTimezone", "warn"),
        ("receive.maxInputSize", &limit),
        ("receive.denyNonFastForwards", "false"),
        ("receive.advertisePushOptions", "false"),
        ("transfer.hideRefs", "refs/vend"),
        ("gc.autoDetach", "false"),
        ("maintenance.autoDetach", "false"),
        ("pack.threads", "1"),
        ("pack.windowMemory", "64m"),
        ("uploadpack.allowFilter", "true"),
    ];
    let mut command = isolated(&config);
    let (method, path) = match call.advertise {
        true => ("GET", "info/refs"),
        false => ("POST", call.service.name()),
    };
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", repositories.root())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("{}/{path}", call.repository))
        .env("REQUEST_METHOD", method)
        .env("REMOTE_USER", &call.actor)
        .env("GATEWAY_INTERFACE", "CGI/1.1")
        .current_dir("/");
    if call.advertise {
        command.env("QUERY_STRING", format!("service={}", call.service.name()));
    }
    let optional = [
        ("CONTENT_TYPE", call.content_type.clone()),
        ("CONTENT_LENGTH", call.content_length.map(|n| n.to_string())),
        ("HTTP_CONTENT_ENCODING", call.content_encoding.clone()),
        ("GIT_PROTOCOL", call.protocol.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)
}

async fn converse(
    mut child: Child,
    stdin: ChildStdin,
    mut stdout: BufReader<ChildStdout>,
    body: Body,
    send_head: tokio::sync::oneshot::Sender<Result<Head, Error>>,
    send: mpsc::Sender<io::Result<Bytes>>,
    after: Option<After>,
) {
    let stderr = child.stderr.take().expect("stderr is piped");
    let complaints = read_some(stderr);
    let answer = async {
        let head = match timeout(IDLE, read_head(&mut stdout)).await {
            Ok(head) => head.map_err(|error| Error::Silent(error.to_string())),
            Err(_) => Err(Error::Silent("it took too long".into())),
        };
        let good = head.as_ref().is_ok_and(|(status, _)| status.is_success());
        // Nobody waits any more: go on all the same, the push may be half received.
        let _ = send_head.send(head);
        let held = copy_body(&mut stdout, &send).await;
        (good, held)
    };
    let (fed, (good, held), complaints) = tokio::join!(feed(stdin, body), answer, complaints);
    let ended = timeout(IDLE, child.wait()).await;
    let well = good && matches!(&ended, Ok(Ok(status)) if status.success());
    if !well {
        tracing::info!(complaints, fed = ?fed.err(), "git http-backend refused or failed");
    }
    let lines = match after {
        Some(after) if well => after().await,
        _ => Vec::new(),
    };
    let tail = match held {
        Ok(held) => Ok(held.finish(&lines)),
        Err(error) => Err(error),
    };
    // The listener may be gone.
    let _ = send.send(tail).await;
}

/// The request's body into the backend. Ends its stdin in any case, so that git sees a cut-off push as cut off.
async fn feed(mut stdin: ChildStdin, body: Body) -> io::Result<()> {
    let mut chunks = body.into_data_stream();
    let mut total = 0;
    let slow = |_| io::Error::from(io::ErrorKind::TimedOut);
    while let Some(chunk) = timeout(IDLE, chunks.next()).await.map_err(slow)? {
        let chunk = chunk.map_err(io::Error::other)?;
        total += chunk.len() as u64;
        if total > MAX_PUSH_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        timeout(IDLE, stdin.write_all(&chunk)).await.map_err(slow)??;
    }
    stdin.shutdown().await
}

/// The CGI header: fields up to an empty line, `Status` among them when it is not 200.
async fn read_head(stdout: &mut BufReader<ChildStdout>) -> io::Result<Head> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut status = StatusCode::OK;
    let mut headers = Vec::new();
    let mut limited = stdout.take(MAX_HEADER_BYTES);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line).await? == 0 {
            return Err(bad("it ended before its header did"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("not a header field"))?;
        if name.eq_ignore_ascii_case("status") {
            let code = value.trim().get(..3).and_then(|code| code.parse().ok());
            status = code.ok_or_else(|| bad("not a status"))?;
        } else {
            let name = name.parse().map_err(|_| bad("not a header name"))?;
            let value = value.trim().parse().map_err(|_| bad("not a header value"))?;
            headers.push((name, value));
        }
    }
}

/// The end of the answer, held back: in a side band, git's last word is a flush packet, and ours goes before it.
#[derive(Default)]
struct Held {
    tail: Vec<u8>,
    sidebanded: bool,
}

impl Held {
    const FLUSH: &'static [u8] = b"0000";

    /// The bytes that are certainly not the last four.
    fn pass(&mut self, bytes: &[u8]) -> Bytes {
        self.tail.extend_from_slice(bytes);
        let keep = self.tail.len().saturating_sub(Self::FLUSH.len());
        self.tail.drain(..keep).collect()
    }

    /// The last bytes, with `lines` before them where the protocol has a place for them (gitprotocol-pack(5),
    /// "side-band-64k": band 2 is shown to the user).
    fn finish(self, lines: &[String]) -> Bytes {
        let mut end = Vec::new();
        if self.sidebanded && self.tail == Self::FLUSH {
            for line in lines {
                let line = &line[..line.floor_char_boundary(900)];
                end.extend_from_slice(format!("{:04x}\x02{line}\n", line.len() + 6).as_bytes());
            }
        }
        end.extend_from_slice(&self.tail);
        end.into()
    }
}

async fn copy_body(
    stdout: &mut BufReader<ChildStdout>,
    send: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<Held> {
    let mut held = Held::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut first = true;
    let mut listening = true;
    loop {
        let length = timeout(DEADLINE, stdout.read(&mut buffer)).await??;
        if length == 0 {
            return Ok(held);
        }
        if std::mem::take(&mut first) {
            held.sidebanded = length > 4 && matches!(buffer[4], 1 | 2);
        }
        let bytes = held.pass(&buffer[..length]);
        if listening && !bytes.is_empty() {
            listening = matches!(timeout(IDLE, send.send(Ok(bytes))).await, Ok(Ok(())));
        }
    }
}

/// The first part of what a stream says; the rest is read and dropped.
async fn read_some(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    // A complaint that cannot be read is no complaint.
    let _ = (&mut stream).take(4096).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_before_the_last_flush_of_a_side_band_only() {
        let whole = |sidebanded, chunks: &[&[u8]]| {
            let mut held = Held {
                sidebanded,
                ..Held::default()
            };
            let mut out: Vec<u8> = chunks.iter().flat_map(|chunk| held.pass(chunk)).collect();
            out.extend(held.finish(&["hello".into()]));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            whole(true, &[b"0009\x01ab", b"cd00", b"00"]),
            "0009\x01abcd000b\x02hello\n0000"
        );
        assert_eq!(whole(false, &[b"000eunpack ok\n0000"]), "000eunpack ok\n0000");
        assert_eq!(whole(true, &[b"ab"]), "ab");
    }
}
