//! Images: what is in them, and in and out of registries and files. Registries are asked from here, as whoever types.

use std::{
    fs,
    io::{self, Write as _},
};

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Subcommand, ValueEnum};
use host::oci::{
    self, Reach, Source as _, export,
    layout::Layout,
    registry::{Login, Repository},
};
use http_body_util::BodyExt as _;
use model::{
    Digest, Secret,
    port::{BasesSeen, ImageDiff},
    spec::{Base, Reference},
    wire::{Image, ImageShown, Imported, NewRefresh, Refreshed},
};

use super::{Failure, Global, now, packer, target};
use crate::output::{Output, Table, Tone, ago, cell, clean, maybe, size};

/// An archive of a layout: a few large files.
const ARCHIVE: host::tree::Limits = host::tree::Limits {
    entries: 5_000,
    total_bytes: 64 << 30,
    file_bytes: 32 << 30,
};

#[derive(Debug, Subcommand)]
pub enum Images {
    List {
        /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
        target: Option<String>,
    },
    /// Show what an image is made of, what was looked at in it, and who signed it.
    Show {
        /// sha256:…
        image: Digest,
        /// Print the bill of materials instead, as SPDX.
        #[arg(long)]
        bill: bool,
    },
    /// Show what differs between two images: packages, files, sizes.
    Diff { before: Digest, after: Digest },
    /// Show the bases that the platform knows.
    Bases,
    /// Look now whether bases have become others. What stands on one that has is baked and deployed again.
    Refresh {
        /// As vend.yaml names it; all that live releases stand on when absent.
        base: Option<String>,
    },
    /// Write an image as an OCI layout, which skopeo, podman, buildah and others read.
    Export {
        image: Digest,
        /// A file for a tar of the layout, or a directory that does not exist yet.
        to: Utf8PathBuf,
        /// What the image is called in the layout.
        #[arg(long)]
        tag: Option<String>,
        #[arg(long, value_enum, default_value_t = Compression::Gzip)]
        compression: Compression,
    },
    /// Take in an image: a tar of an OCI layout, its directory, or `oci:REGISTRY/NAME:TAG`.
    Import {
        from: String,
        /// Which image of a layout with several.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Send an image to a registry: `REGISTRY/NAME:TAG`. The login is VEND_REGISTRY_LOGIN, `USER:PASSWORD` or a token.
    Push { image: Digest, to: Reference },
    /// Write a Packer template that makes a machine image of AWS with this working tree's scripts. Needs no platform.
    Packer(packer::Packer),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

impl Compression {
    fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }
}

pub async fn run(command: &Images, global: &Global) -> Result<(), Failure> {
    match command {
        Images::List { target } => list(target.as_deref(), global).await,
        Images::Show { image, bill: true } => {
            let bill: serde_json::Value = global.client()?.get(&format!("/v1/images/{image}/bill")).await?;
            let text =
                serde_json::to_string_pretty(&bill).map_err(|error| Failure::failed(error.to_string()))?;
            println!("{text}");
            Ok(())
        }
        Images::Show { image, bill: false } => {
            let shown: ImageShown = global.client()?.get(&format!("/v1/images/{image}")).await?;
            let output = global.output();
            output.show(&shown, |shown| text(shown, &output));
            Ok(())
        }
        Images::Diff { before, after } => {
            let diff: ImageDiff = global
                .client()?
                .get(&format!("/v1/images/{before}/diff/{after}"))
                .await?;
            let output = global.output();
            output.show(&diff, |diff| difference(diff, &output));
            Ok(())
        }
        Images::Bases => bases(global).await,
        Images::Refresh { base } => refresh(base.clone(), global).await,
        Images::Export {
            image,
            to,
            tag,
            compression,
        } => {
            let query = tag.as_ref().map(|tag| format!("&tag={tag}")).unwrap_or_default();
            let query = format!("compression={}{query}", compression.word());
            exported(image, &query, to, global).await
        }
        Images::Import { from, tag } => import(from, tag.as_deref(), global).await,
        Images::Push { image, to } => push(image, to, global).await,
        Images::Packer(packer) => packer::run(packer, global),
    }
}

async fn list(target: Option<&str>, global: &Global) -> Result<(), Failure> {
    let path = format!("/v1/images?{}", target::scope(target)?);
    let page = global.client()?.list::<Image>(&path, 10_000).await?;
    let output = global.output();
    output.show(&page, |page| {
        let mut table = Table::new(["IMAGE", "WHERE", "RELEASES", "BASE", "CREATED"]);
        for image in &page.items {
            let releases: Vec<String> = image.releases.iter().map(|number| format!("v{number}")).collect();
            let base = match image.stale {
                true => (format!("{} (stale)", clean(&image.base)), Tone::Wait),
                false => cell(&image.base),
            };
            table.row([
                cell(&image.digest.to_string()[..19]),
                cell(&image.place),
                cell(releases.join(" ")),
                base,
                cell(ago(image.created_at, now())),
            ]);
        }
        table.render(&output, "no images")
    });
    Ok(())
}

async fn bases(global: &Global) -> Result<(), Failure> {
    let seen: BasesSeen = global.client()?.get("/v1/bases").await?;
    let output = global.output();
    output.show(&seen, |seen| {
        let mut table = Table::new(["BASE", "TENANT", "LAYER", "LOOKED AT"]);
        for base in &seen.bases {
            table.row([
                cell(&base.base),
                maybe(base.tenant.as_ref()),
                cell(base.key.short()),
                cell(ago(base.checked_at, now())),
            ]);
        }
        table.render(&output, "no bases yet")
    });
    Ok(())
}

async fn refresh(base: Option<String>, global: &Global) -> Result<(), Failure> {
    let order = NewRefresh { base };
    let refreshed: Refreshed = global.client()?.work("/v1/bases/refresh", &order).await?;
    let output = global.output();
    output.show(&refreshed, |refreshed| {
        let mut table = Table::new(["BASE", "TENANT", "FOUND"]);
        for seen in &refreshed.bases {
            let found = match (&seen.error, seen.changed) {
                (Some(error), _) => (clean(error).to_string(), Tone::Bad),
                (None, true) => ("another one".to_owned(), Tone::Wait),
                (None, false) => ("the same".to_owned(), Tone::Good),
            };
            table.row([cell(&seen.base), maybe(seen.tenant.as_ref()), found]);
        }
        let mut text = table.render(&output, "no live release stands on such a base");
        for place in &refreshed.queued {
            text.push_str(&format!("{place} is made again on the new base\n"));
        }
        text
    });
    Ok(())
}

fn text(shown: &ImageShown, output: &Output) -> String {
    let about = &shown.about;
    let stale = if about.stale {
        output.tone(Tone::Wait, " (has become another one since)")
    } else {
        String::new()
    };
    let mut text = format!(
        "{}\nbase      {}{stale}\nsize      {} in {} layers\npackages  {} (vend images show {} --bill)\n",
        about.digest,
        clean(&about.base),
        size(about.size_bytes),
        about.layers.len(),
        about.packages,
        about.digest,
    );
    if let Some(commit) = &about.commit {
        let subject = commit.message.lines().next().unwrap_or_default();
        text.push_str(&format!(
            "commit    {} {}: {}\n",
            clean(&commit.id),
            clean(&commit.author),
            clean(subject)
        ));
    }
    for layer in &about.layers {
        text.push_str(&format!(
            "layer     {} {} by {}\n",
            layer.key.short(),
            size(layer.size_bytes),
            clean(&layer.made_by)
        ));
    }
    for check in &about.checks {
        let (mark, found) = match check.passed {
            true => (output.tone(Tone::Good, "ok"), String::new()),
            false => (
                output.tone(Tone::Bad, "failed"),
                format!(": {}", clean(&check.found)),
            ),
        };
        text.push_str(&format!("check     {mark} {}{found}\n", clean(&check.name)));
    }
    text.push_str(&format!("signed    {} statements\n", shown.attestations.len()));
    text
}

fn difference(diff: &ImageDiff, output: &Output) -> String {
    let side = |side: &Option<String>| {
        side.as_ref()
            .map_or_else(|| "-".to_owned(), |text| clean(text).to_string())
    };
    let mut text = format!("size {} -> {}\n", size(diff.size_before), size(diff.size_after));
    let mut packages = Table::new(["PACKAGE", "KIND", "BEFORE", "AFTER"]);
    for package in &diff.packages {
        packages.row([
            cell(&package.name),
            cell(&package.kind),
            cell(side(&package.before)),
            cell(side(&package.after)),
        ]);
    }
    text.push_str(&packages.render(output, "the same packages\n"));
    let mut files = Table::new(["FILE", "BEFORE", "AFTER"]);
    for file in &diff.files {
        files.row([
            cell(format!("/{}", file.path)),
            cell(side(&file.before)),
            cell(side(&file.after)),
        ]);
    }
    text.push_str(&files.render(output, "the same files\n"));
    let more = diff.files_changed.saturating_sub(diff.files.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {more} files more\n"));
    }
    text
}

/// Streams an export into a file; or through one into a directory.
async fn exported(image: &Digest, query: &str, to: &Utf8Path, global: &Global) -> Result<(), Failure> {
    let is_archive = to.extension() == Some("tar");
    if is_archive {
        fetch(image, query, to, global).await?;
    } else {
        fs::create_dir(to).map_err(|error| local("create", to, &error))?;
        let archive = to.join(".layout.tar");
        let fetched = fetch(image, query, &archive, global).await;
        let unpacked = fetched.and_then(|()| unpack(&archive, to));
        let _ = fs::remove_file(&archive);
        unpacked?;
    }
    global.output().say(&format!("{to} holds {image}"));
    Ok(())
}

async fn fetch(image: &Digest, query: &str, to: &Utf8Path, global: &Global) -> Result<(), Failure> {
    let mut body = global
        .client()?
        .stream(&format!("/v1/images/{image}/export?{query}"))
        .await?;
    let mut file = io::BufWriter::new(fs::File::create(to).map_err(|error| local("create", to, &error))?);
    let written = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::failed(format!("the export broke off: {error}")))?;
            if let Some(bytes) = frame.data_ref() {
                file.write_all(bytes)
                    .map_err(|error| local("write", to, &error))?;
            }
        }
        file.flush().map_err(|error| local("write", to, &error))
    };
    let written = written.await;
    if written.is_err() {
        // Half an image is none.
        let _ = fs::remove_file(to);
    }
    written
}

