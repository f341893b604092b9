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

/// What is told of an image, where nothing of it is missing.
fn all(source: &dyn Source, image: &Digest) -> Vec<Told> {
    let found = read(source, image);
    assert_eq!(found.warning(), None);
    found.all
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
    let told = all(&layout, &image);
    assert_eq!(kinds(&told), [SPDX, ENVELOPE]);
    assert_eq!(told[1].bytes, envelope().to_string().into_bytes());
    assert!(all(&layout, &Digest::of("another")).is_empty());
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
    assert_eq!(export::pull(&again, &found, &manifest, &copy).unwrap(), None);
    assert_eq!(all(&Layout::open(&copy).unwrap(), &image), told);
}

#[test]
fn what_is_damaged_or_missing_is_not_told_and_the_rest_is() {
    let work = tempfile::tempdir().unwrap();
    let (layout, image) = layout(root(&work));
    let blobs = root(&work).join("layout/blobs/sha256");
    let path = blobs.join(Digest::of(envelope().to_string()).hex());
    let (found, (manifest, _)) = (
        layout.find(None).unwrap(),
        layout.document(&image.to_string()).unwrap(),
    );
    for (number, damage) in [Some("{}"), None].into_iter().enumerate() {
        match damage {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let told = read(&layout, &image);
        assert_eq!(kinds(&told.all), [SPDX]);
        let failed = &told.failed[..];
        let right = match damage {
            Some(_) => matches!(failed, [Error::Damaged { .. }]),
            None => matches!(failed, [Error::Missing(_)]),
        };
        assert!(right, "{failed:?}");
        // The image is copied, with what is left.
        let copy = root(&work).join(number.to_string());
        std::fs::create_dir(&copy).unwrap();
        assert!(export::pull(&layout, &found, &manifest, &copy).unwrap().is_some());
        assert_eq!(all(&Layout::open(&copy).unwrap(), &image), told.all);
    }
}

#[test]
fn no_more_is_written_than_is_read() {
    let work = tempfile::tempdir().unwrap();
    let (_, image) = layout(root(&work));
    let to = root(&work).join("many");
    std::fs::create_dir(&to).unwrap();
    let described = Descriptor {
        media_type: manifest::MANIFEST.to_owned(),
        digest: image,
        size: 1,
        annotations: BTreeMap::new(),
        platform: None,
        artifact_type: None,
    };
    let many: Vec<Value> = (0..2000).map(|number| json!({ "payload": number })).collect();
    let writer = Writer::create(&to).unwrap();
    let entries = write(&writer, &described, &json!({}), &many).unwrap();
    writer.finish(described, None, entries).unwrap();
    let layout = Layout::open(&to).unwrap();
    assert_eq!(all(&layout, &image).len(), MOST);
}

#[test]
fn of_an_index_that_names_too_many_no_document_is_read() {
    let work = tempfile::tempdir().unwrap();
    let home = root(&work).join("layout");
    let (layout, image) = layout(root(&work));
    let text = std::fs::read(home.join("index.json")).unwrap();
    let mut index: Value = serde_json::from_slice(&text).unwrap();
    // Nothing but the documents tells the image from the others.
    index["manifests"][0].as_object_mut().unwrap().remove("platform");
    for (more, found) in [(MOST - 1, true), (MOST, false)] {
        let about = layout.referrers(&image).unwrap().remove(0);
        let (document, _) = layout.document(&about.digest.to_string()).unwrap();
        let mut entries = vec![index["manifests"][0].clone()];
        for number in 0..more {
            let text = format!("{}{}", String::from_utf8_lossy(&document), " ".repeat(number));
            let digest = Digest::of(&text);
            std::fs::write(home.join(super::super::layout::path_of(&digest)), &text).unwrap();
            entries.push(json!({ "mediaType": manifest::MANIFEST, "digest": digest, "size": text.len() }));
        }
        let mut index = index.clone();
        index["manifests"] = entries.into();
        std::fs::write(home.join("index.json"), index.to_string()).unwrap();
        let answer = Layout::open(&home).unwrap().find(None);
        assert_eq!(answer.is_ok(), found, "{answer:?}");
    }
}

#[test]
fn what_would_fill_memory_or_is_something_else_is_not_read() {
    for (from, to, expected) in [
        ("\"size\":2}", "\"size\":99999999999}", Err(2)),
        (ENVELOPE, "application/x-chart", Ok(&[SPDX][..])),
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
            Ok(expected) => {
                assert_eq!(kinds(&told.all), expected);
                assert!(told.failed.is_empty(), "{told:?}");
            }
            Err(failed) => {
                let large = told
                    .failed
                    .iter()
                    .filter(|error| matches!(error, Error::TooLarge(_)));
                assert_eq!((large.count(), told.all.len()), (failed, 0), "{told:?}");
            }
        }
    }
}

