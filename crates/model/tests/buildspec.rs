//! Buildspecs of CodeBuild's user guide: accepted, or refused only for what is not built yet.

mod common;

use model::spec::{Buildspec, is_later};

#[test]
fn agrees_with_the_user_guide() {
    let Some(folder) = common::conformance("buildspec/docs") else {
        return;
    };
    let (mut accepted, mut later, mut wrong) = (0, Vec::new(), Vec::new());
    for path in common::files(&folder, &[".yml"]) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = common::json(&folder.join(format!("{name}.expected.json")));
        let text = std::fs::read_to_string(&path).unwrap();
        match (Buildspec::parse(&text, &name), expected["expect"].as_str().unwrap()) {
            (Ok(_), "accept") => accepted += 1,
            (Err(problems), "accept") if problems.iter().filter(|p| p.is_error()).all(is_later) => later.push(name),
            (Err(_), "reject") => accepted += 1,
            (result, expect) => wrong.push(format!("{name}: expected {expect}, got {result:?}")),
        }
    }
    println!("{accepted} agree, {} need what is not built yet: {later:?}", later.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted > 20);
}