fn unpack(archive: &Utf8Path, into: &Utf8Path) -> Result<(), Failure> {
    let file = fs::File::open(archive).map_err(|error| local("open", archive, &error))?;
    let unpacked = host::tree::unpack(file, into, &ARCHIVE);
    unpacked
        .map(drop)
        .map_err(|error| Failure::failed(crate::flow::chain(&error)))
}

async fn import(from: &str, tag: Option<&str>, global: &Global) -> Result<(), Failure> {
    let work = tempfile::tempdir().map_err(|error| local("make", Utf8Path::new("a directory"), &error))?;
    let work =
        Utf8Path::from_path(work.path()).ok_or_else(|| Failure::failed("the path of TMPDIR is not UTF-8"))?;
    let archive = work.join("layout.tar");
    let path = Utf8Path::new(from);
    let given = if let Some(name) = from.strip_prefix("oci:") {
        let reference = name
            .parse::<Reference>()
            .map_err(|error| Failure::failed(format!("`{from}`: {error}")))?;
        let layout = work.join("layout");
        fs::create_dir(&layout).map_err(|error| local("create", &layout, &error))?;
        pull(&reference, &layout).await?;
        pack(&layout, &archive)?;
        archive
    } else if path.is_dir() || tag.is_some() {
        let layout = match path.is_dir() {
            true => path.to_owned(),
            false => {
                let layout = work.join("given");
                fs::create_dir(&layout).map_err(|error| local("create", &layout, &error))?;
                unpack(path, &layout)?;
                layout
            }
        };
        // Only the image that is meant goes over.
        let chosen = work.join("chosen");
        fs::create_dir(&chosen).map_err(|error| local("create", &chosen, &error))?;
        select(&layout, tag, &chosen)?;
        pack(&chosen, &archive)?;
        archive
    } else {
        path.to_owned()
    };
    let file = tokio::fs::File::open(&given)
        .await
        .map_err(|error| local("open", &given, &error))?;
    let imported: Imported = global.client()?.upload("/v1/images", file).await?;
    let output = global.output();
    output.show(&imported, |imported| format!("{}\n", imported.image));
    Ok(())
}

