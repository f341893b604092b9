use super::*;
use serde_json::json;

fn read(format: Format, most: usize, objects: &[&[u8]]) -> Result<Vec<Value>, String> {
    let mut reading = Reading::new(format, json!({ "Bucket": "b", "Key": "k" }), most);
    let mut objects = objects.iter();
    while reading.wants().is_some() {
        let bytes = objects.next().unwrap().to_vec();
        reading
            .take(Answer::Object(bytes))
            .map_err(|failure| failure.cause)?;
    }
    Ok(reading.items())
}

fn csv(headers: Option<&[&str]>) -> Format {
    let headers = headers.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    Format::Csv {
        headers,
        delimiter: b',',
    }
}

#[test]
fn tables() {
    let text = b"\xef\xbb\xbfa,b\r\n1,\"x, \"\"y\"\"\n z\"\r\n\r\n2\n3,4,5\n";
    let rows = json!([{ "a": "1", "b": "x, \"y\"\n z" }, { "a": "2", "b": "" }, { "a": "3", "b": "4" }]);
    assert_eq!(read(csv(None), usize::MAX, &[text]).map(Value::from), Ok(rows));
    assert_eq!(
        read(csv(Some(&["h"])), 1, &[b"1,2\n3,4"]),
        Ok(vec![json!({ "h": "1" })])
    );
    assert_eq!(
        read(csv(Some(&["h", "h"])), 1, &[b"1,2"]),
        Err("CSV headers cannot contain duplicates.".into())
    );
    assert_eq!(read(csv(None), 1, &[b""]), Ok(vec![]));
    assert!(read(csv(None), 1, &[b"a\n\xff\n"]).is_err());
    let tabs = Format::Csv {
        headers: None,
        delimiter: b'\t',
    };
    assert_eq!(
        read(tabs, 9, &[b"a\tb\n1\t2"]),
        Ok(vec![json!({ "a": "1", "b": "2" })])
    );
}

/// A short text may be a large table: every row has all columns.
#[test]
fn tables_have_a_limit() {
    let names: Vec<String> = (0..3_200).map(|at| format!("c{at}")).collect();
    let wide = format!("{}\n{}", names.join(","), "x\n".repeat(100));
    let all = || Reading::new(csv(None), json!({}), usize::MAX);
    assert_eq!(all().room, limit::TABLES);
    let read = |mut reading: Reading| {
        let taken = reading.take(Answer::Object(wide.clone().into_bytes()));
        (taken.is_ok(), reading.is_full(), reading.items().len())
    };
    assert_eq!(read(all().within(usize::MAX, 1 << 20)), (false, true, 4));
    assert_eq!(read(all().within(2, 1 << 20)), (true, false, 2));
    assert_eq!(read(all()), (true, false, 100));
    let manifest = json!({ "fileFormat": "CSV", "fileSchema": "a", "files": vec![1; 1_000] });
    let parameters = json!({ "Bucket": "b".repeat(100_000) });
    let mut reading = Reading::new(Format::Manifest, parameters, usize::MAX).within(9, 1 << 20);
    assert!(
        reading
            .take(Answer::Object(manifest.to_string().into_bytes()))
            .is_err()
    );
}

#[test]
fn documents() {
    let json = |pointer: &str| Format::Json {
        pointer: pointer.into(),
    };
    assert_eq!(
        read(json(""), 2, &[b"[1, 2.50, 3]"]),
        Ok(vec![json!(1), "2.50".parse().unwrap()])
    );
    assert_eq!(
        read(json("/a/b"), 9, &[br#"{"a": {"b": [true]}}"#]),
        Ok(vec![json!(true)])
    );
    assert_eq!(
        read(json(""), 9, &[br#"{"a": 1}"#]),
        Err("Attempting to map over non-iterable node.".into())
    );
    assert!(read(json("/c"), 9, &[b"{}"]).is_err());
    assert!(read(json(""), 9, &[b"[1"]).is_err());
    assert_eq!(
        read(Format::JsonLines, 2, &[b"{\"a\":1}\r\n\n2\nnot reached"]),
        Ok(vec![json!({ "a": 1 }), json!(2)])
    );
    assert!(read(Format::JsonLines, 3, &[b"1\nnot JSON"]).is_err());
}

#[test]
fn an_inventory_names_the_objects_with_the_items() {
    use std::io::Write;
    let manifest = json!({ "fileFormat": "CSV", "fileSchema": "Bucket, Key", "files": [{ "key": "1.csv.gz" }, { "key": "2.csv" }] });
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"\"b\",\"one\"\n").unwrap();
    let found = read(
        Format::Manifest,
        usize::MAX,
        &[
            manifest.to_string().as_bytes(),
            &packed.finish().unwrap(),
            b"b,two\n",
        ],
    );
    assert_eq!(
        found.map(Value::from),
        Ok(json!([{ "Bucket": "b", "Key": "one" }, { "Bucket": "b", "Key": "two" }]))
    );
}

#[test]
fn a_bomb_is_refused() {
    use std::io::Write;
    let manifest = json!({ "fileFormat": "CSV", "fileSchema": "a", "files": [{ "key": "1" }] });
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..=limit::OBJECT / zeros.len() {
        packed.write_all(&zeros).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1024 * 1024);
    let found = read(Format::Manifest, 9, &[manifest.to_string().as_bytes(), &packed]);
    assert_eq!(
        found,
        Err("The object is too large when it is decompressed.".into())
    );
}

#[test]
fn listings_go_on_from_page_to_page() {
    let mut reading = Reading::new(Format::List, json!({ "Bucket": "b" }), 3);
    let page = |keys: &[&str], next: Option<&str>| Answer::Listing {
        objects: keys.iter().map(|key| json!({ "Key": key })).collect(),
        next: next.map(str::to_owned),
    };
    reading.take(page(&["1", "2"], Some("more"))).unwrap();
    let wanted = Request::Listing {
        parameters: json!({ "Bucket": "b", "ContinuationToken": "more" }),
    };
    assert_eq!(reading.wants(), Some(&wanted));
    reading.take(page(&["3", "4"], Some("still more"))).unwrap();
    assert_eq!(reading.wants(), None);
    assert_eq!(
        Value::from(reading.items()),
        json!([{ "Key": "1" }, { "Key": "2" }, { "Key": "3" }])
    );
}
