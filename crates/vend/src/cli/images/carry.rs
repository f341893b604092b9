//! Images in and out of registries and files. Registries are asked from here, as whoever types.

use std::{
    fs,
    io::{self, Read as _},
};

use axum::http::HeaderMap;
use camino::Utf8Path;
use host::oci::{
    self, Reach, Source as _, export,
    layout::Layout,
    registry::{Login, Repository},
};
use model::{
    Digest, Secret,
    spec::{Base, Reference},
    wire::Imported,
};
use serde::Serialize;

use super::{Global, name::Name};
use crate::cli::{
    Failure,
    parcel::{Parcel, fetch, local, unpack},
};
use crate::{output::clean, web::STATEMENTS};

/// An archive of a layout: a few large files.
static ARCHIVE: host::tree::Limits = host::tree::Limits {
    entries: 5_000,
    total_bytes: 64 << 30,
    file_bytes: 32 << 30,
};

/// Streams an export into a file; or through one into a directory.
pub async fn exported(
    image: &Name,
    query: &str,
    alone: bool,
    (to, force): (&Utf8Path, bool),
    global: &Global,
) -> Result<(), Failure> {
    let limits = &ARCHIVE;
    let parcel = Parcel { to, force, limits };
    parcel.is_free()?;
    let client = global.client()?;
    let image = image.resolve(&client).await?;
    let said = parcel.take(&path(&image, query, alone), &client).await?;
    let statements = gone_with(&said, alone);
    let exported = Exported {
        image,
        to,
        statements,
    };
    global
        .output()
        .show(&exported, |exported| format!("{to} holds {}\n", exported.image));
    Ok(())
}

/// What was written, for programs.
#[derive(Serialize)]
struct Exported<'a> {
    image: Digest,
    to: &'a Utf8Path,
    /// How many signed statements about it are with it. Absent: it went alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    statements: Option<usize>,
}

/// How many signed statements went with an image that was not to go alone; warns when it was none.
fn gone_with(said: &HeaderMap, alone: bool) -> Option<usize> {
    let statements = (!alone).then(|| statements(said))?;
    if let Some(warning) = warning(statements) {
        eprintln!("{warning}");
    }
    Some(statements)
}

/// How many signed statements an export has, as the platform says with it.
fn statements(said: &HeaderMap) -> usize {
    let count = said.get(STATEMENTS).and_then(|count| count.to_str().ok());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Said of an image with which no statement goes.
fn warning(statements: usize) -> Option<&'static str> {
    (statements == 0).then_some(
        "warning: the platform has signed nothing about this image for the app whose names it has: its bill of materials goes \
         with it, and no statement",
    )
}

fn path(image: &Digest, query: &str, alone: bool) -> String {
    format!("/v1/images/{image}/export?{query}&alone={alone}")
}

const IMPORTS: &str = "vend images import FILE.tar, DIRECTORY or oci:REGISTRY/NAME:TAG";