/// One image of a layout, as a layout of its own.
fn select(layout: &Utf8Path, tag: Option<&str>, into: &Utf8Path) -> Result<(), Failure> {
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
fn login() -> Option<Login> {
    let text = std::env::var("VEND_REGISTRY_LOGIN")
        .ok()
        .filter(|text| !text.is_empty())?;
    Some(Login::read(&Secret::new(text)))
}

async fn pull(from: &Reference, into: &Utf8Path) -> Result<(), Failure> {
    let (from, into) = (from.clone(), into.to_owned());
    waiting(move || {
        let repository = Repository::open(&from, login(), Reach::Anywhere, false);
        let image = oci::find(&repository, &from.wanted())?;
        let (manifest, _) = repository.document(&image.digest.to_string())?;
        export::pull(&repository, &image, &manifest, &into)
    })
    .await
}

async fn push(image: &Digest, to: &Reference, global: &Global) -> Result<(), Failure> {
    if Base::Oci(to.clone()).moves() {
        let work =
            tempfile::tempdir().map_err(|error| local("make", Utf8Path::new("a directory"), &error))?;
        let work = Utf8Path::from_path(work.path())
            .ok_or_else(|| Failure::failed("the path of TMPDIR is not UTF-8"))?;
        let (archive, layout) = (work.join("layout.tar"), work.join("layout"));
        fetch(image, "compression=gzip", &archive, global).await?;
        fs::create_dir(&layout).map_err(|error| local("create", &layout, &error))?;
        unpack(&archive, &layout)?;
        let reference = to.clone();
        let digest = waiting(move || {
            let opened = Layout::open(&layout)?;
            let image = opened.find(None)?;
            let repository = Repository::open(&reference, login(), Reach::Anywhere, true);
            export::push(&opened, &layout, &image, &repository, &reference.wanted())?;
            Ok(image.digest)
        })
        .await?;
        global.output().say(&format!("{to}@{digest}"));
        return Ok(());
    }
    Err(Failure::failed("an image is sent to a tag: its digest follows from it").next("REGISTRY/NAME:TAG"))
}

/// Work that waits for a registry, on a thread that may.
async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, oci::Error> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| Failure::failed("the work stopped half-way"))?;
    done.map_err(|error| Failure::failed(crate::flow::chain(&error)))
}

fn local(doing: &str, path: &Utf8Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {doing} {path}: {error}"))
}
