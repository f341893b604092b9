//! Packages that are told by the names or the bytes of single files: of Python, npm, Ruby and Composer, programs of Cargo
//! and Go.

use std::io::Read;

use serde::Deserialize;

use super::{Kind, Package, field, stanzas};

fn package(kind: Kind, name: &str, version: &str) -> Option<Package> {
    let (name, version) = (name.trim(), version.trim());
    (!name.is_empty() && !version.is_empty()).then(|| Package {
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: String::new(),
    })
}

/// The package of a wheel's METADATA, or of the PKG-INFO of what is older ("Core metadata specifications" of the Python
/// packaging guide).
pub fn wheel(text: &str) -> Option<Package> {
    let stanza = stanzas(text).next()?;
    let name = field(&stanza, "Name")?.to_ascii_lowercase();
    package(Kind::Pypi, &name, field(&stanza, "Version")?)
}

/// As a `package.json` and Composer's list say it.
#[derive(Deserialize)]
struct Named {
    name: String,
    version: String,
}

/// The package of a `package.json`.
pub fn npm(text: &[u8]) -> Option<Package> {
    let own: Named = serde_json::from_slice(text).ok()?;
    package(Kind::Npm, &own.name, &own.version)
}

/// The packages of Composer's `installed.json`: an object since its version 2, and a list before. `None`: it is neither.
pub fn composer(text: &[u8]) -> Option<Vec<Package>> {
    #[derive(Deserialize)]
    struct List {
        packages: Vec<Named>,
    }
    let list = serde_json::from_slice(text).map(|list: List| list.packages);
    let list = list
        .or_else(|_| serde_json::from_slice::<Vec<Named>>(text))
        .ok()?;
    let packages = list.iter();
    Some(
        packages
            .filter_map(|own| package(Kind::Composer, &own.name, &own.version))
            .collect(),
    )
}

/// The gem whose specification has this file name: `NAME-VERSION.gemspec`, with a platform after the version if it is not
/// the same for all.
pub fn gem(file: &str) -> Option<Package> {
    let stem = file.strip_suffix(".gemspec")?;
    let mut starts = stem.match_indices('-').map(|(at, _)| at);
    let digit = |at: &usize| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let at = starts.rfind(digit)?;
    let version = stem[at + 1..].split('-').next()?;
    package(Kind::Gem, &stem[..at], version)
}

/// What `cargo install` notes in `.crates.toml`: `"NAME VERSION (SOURCE)" = ["PROGRAM"]`.
pub fn cargo(text: &str) -> impl Iterator<Item = Package> {
    text.lines().filter_map(|line| {
        let named = line.trim_start().strip_prefix('"')?.split_once('"')?.0;
        let mut words = named.split(' ');
        package(Kind::Cargo, words.next()?, words.next()?)
    })
}

/// What stands before the list of modules in a program of Go (`debug/buildinfo`).
const GO: &[u8] = b"\xff Go buildinf:";
/// The list is that long at most.
const LIST: usize = 1 << 20;
/// Between the mark and the two texts.
const HEADER: usize = 32;

/// The modules of a program that Go 1.18 or later made; none of anything else.
pub fn go(program: &mut dyn Read) -> std::io::Result<Vec<Package>> {
    let Some(info) = after(program, GO)? else {
        return Ok(Vec::new());
    };
    Ok(modules(&info).unwrap_or_default())
}

/// The bytes from where `mark` first is.
fn after(from: &mut dyn Read, mark: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    const PIECE: usize = 1 << 16;
    let mut window = Vec::with_capacity(2 * PIECE);
    loop {
        let before = window.len();
        from.take(PIECE as u64).read_to_end(&mut window)?;
        if window.len() == before {
            return Ok(None);
        }
        // The first byte is rare: most of a program is passed over by looking for it.
        let mut starts = (0..window.len()).filter(|at| window[*at] == mark[0]);
        if let Some(at) = starts.find(|at| window[*at..].starts_with(mark)) {
            window.drain(..at);
            from.take((LIST + HEADER) as u64).read_to_end(&mut window)?;
            return Ok(Some(window));
        }
        window.drain(..window.len().saturating_sub(mark.len()));
    }
}

