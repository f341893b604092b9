//! Paths of artifacts and reports with variables, in containers.

use std::collections::BTreeMap;

use model::{Secret, port::BuildOrder, spec::Buildspec};

use crate::{
    world::World,
    yard::{fails, has, succeeds, unpack},
};

fn order(world: &World, rest: &str) -> BuildOrder {
    let text = format!(
        "version: 0.2\nphases:\n  build:\n    commands:\n      - 'export OUT=out; mkdir -p $OUT/deep; cd $OUT; echo 1 > a; echo 2 > deep/b; echo 3 > \"Outer\\$Inner.class\"'\n      - 'echo \"<testsuite><testcase name=\\\"t\\\"/></testsuite>\" > unit.xml'\n{rest}"
    );
    let (spec, _) = Buildspec::parse(&text, "buildspec.yml").unwrap();
    world.build_order(&[("top", "")], spec)
}

/// As AWS's guides write them.
pub async fn paths_of_artifacts_and_reports_hold_variables(world: &World) {
    let text = "artifacts:
  base-directory: $CODEBUILD_SRC_DIR
  files: [$CODEBUILD_SRC_DIR/out/**, $NONE/**]
  exclude-paths: ['${OUT}/*.xml', '$CODEBUILD_SRC_DIR/out/deep/*']
  secondary-artifacts:
    deep: { base-directory: $CODEBUILD_SRC_DIR/$OUT, files: ['deep/$(echo b)', '$CODEBUILD_SRC_DIR/out/a'] }
    whole: { base-directory: '${CODEBUILD_SRC_DIR}/o*', files: ['**/*'], exclude-paths: '*.xml' }
reports: { unit: { base-directory: $CODEBUILD_SRC_DIR, files: ['$CODEBUILD_SRC_DIR/${OUT}/*.xml'] } }
";
    let (built, log) = succeeds(world, &order(world, text)).await;
    let names: Vec<String> = unpack(world, &built.artifact).into_keys().collect();
    assert_eq!(names, ["out/Outer$Inner.class", "out/a"]);
    let secondary: BTreeMap<&str, Vec<String>> = built
        .secondary
        .iter()
        .map(|(name, digest)| (name.as_str(), unpack(world, digest).into_keys().collect()))
        .collect();
    assert_eq!(secondary["deep"], ["a", "deep/b"]);
    assert_eq!(secondary["whole"], ["Outer$Inner.class", "a", "deep/b"]);
    assert_eq!(built.reports[0].total, 1);
    has(&log, &["Skipping invalid file path $NONE/**"]);

    for (artifacts, says) in [
        (
            "{ base-directory: $NONE, files: '**/*' }",
            "no matching base directory path found for $NONE",
        ),
        (
            "{ base-directory: 'x-$TOKEN', files: '**/*' }",
            "no matching base directory path found for x-***",
        ),
        ("{ files: '$(cat' }", "no shell can expand the path `$(cat`"),
    ] {
        let mut order = order(world, &format!("artifacts: {artifacts}\n"));
        let token = Secret::new("tigers-in-the-night".to_owned());
        order.secrets.insert("TOKEN".to_owned(), token);
        let (fault, log) = fails(world, &order, &["UPLOAD_ARTIFACTS failed", says]).await;
        assert!(!format!("{fault:?}{log}").contains("tigers"), "{fault:?}{log}");
    }
}
