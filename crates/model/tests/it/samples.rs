//! What the project shows to people is read by the same code as what people write.

use std::path::PathBuf;

use camino::Utf8Path;
use model::spec::{App, Files, MAX_BYTES, check_tree};

struct Directory(PathBuf);

impl Files for Directory {
    fn exists(&self, path: &Utf8Path) -> bool {
        self.0.join(path).exists()
    }

    fn read(&self, path: &Utf8Path) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.0.join(path)).ok()?;
        (bytes.len() <= MAX_BYTES).then_some(bytes)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_guestbook_is_in_order() {
    let report = check_tree(&Directory(root().join("examples/guestbook")));
    let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(report.ok, "{found:#?}");
    // The build makes `vendor`; and whoever has an ApplicationStop is told whose script it is.
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].contains("`ApplicationStop` runs the script of the revision"),
        "{found:#?}"
    );
    assert!(
        found[1].contains("`vendor` is not in the repository"),
        "{found:#?}"
    );
    let names: Vec<&str> = report.spec["environments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["dev", "staging", "production"]);
}

#[test]
fn the_guide_shows_files_that_work() {
    let guide = std::fs::read_to_string(root().join("docs/guides/vend-yaml.md")).unwrap();
    let blocks: Vec<&str> = guide
        .split("```yaml\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() > 5, "the guide has lost its examples");
    for block in blocks {
        let (_, warnings) = App::parse(block, "vend.yaml", &|_| true).unwrap();
        assert_eq!(warnings, []);
    }
}
