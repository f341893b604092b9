//! Images: what is in them, and in and out of registries and files.

mod carry;
mod name;

use camino::Utf8PathBuf;
use clap::{Subcommand, ValueEnum};
use model::{
    port::{Commit, ImageDiff},
    spec::Reference,
    wire::{Bases, Image, ImageShown, NewRefresh, Refreshed},
};

use name::Name;

pub use carry::login;

use super::{Failure, Global, now, packer, target};
use crate::output::{Output, Table, Tone, ago, cell, clean, headline, maybe, size};

#[derive(Debug, Subcommand)]
pub enum Images {
    /// Show the images that releases stand on.
    #[command(visible_alias = "ls")]
    List {
        /// TENANT, TENANT/APP or TENANT/APP/ENVIRONMENT
        target: Option<String>,
    },
    /// Show what an image is made of, what was looked at in it, and who signed it.
    Show {
        /// As `vend images list` shows it: `sha256:` and its first hex digits, at least 8, or all.
        image: Name,
        /// Print the bill of materials instead, as SPDX.
        #[arg(long)]
        bill: bool,
    },
    /// Show what differs between two images: packages, files, sizes.
    Diff {
        /// The image that was; written as for `show`.
        before: Name,
        /// The image that is.
        after: Name,
    },
    /// Show the bases that the platform knows.
    Bases,
    /// Look now whether bases have become others. What stands on one that has is baked and deployed again.
    Refresh {
        /// As vend.yaml names it; all that live releases stand on when absent.
        base: Option<String>,
    },
    /// Write an image as an OCI layout, with its bill of materials and what was signed about it: skopeo, podman, buildah and others read
    /// it.
    Export {
        /// As `vend images list` shows it.
        image: Name,
        /// A file that ends in `.tar` for a tar of the layout, or a directory that is empty or not there.
        to: Utf8PathBuf,
        /// What the image is called in the layout [default: latest].
        #[arg(long)]
        tag: Option<String>,
        #[arg(long, value_enum, default_value_t = Compression::Gzip)]
        compression: Compression,
        /// Without its bill of materials and what was signed about it: for tools that take a layout with one manifest only.
        #[arg(long)]
        alone: bool,
        /// Replace the file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Take in an image: a tar of an OCI layout, its directory, or `oci:REGISTRY/NAME:TAG`.
    Import {
        /// FILE.tar, DIRECTORY, or oci:REGISTRY/NAME:TAG
        from: String,
        /// Which image of a layout with several.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Send an image to a registry: `REGISTRY/NAME:TAG`. The login is VEND_REGISTRY_LOGIN, `USER:PASSWORD` or a token.
    Push {
        /// As `vend images list` shows it.
        image: Name,
        /// REGISTRY/NAME:TAG, such as registry.example.com/shop:1.0
        to: Reference,
        /// Without its bill of materials and what was signed about it: these name the packages in it, its repository and its
        /// commit.
        #[arg(long)]
        alone: bool,
    },
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
            let client = global.client()?;
            let image = image.resolve(&client).await?;
            let bill: serde_json::Value = client.get(&format!("/v1/images/{image}/bill")).await?;
            let text =
                serde_json::to_string_pretty(&bill).map_err(|error| Failure::failed(error.to_string()))?;
            global.output().text(&format!("{text}\n"));
            Ok(())
        }
        Images::Show { image, bill: false } => {
            let client = global.client()?;
            let image = image.resolve(&client).await?;
            let shown: ImageShown = client.get(&format!("/v1/images/{image}")).await?;
            let output = global.output();
            output.show(&shown, |shown| text(shown, &output));
            Ok(())
        }
        Images::Diff { before, after } => {
            let client = global.client()?;
            let before = before.resolve(&client).await?;
            let after = after.resolve(&client).await?;
            let diff: ImageDiff = client.get(&format!("/v1/images/{before}/diff/{after}")).await?;
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
            alone,
            force,
        } => {
            let tag = tag.as_ref().map(|tag| format!("&tag={tag}")).unwrap_or_default();
            let query = format!("compression={}{tag}", compression.word());
            carry::exported(image, &query, *alone, (to, *force), global).await
        }
        Images::Import { from, tag } => carry::import(from, tag.as_deref(), global).await,
        Images::Push { image, to, alone } => carry::push(image, to, *alone, global).await,
        Images::Packer(packer) => packer::run(packer, global),
    }
}

async fn list(target: Option<&str>, global: &Global) -> Result<(), Failure> {
    let path = format!("/v1/images?{}", target::scope(target)?);
    let page = global.client()?.list::<Image>(&path, 10_000).await?;
    if page.items.is_empty() {
        target::known(target, &global.client()?).await?;
    }
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
    let seen: Bases = global.client()?.get("/v1/bases").await?;
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
    let said = |commit: &Commit| {
        let subject = headline(&commit.message, 80);
        format!("{} {}: {subject}", clean(&commit.id), clean(&commit.author))
    };
    match (shown.apps.as_slice(), &about.commit) {
        ([], None) => {}
        ([] | [_], commit) => {
            let commit = commit.as_ref().map(said).unwrap_or_default();
            text.push_str(&format!("commit    {commit}\n"));
        }
        (apps, _) => {
            for own in apps {
                let (tenant, app) = (&own.tenant, &own.app);
                text.push_str(&format!("commit    {tenant}/{app} {}\n", said(&own.commit)));
            }
        }
    }
    for layer in &about.layers {
        let by = match layer.made_by.as_str() {
            "" => String::new(),
            by => format!(" by {}", clean(by)),
        };
        let size = size(layer.size_bytes);
        text.push_str(&format!("layer     {} {size}{by}\n", layer.key.short()));
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