/// Refuses what cannot be a layout before a byte of it goes anywhere, and shows nothing of what is in it.
fn is_layout(from: &Utf8Path) -> Result<(), Failure> {
    let unreadable = |error: io::Error| {
        Failure::failed(format!("{from} cannot be read"))
            .cause(error.to_string())
            .next(IMPORTS)
    };
    let wrong = |why: &str| {
        Failure::usage(format!("{from} is no image"))
            .cause(why)
            .next(IMPORTS)
    };
    if from.metadata().map_err(unreadable)?.is_dir() {
        return match from.join("index.json").is_file() {
            true => Ok(()),
            false => Err(wrong(
                "a directory of an OCI layout has a file index.json, and this has none",
            )),
        };
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let file = fs::File::open(from).map_err(unreadable)?;
    file.take(HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(unreadable)?;
    match is_tar(&header) {
        true => Ok(()),
        false if header.starts_with(&[0x1f, 0x8b]) => Err(wrong(
            "it is compressed: what is taken is a plain tar of an OCI layout (gunzip it first)",
        )),
        false => Err(wrong(
            "it does not begin as a tar does; what is taken is a tar of an OCI layout",
        )),
    }
}

const HEADER_BYTES: usize = 512;

/// Whether a member's header has the checksum that it says: the sum of its bytes, its own field taken as spaces
/// (POSIX.1-2017, pax, "ustar Interchange Format"; formats before it have the same).
fn is_tar(header: &[u8]) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    if header.len() < HEADER_BYTES {
        return false;
    }
    let said = String::from_utf8_lossy(&header[FIELD]);
    let said = said.trim_matches(|c: char| c == ' ' || c == '\0');
    let bytes = header.iter().enumerate();
    let sum: u32 = bytes
        .map(|(at, byte)| u32::from(if FIELD.contains(&at) { b' ' } else { *byte }))
        .sum();
    u32::from_str_radix(said, 8) == Ok(sum)
}

pub async fn import(from: &str, tag: Option<&str>, global: &Global) -> Result<(), Failure> {
    let work = tempfile::tempdir().map_err(|error| local("make", Utf8Path::new("a directory"), &error))?;
    let work =
        Utf8Path::from_path(work.path()).ok_or_else(|| Failure::failed("the path of TMPDIR is not UTF-8"))?;
    let archive = work.join("layout.tar");
    let path = Utf8Path::new(from);
    if !from.starts_with("oci:") {
        is_layout(path)?;
    }
    let mut missing = None;
    let given = if let Some(name) = from.strip_prefix("oci:") {
        let reference = name
            .parse::<Reference>()
            .map_err(|error| Failure::usage(format!("`{from}`: {error}")).next("oci:REGISTRY/NAME:TAG"))?;
        let layout = work.join("layout");
        fs::create_dir(&layout).map_err(|error| local("create", &layout, &error))?;
        missing = pull(&reference, &layout).await?;
        pack(&layout, &archive)?;
        archive
    } else if path.is_dir() || tag.is_some() {
        let layout = match path.is_dir() {
            true => path.to_owned(),
            false => {
                let layout = work.join("given");
                fs::create_dir(&layout).map_err(|error| local("create", &layout, &error))?;
                unpack(path, &layout, &ARCHIVE)?;
                layout
            }
        };
        // Only the image that is meant goes over.
        let chosen = work.join("chosen");
        fs::create_dir(&chosen).map_err(|error| local("create", &chosen, &error))?;
        missing = select(&layout, tag, &chosen)?;
        pack(&chosen, &archive)?;
        archive
    } else {
        path.to_owned()
    };
    let file = tokio::fs::File::open(&given)
        .await
        .map_err(|error| local("open", &given, &error))?;
    let mut imported: Imported = global.client()?.upload("/v1/images", file).await?;
    imported.warning = missing.or(imported.warning);
    let output = global.output();
    output.show(&imported, taken);
    Ok(())
}

/// What was taken in, and what of what came with it is to be believed.
fn taken(imported: &Imported) -> String {
    let mut text = format!("{}\n", imported.image);
    if let Some(same) = imported.bill {
        text.push_str(match same {
            true => "bill of materials: as it is found here\n",
            false => "bill of materials: another one than is found here, and not kept\n",
        });
    }
    for statement in &imported.statements {
        let about = clean(
            statement
                .about
                .as_deref()
                .unwrap_or("about nothing that it names"),
        );
        let by = match statement.own {
            true => "signed by this platform",
            false => "not signed by this platform, and not kept",
        };
        text.push_str(&format!("statement: {about}, {by}\n"));
    }
    if let Some(warning) = &imported.warning {
        let why = clean(warning);
        text.push_str(&format!("some of what came with it could not be read: {why}\n"));
    }
    text
}

/// One image of a layout, as a layout of its own. Gives what of what is told of it is missing.
fn select(layout: &Utf8Path, tag: Option<&str>, into: &Utf8Path) -> Result<Option<String>, Failure> {
    let told = |error: oci::Error| Failure::failed(crate::flow::chain(&error));
    let layout = Layout::open(layout).map_err(told)?;
    let image = layout.find(tag).map_err(told)?;
    let (manifest, _) = layout.document(&image.digest.to_string()).map_err(told)?;
    export::pull(&layout, &image, &manifest, into).map_err(told)
}

fn pack(directory: &Utf8Path, archive: &Utf8Path) -> Result<(), Failure> {
    let file = fs::File::create(archive).map_err(|error| local("create", archive, &error))?;
    let packed = host::tree::pack(directory, 0, io::BufWriter::new(file));
    packed
        .map(drop)
        .map_err(|error| Failure::failed(crate::flow::chain(&error)))
}

/// What registries are asked with.
pub fn login() -> Option<Secret> {
    let text = std::env::var("VEND_REGISTRY_LOGIN").ok();
    text.filter(|text| !text.is_empty()).map(Secret::new)
}

async fn pull(from: &Reference, into: &Utf8Path) -> Result<Option<String>, Failure> {
    let (from, into) = (from.clone(), into.to_owned());
    waiting(move || {
        let repository = Repository::open(&from, login().as_ref().map(Login::read), Reach::Anywhere, false);
        let image = oci::find(&repository, &from.wanted())?;
        let (manifest, _) = repository.document(&image.digest.to_string())?;
        export::pull(&repository, &image, &manifest, &into)
    })
    .await
}

/// `alone`: without its bill of materials and what was signed about it.
pub async fn push(image: &Name, to: &Reference, alone: bool, global: &Global) -> Result<(), Failure> {
    if !Base::Oci(to.clone()).moves() {
        return Err(
            Failure::usage("an image is sent to a tag: its digest follows from it").next("REGISTRY/NAME:TAG"),
        );
    }
    let client = global.client()?;
    let image = image.resolve(&client).await?;
    let work = tempfile::tempdir().map_err(|error| local("make", Utf8Path::new("a directory"), &error))?;
    let work =
        Utf8Path::from_path(work.path()).ok_or_else(|| Failure::failed("the path of TMPDIR is not UTF-8"))?;
    let (archive, layout) = (work.join("layout.tar"), work.join("layout"));
    let said = fetch(&path(&image, "compression=gzip", alone), &archive, &client).await?;
    gone_with(&said, alone);
    fs::create_dir(&layout).map_err(|error| local("create", &layout, &error))?;
    unpack(&archive, &layout, &ARCHIVE)?;
    let reference = to.clone();
    let (digest, missing) = waiting(move || {
        let opened = Layout::open(&layout)?;
        let image = opened.find(None)?;
        let repository = Repository::open(
            &reference,
            login().as_ref().map(Login::read),
            Reach::Anywhere,
            true,
        );
        let (_, missing) = export::push(&opened, &layout, &image, &repository, &reference.wanted())?;
        Ok((image.digest, missing))
    })
    .await?;
    global.output().line(&format!("{to}@{digest}"));
    if let Some(why) = missing {
        let why = clean(&why);
        eprintln!(
            "warning: some of what is told of the image was not sent: {why}; --alone sends the image and nothing else"
        );
    }
    Ok(())
}

/// Work that waits for a registry, on a thread that may.
async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, oci::Error> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| Failure::failed("the work stopped half-way"))?;
    done.map_err(|error| refused(&error))
}

