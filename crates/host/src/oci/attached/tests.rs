use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::json;

use super::*;
use crate::{
    layer::Layers,
    oci::{Reach, export, manifest::Packing},
};

fn envelope() -> Value {
    let statement = json!({ "predicateType": "https://slsa.dev/provenance/v1" });
    json!({ "payload": STANDARD.encode(statement.to_string()), "signatures": [] })
}

/// A layout with an image, its bill and a statement about it, and the digest of its manifest.
fn layout(root: &Utf8Path) -> (Layout, Digest) {
    let layers = Layers::open(root).unwrap();
    let to = root.join("layout");
    std::fs::create_dir(&to).unwrap();
    let (bill, envelopes) = (json!({ "spdxVersion": "SPDX-2.3" }), [envelope()]);
    let told = Some((&bill, &envelopes[..]));
    let image = export::write(&layers, &Digest::of("x"), &[], &to, Packing::Plain, None, told).unwrap();
    (Layout::open(&to).unwrap(), image)
}

fn root(work: &tempfile::TempDir) -> &Utf8Path {
    Utf8Path::from_path(work.path()).unwrap()
}

fn kinds(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.kind.as_str()).collect()
}

#[test]
fn a_layout_has_an_image_and_what_is_told_of_it() {
    let work = tempfile::tempdir().unwrap();
    let root = root(&work);
    let (layout, image) = layout(root);
    // What is told of the image is none itself.
    assert_eq!(layout.find(None).unwrap().digest, image);
    let told = read(&layout, &image).unwrap();
    assert_eq!(kinds(&told), [SPDX, ENVELOPE]);
    assert_eq!(told[1].bytes, envelope().to_string().into_bytes());
    assert!(read(&layout, &Digest::of("another")).unwrap().is_empty());
    let index: Value =
        serde_json::from_slice(&std::fs::read(root.join("layout/index.json")).unwrap()).unwrap();
    let entry = &index["manifests"][2];
    assert_eq!(entry["artifactType"], STATEMENT);
    assert_eq!(entry["annotations"][PREDICATE], "https://slsa.dev/provenance/v1");
    let (document, _) = layout.document(entry["digest"].as_str().unwrap()).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let subject =
        json!({ "mediaType": manifest::MANIFEST, "digest": image, "size": index["manifests"][0]["size"] });
    assert_eq!(document["subject"], subject);
    assert_eq!(document["config"]["mediaType"], EMPTY);
    // One that forgot to say what its entries are is read the same.
    let mut plain = index.clone();
    for entry in plain["manifests"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("artifactType");
    }
    std::fs::write(root.join("layout/index.json"), plain.to_string()).unwrap();
    let again = Layout::open(&root.join("layout")).unwrap();
    assert_eq!(again.find(None).unwrap().digest, image);
    // It goes along when the image is copied.
    let (copy, found) = (root.join("copy"), again.find(None).unwrap());
    std::fs::create_dir(&copy).unwrap();
    let (manifest, _) = again.document(&image.to_string()).unwrap();
    export::pull(&again, &found, &manifest, &copy).unwrap();
    assert_eq!(read(&Layout::open(&copy).unwrap(), &image).unwrap(), told);
}

#[test]
fn what_is_damaged_or_of_another_image_is_not_told() {
    let work = tempfile::tempdir().unwrap();
    let (layout, image) = layout(root(&work));
    let blobs = root(&work).join("layout/blobs/sha256");
    let path = blobs.join(Digest::of(envelope().to_string()).hex());
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(read(&layout, &image), Err(Error::Damaged { .. })));
}

#[test]
fn what_would_fill_memory_or_is_something_else_is_not_read() {
    for (from, to, expected) in [
        ("\"size\":2}", "\"size\":99999999999}", None),
        (ENVELOPE, "application/x-chart", Some(&[SPDX][..])),
    ] {
        let work = tempfile::tempdir().unwrap();
        let (layout, image) = layout(root(&work));
        let home = root(&work).join("layout");
        let mut index = std::fs::read_to_string(home.join("index.json")).unwrap();
        for entry in layout.referrers(&image).unwrap() {
            let (document, _) = layout.document(&entry.digest.to_string()).unwrap();
            let document = String::from_utf8(document).unwrap().replace(from, to);
            let digest = Digest::of(&document);
            std::fs::write(home.join(super::super::layout::path_of(&digest)), document).unwrap();
            index = index.replace(&entry.digest.to_string(), &digest.to_string());
        }
        std::fs::write(home.join("index.json"), index).unwrap();
        let told = read(&Layout::open(&home).unwrap(), &image);
        match expected {
            Some(expected) => assert_eq!(kinds(&told.unwrap()), expected),
            None => assert!(matches!(told, Err(Error::TooLarge(_))), "{told:?}"),
        }
    }
}

/// First lines of requests, and their bodies.
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A registry that has every blob and takes every manifest, and what it was asked to do. `lists`: it keeps the list of those
/// that are about an image.
fn registry(lists: bool) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let note = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), lists, &note);
        }
    });
    (address, asked)
}

fn serve(mut stream: TcpStream, lists: bool, note: &Asked) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut text = String::new();
        lines.read_line(&mut text).unwrap();
        text.trim_end().to_owned()
    };
    let first = line();
    let mut length = 0;
    loop {
        let header = line();
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    let status = match first.split(' ').next().unwrap() {
        "HEAD" => "200 OK",
        "PUT" => "201 Created",
        _ => "404 Not Found",
    };
    let is_about = lists && has_subject(&body);
    let subject = if is_about { "OCI-Subject: sha256:x\r\n" } else { "" };
    note.lock().unwrap().push((first, body));
    let answer = format!("HTTP/1.1 {status}\r\n{subject}content-length: 0\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes());
}

#[test]
fn a_registry_that_keeps_no_list_gets_one_under_a_tag() {
    for lists in [true, false] {
        let work = tempfile::tempdir().unwrap();
        let (layout, image) = layout(root(&work));
        let (address, asked) = registry(lists);
        let reference = format!("{address}/acme/shop:v1").parse().unwrap();
        let repository = Repository::open(&reference, None, Reach::Anywhere, true);
        let found = layout.find(None).unwrap();
        export::push(&layout, &root(&work).join("layout"), &found, &repository, "v1").unwrap();
        let asked = asked.lock().unwrap();
        let put = |path: &str| {
            let line = format!("PUT /v2/acme/shop/manifests/{path} HTTP/1.1");
            asked
                .iter()
                .find(|(first, _)| *first == line)
                .map(|(_, body)| body)
        };
        assert!(put("v1").is_some());
        for entry in layout.referrers(&image).unwrap() {
            assert!(put(&entry.digest.to_string()).is_some(), "{entry:?}");
        }
        let list = put(&format!("sha256-{}", image.hex()));
        assert_eq!(list.is_none(), lists);
        if let Some(list) = list {
            let list: Value = serde_json::from_slice(list).unwrap();
            assert_eq!(list["mediaType"], manifest::INDEX);
            assert_eq!(list["manifests"].as_array().unwrap().len(), 2);
            assert_eq!(list["manifests"][0]["artifactType"], SPDX);
        }
    }
}