/// First lines of requests, and their bodies.
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What a registry does with manifests that are about an image.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Keeps {
    /// It keeps the list of them.
    Listed,
    Unlisted,
    /// It takes none, and does not say which it has.
    Nothing,
}

/// A registry that has every blob and takes every manifest of an image, and what it was asked to do.
fn registry(keeps: Keeps) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let note = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), keeps, &note);
        }
    });
    (address, asked)
}

fn serve(mut stream: TcpStream, keeps: Keeps, note: &Asked) {
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
    let is_about = has_subject(&body);
    let status = match (first.split(' ').next().unwrap(), keeps) {
        ("HEAD", _) => "200 OK",
        ("PUT", Keeps::Nothing) if is_about => "400 Bad Request",
        ("PUT", _) => "201 Created",
        (_, Keeps::Nothing) => "403 Forbidden",
        _ => "404 Not Found",
    };
    let is_listed = is_about && keeps == Keeps::Listed;
    let subject = if is_listed {
        "OCI-Subject: sha256:x\r\n"
    } else {
        ""
    };
    note.lock().unwrap().push((first, body));
    let answer = format!("HTTP/1.1 {status}\r\n{subject}content-length: 0\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes());
}

#[test]
fn a_registry_that_keeps_no_list_gets_one_under_a_tag() {
    for keeps in [Keeps::Listed, Keeps::Unlisted] {
        let work = tempfile::tempdir().unwrap();
        let (layout, image) = layout(root(&work));
        let (address, asked) = registry(keeps);
        let reference = format!("{address}/acme/shop:v1").parse().unwrap();
        let repository = Repository::open(&reference, None, Reach::Anywhere, true);
        let found = layout.find(None).unwrap();
        let home = root(&work).join("layout");
        let (_, missing) = export::push(&layout, &home, &found, &repository, "v1").unwrap();
        assert_eq!(missing, None);
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
        assert_eq!(list.is_none(), keeps == Keeps::Listed);
        if let Some(list) = list {
            let list: Value = serde_json::from_slice(list).unwrap();
            assert_eq!(list["mediaType"], manifest::INDEX);
            assert_eq!(list["manifests"].as_array().unwrap().len(), 2);
            assert_eq!(list["manifests"][0]["artifactType"], SPDX);
        }
    }
}

#[test]
fn a_registry_that_refuses_what_is_told_has_the_image() {
    let work = tempfile::tempdir().unwrap();
    let (layout, image) = layout(root(&work));
    let (address, asked) = registry(Keeps::Nothing);
    let reference = format!("{address}/acme/shop:v1").parse().unwrap();
    let repository = Repository::open(&reference, None, Reach::Anywhere, true);
    let (home, found) = (root(&work).join("layout"), layout.find(None).unwrap());
    let (_, missing) = export::push(&layout, &home, &found, &repository, "v1").unwrap();
    assert!(missing.unwrap().contains("400"));
    let line = "PUT /v2/acme/shop/manifests/v1 HTTP/1.1";
    assert!(asked.lock().unwrap().iter().any(|(first, _)| first == line));
    // Nor does it fail who gets the image from there.
    let told = read(&repository, &image);
    assert!(
        told.all.is_empty() && matches!(&told.failed[..], [Error::Denied { .. }]),
        "{told:?}"
    );
}