/// What a registry did not do, and what whoever asked it can do about that.
fn refused(error: &oci::Error) -> Failure {
    let failure = Failure::failed(crate::flow::chain(error));
    match error {
        oci::Error::Unreachable { registry, .. } => failure.next(format!(
            "see whether this machine reaches it: curl https://{registry}/v2/"
        )),
        oci::Error::Denied { .. } => {
            failure.next("the same command with VEND_REGISTRY_LOGIN=USER:PASSWORD, or a token, before it")
        }
        oci::Error::Missing(_) => failure.next("correct the name: REGISTRY/NAME:TAG"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_an_image_is_counted_by_who_sends_it() {
        let said = |count: &str| HeaderMap::from_iter([(STATEMENTS, count.parse().unwrap())]);
        for (said, count, warns) in [
            (said("3"), 3, false),
            (said("0"), 0, true),
            (HeaderMap::new(), 0, true),
        ] {
            assert_eq!(statements(&said), count);
            assert_eq!(warning(count).is_some(), warns, "{said:?}");
        }
    }

    #[test]
    fn what_is_no_layout_is_refused_and_not_shown() {
        let work = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(work.path()).unwrap();
        let words = root.join("passwd");
        fs::write(&words, "root:x:0:0:root:/root:/bin/bash\n".repeat(40)).unwrap();
        let zipped = root.join("x.tar.gz");
        fs::write(&zipped, [0x1f, 0x8b, 8, 0]).unwrap();
        let empty = root.join("empty");
        fs::create_dir(&empty).unwrap();
        for (path, why) in [
            (&words, "does not begin as a tar"),
            (&zipped, "compressed"),
            (&empty, "index.json"),
            (&root.join("nowhere"), "No such file"),
        ] {
            let failure = is_layout(path).unwrap_err();
            let cause = failure.cause.unwrap();
            assert!(cause.contains(why) && !cause.contains("root:"), "{cause}");
            assert_eq!(failure.next.as_deref(), Some(IMPORTS));
        }
        fs::write(empty.join("index.json"), "{}").unwrap();
        is_layout(&empty).unwrap();
        let archive = root.join("layout.tar");
        pack(&empty, &archive).unwrap();
        is_layout(&archive).unwrap();
    }
}