/// The version of Go, then the modules between two marks of 16 bytes, a line each: `dep PATH VERSION HASH`.
fn modules(info: &[u8]) -> Option<Vec<Package>> {
    const TEXTS_FOLLOW: u8 = 2;
    if info.get(15)? & TEXTS_FOLLOW == 0 {
        return None;
    }
    let mut rest = info.get(HEADER..)?;
    let version = text(&mut rest)?;
    let list = text(&mut rest)?;
    let list = list.get(16..list.len().checked_sub(16)?)?;
    let go = std::str::from_utf8(version).ok()?.strip_prefix("go")?;
    let mut found: Vec<Package> = package(Kind::Golang, "stdlib", go).into_iter().collect();
    for line in String::from_utf8_lossy(list).lines() {
        let mut words = line.split('\t');
        let kind = words.next().unwrap_or_default();
        // `=>` replaces the line before it.
        if kind == "=>" {
            found.pop();
        }
        if matches!(kind, "mod" | "dep" | "=>")
            && let (Some(path), Some(version)) = (words.next(), words.next())
        {
            found.extend(package(Kind::Golang, path, version));
        }
    }
    Some(found)
}

/// A length of seven bits a byte, the low ones first, and as many bytes.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0_usize;
    for shift in (0..=21).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (found, more) = rest.split_at_checked(length)?;
            *rest = more;
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gems_are_told_by_their_files() {
        for (file, expected) in [
            ("rack-3.0.8.gemspec", Some(("rack", "3.0.8"))),
            (
                "nokogiri-1.15.4-x86_64-linux.gemspec",
                Some(("nokogiri", "1.15.4")),
            ),
            ("net-http2-0.18.5.gemspec", Some(("net-http2", "0.18.5"))),
            ("default.gemspec", None),
            ("rack-3.0.8.rb", None),
        ] {
            let found = gem(file);
            let found = found
                .as_ref()
                .map(|gem| (gem.name.as_str(), gem.version.as_str()));
            assert_eq!(found, expected, "{file}");
        }
    }

    #[test]
    fn both_kinds_of_composer_s_list_are_read() {
        let packages = r#"[{"name": "monolog/monolog", "version": "3.5.0", "type": "library"}, {"name": "", "version": "1"}]"#;
        for text in [
            packages.to_owned(),
            format!(r#"{{"packages": {packages}, "dev": false}}"#),
        ] {
            let found = composer(text.as_bytes()).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].purl(""), "pkg:composer/monolog/monolog@3.5.0");
        }
        assert_eq!(composer(b"{\"packages\": 1}"), None);
    }

    #[test]
    fn programs_of_cargo_are_told_by_its_list() {
        let text = "[v1]\n\"ripgrep 14.1.0 (registry+https://github.com/rust-lang/crates.io-index)\" = [\"rg\"]\n\"broken\" = []\n";
        let found: Vec<Package> = cargo(text).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].purl(""), "pkg:cargo/ripgrep@14.1.0");
    }

    #[test]
    fn modules_of_a_go_program_are_found_wherever_they_lie() {
        let list = format!(
            "{mark}path\tshop\nmod\texample.org/shop\tv1.2.0\t\ndep\tgolang.org/x/text\tv0.14.0\th1:x=\n\
             dep\texample.org/old\tv1.0.0\n=>\texample.org/new\tv1.0.1\th1:y=\n{mark}",
            mark = "0123456789abcdef"
        );
        for before in [0, 65_530, 200_000] {
            let mut program = vec![0xff; before];
            program.extend(GO);
            program.extend([8, 2]);
            program.extend([0; 16]);
            for text in ["go1.22.1", &list] {
                let mut length = text.len();
                while length >= 0x80 {
                    program.push((length as u8 & 0x7f) | 0x80);
                    length >>= 7;
                }
                program.push(length as u8);
                program.extend(text.as_bytes());
            }
            program.extend([7; 5000]);
            let found = go(&mut program.as_slice()).unwrap();
            let shown: Vec<String> = found.iter().map(|module| module.purl("")).collect();
            assert_eq!(
                shown,
                [
                    "pkg:golang/stdlib@1.22.1",
                    "pkg:golang/example.org/shop@v1.2.0",
                    "pkg:golang/golang.org/x/text@v0.14.0",
                    "pkg:golang/example.org/new@v1.0.1",
                ]
            );
        }
        assert_eq!(go(&mut &b"\x7fELF and nothing more"[..]).unwrap(), []);
    }
}
