//! Fetching from a host that means harm.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
};

use tokio::time::Duration;

use super::{Error, Repository, remote::Remotes};
use crate::config::{Data, Platform};

const COMMIT: &str = "1234567890123456789012345678901234567890";

/// Answers each request on a connection of its own, until the test's process ends.
fn server(answer: fn(&str, &mut TcpStream) -> std::io::Result<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut line = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                lines.read_line(&mut line).unwrap();
                let mut header = String::new();
                while lines.read_line(&mut header).unwrap_or(0) > 2 {
                    header.clear();
                }
                // Who asked may have gone, which is what the test is about.
                let _ = answer(line.split(' ').nth(1).unwrap_or_default(), &mut stream);
            });
        }
    });
    format!("http://{address}/shop.git")
}

/// A repository of one object without an end: zlib's stored blocks, one after the other.
fn endless(path: &str, stream: &mut TcpStream) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    if path.contains("/info/refs") {
        return writeln!(stream, "{head}{COMMIT}\trefs/heads/main");
    }
    if path.ends_with("/HEAD") {
        return writeln!(stream, "{head}ref: refs/heads/main");
    }
    if !path.ends_with(&COMMIT[2..]) {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    write!(stream, "{head}")?;
    stream.write_all(&[0x78, 0x01])?;
    let block = [&[0x00, 0xff, 0xff, 0x00, 0x00][..], &[b'x'; 0xffff]].concat();
    loop {
        stream.write_all(&block)?;
    }
}

/// Fetches into an empty repository. The error, and the bytes that are left in it.
async fn fetch(url: &str, sources: &str) -> (Error, u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(directory.path().join("bare.git")).unwrap();
    let objects = path.join("objects");
    let repository = Repository::at(path);
    repository.create().await.unwrap();
    let toml = format!("[sources]\nallow = ['127.0.0.1']\n{sources}");
    let platform: Platform = toml::from_str(&toml).unwrap();
    let remotes = Remotes::new(&platform, &Data("/nonexistent".into()));
    let error = repository.fetch(&remotes, url, "main").await.unwrap_err();
    (error, super::size(objects, |file| file.len()).await)
}

#[tokio::test]
async fn a_repository_without_an_end_is_stopped() {
    let url = server(endless);
    let (error, left) = fetch(&url, "most_mib = 2\n").await;
    assert!(matches!(error, Error::TooMuch { limit_mib: 2 }), "{error}");
    assert!(error.is_final());
    assert_eq!(left, 0, "nobody fills the disk by trying again");
}

#[tokio::test]
async fn a_host_that_never_answers_is_left_and_nothing_goes_on() {
    let url = server(|_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    let (error, _) = fetch(&url, "timeout_s = 1\n").await;
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    // git's helper has the URL on its command line: it ends with git.
    let alive = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .any(|line| String::from_utf8_lossy(&line).contains(&url))
    };
    for _ in 0..100 {
        if !alive() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the helper of git goes on");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let url = server(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        )
    });
    let error = fetch(&url, "").await.0.to_string();
    assert!(error.contains("use the URL that it redirects to"), "{error}");
}
