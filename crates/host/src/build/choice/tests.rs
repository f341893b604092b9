use std::collections::BTreeMap;

use jiff::SignedDuration;
use model::{
    Digest,
    port::{BuildLimits, Commit},
    spec::Buildspec,
};

use super::*;

pub(crate) fn order(buildspec: Buildspec) -> BuildOrder {
    BuildOrder {
        place: "acme/shop/dev".parse().unwrap(),
        source: Digest::of(""),
        buildspec,
        commit: Commit {
            id: String::new(),
            author: String::new(),
            message: String::new(),
            branch: "main".to_owned(),
            repository: String::new(),
            committed_at: jiff::Timestamp::UNIX_EPOCH,
        },
        number: 1,
        variables: BTreeMap::new(),
        secrets: BTreeMap::new(),
        labels: BTreeMap::new(),
        image: None,
        login: None,
        task: None,
        push: None,
        trunk: None,
        limits: BuildLimits {
            cpu: 1.0,
            memory_mib: 1,
            disk_mib: 1,
            pids: 1,
            timeout: SignedDuration::ZERO,
            pass_rate_percent: 100.0,
            tests_asked: false,
            coverage_percent: None,
        },
    }
}

#[track_caller]
fn check(runtimes: &str, commands: &str, expected: &str) {
    check_with(runtimes, commands, &[], expected);
}

#[track_caller]
fn check_with(runtimes: &str, commands: &str, files: &[&str], expected: &str) {
    let text = format!(
        "version: 0.2\nphases:\n  install: {{ runtime-versions: {{ {runtimes} }} }}\n  build: {{ commands: [{commands}] }}\n"
    );
    let (spec, _) = Buildspec::parse(&text, "buildspec.yml").unwrap();
    let order = order(spec);
    let files = files.iter().map(|file| (*file).to_owned()).collect();
    let found = match choose(&order, &files) {
        Ok(Choice::Base(base)) => base.to_owned(),
        Ok(Choice::Standard { system, tools }) => {
            let all: Vec<&str> = [system]
                .into_iter()
                .chain(tools.iter().map(String::as_str))
                .collect();
            all.join(" ")
        }
        Err(why) => why,
    };
    assert_eq!(found, expected, "{runtimes} {commands}");
}

#[test]
fn the_first_system_that_has_all_is_taken() {
    for (runtimes, commands, expected) in [
        ("python: 3.x", "'true'", "debian-12"),
        ("python: '3.11', nodejs: latest", "'true'", "debian-12"),
        ("python: '3.12'", "pytest", "ubuntu-24.04"),
        ("python: '3.13', nodejs: 18", "'true'", "debian-13 nodejs-18"),
        ("nodejs: 12.x", "npm ci", "debian-12 nodejs-12"),
        ("nodejs: 20", "npm ci", "debian-12 nodejs-20"),
        ("golang: latest", "go build", "debian-12 golang-1.19"),
        ("golang: '1.24'", "go build", "debian-13 golang-1.24"),
        (
            "golang: '1.22', python: 3.x",
            "go build",
            "ubuntu-24.04 golang-1.22",
        ),
        ("java: corretto17", "mvn package", "debian-12 java-17"),
        ("java: corretto8", "mvn package", "ubuntu-24.04 java-8"),
        ("java: corretto21", "mvn package", "debian-13 java-21"),
        ("dotnet: 8.0", "dotnet build", "ubuntu-24.04 dotnet-8.0"),
        ("php: 8.3", "composer install", "ubuntu-24.04 php"),
        ("ruby: 3.x", "rake", "debian-12 ruby"),
        ("", "mvn package", "debian-12 java-17"),
        ("", "cargo build, rake", "debian-13 ruby rust"),
        ("python: '3.11'", "cargo build", "debian-12 rust"),
        (
            "",
            "dotnet build, go build",
            "ubuntu-24.04 dotnet-8.0 golang-1.22",
        ),
        ("python: '3.12'", "mvn package", "ubuntu-24.04 java-21"),
        ("python: '3.11'", "./dotnet-install.sh, dotnet build", "debian-12"),
    ] {
        check(runtimes, commands, expected);
    }
}

#[test]
fn files_tell_what_scripts_and_make_call() {
    for (runtimes, commands, files, expected) in [
        ("", "make", &["go.mod"][..], "debian-12 golang-1.19"),
        ("", "./build.sh", &["pom.xml"], "debian-12 java-17"),
        ("", "bash ci/build", &["build.gradle.kts"], "debian-12 java-17"),
        (
            "",
            "timeout 60 make test",
            &["composer.json", "Gemfile"],
            "debian-12 php ruby",
        ),
        ("", "make", &[], "debian-12"),
        // Who names a runtime, or calls one, is taken at the word; nor does `npm` call what others are for.
        ("nodejs: 20", "make", &["go.mod"], "debian-12 nodejs-20"),
        ("", "make, rake", &["go.mod"], "debian-12 ruby"),
        ("", "npm test", &["go.mod"], "debian-12"),
    ] {
        check_with(runtimes, commands, files, expected);
    }
    assert!(tells("go.mod") && !tells("app/go.mod"));
}

#[test]
fn a_program_that_is_missing_is_traced_to_its_runtime() {
    let order = |runtimes: &str| {
        let text = format!(
            "version: 0.2\nphases:\n  install: {{ runtime-versions: {{ {runtimes} }} }}\n  build: {{ commands: [npm test] }}\n"
        );
        order(Buildspec::parse(&text, "buildspec.yml").unwrap().0)
    };
    let golang = "runtime-versions: { golang: latest }";
    for (runtimes, command, last, expected) in [
        ("", "npm test", "> x\nsh: 1: go: not found\n", Some(golang)),
        ("", "make", "make: go: No such file or directory", Some(golang)),
        (
            "",
            "npm test",
            "bash: line 1: mvn: command not found",
            Some("java: latest"),
        ),
        ("", "npx go", "env: ‘go’: No such file or directory", Some(golang)),
        ("", "go test", "", Some(golang)),
        (
            "",
            "npm test",
            "bash: line 1: cargo: command not found",
            Some("calls `cargo`"),
        ),
        (
            "",
            "npm test",
            "bash: line 1: yarn: command not found",
            Some("npm install -g yarn"),
        ),
        ("java: 17", "gradle build", "", Some("./gradlew")),
        ("golang: latest", "npm test", "sh: 1: go: not found", None),
        ("", "npm test", "sh: 1: frobnicate: not found", None),
    ] {
        let said = missing(&order(runtimes), command, last);
        assert_eq!(said.is_some(), expected.is_some(), "{command} {said:?}");
        assert!(
            said.is_none_or(|said| said.contains(expected.unwrap())),
            "{command}"
        );
    }
    let mut own = order("");
    own.image = Some("debian-12".to_owned());
    assert!(missing(&own, "go test", "").is_some_and(|said| said.contains("build.image")));
    assert_eq!(missing(&own, "yarn", ""), None);
}

#[test]
fn what_nobody_has_is_told() {
    let unknown = "YAML_FILE_ERROR: Unknown runtime";
    let next =
        ". Ask for one of them, install it with a command, or build in an image that has it (`build.image`)";
    check(
        "ruby: '2.7'",
        "rake",
        &format!(
            "{unknown} version named '2.7' of ruby. This build image has the following versions: 3.1, 3.2, 3.3{next}"
        ),
    );
    check(
        "dotnet: '6.0'",
        "dotnet build",
        &format!(
            "{unknown} version named '6.0' of dotnet. This build image has the following versions: 8.0, 10.0{next}"
        ),
    );
    check(
        "cobol: latest",
        "'true'",
        &format!(
            "{unknown} named 'cobol'. Runtimes are called python, nodejs, golang, java, ruby, php, dotnet"
        ),
    );
    check(
        "python: '3.11', php: '8.4'",
        "'true'",
        "YAML_FILE_ERROR: No build image has all of these runtime versions: php 8.4 is in debian-13; python 3.11 is in debian-12",
    );
}

#[test]
fn images_are_named_as_docker_does() {
    for (image, base) in [
        ("debian-12", "debian-12"),
        ("node:20", "oci:docker.io/library/node:20"),
        (
            "public.ecr.aws/docker/library/node:20",
            "oci:public.ecr.aws/docker/library/node:20",
        ),
        ("oci:registry.example/a:1", "oci:registry.example/a:1"),
        ("tar:base.tar", "tar:base.tar"),
        ("no-such-base", "no-such-base"),
    ] {
        assert_eq!(named(image), base);
    }
}

#[test]
fn a_login_is_for_the_registry_of_the_environment_s_image() {
    let mut order = order(
        Buildspec::parse("version: 0.2\nphases: { build: { commands: ['true'] } }\n", "b")
            .unwrap()
            .0,
    );
    order.login = Some(Secret::new("ada:x".to_owned()));
    assert!(login(&order, "registry.example/a:1").is_none(), "it has none");
    order.image = Some("oci:registry.example/ci:1".to_owned());
    for (image, has) in [
        ("registry.example/a:1", true),
        (
            "oci:registry.example/ci@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            true,
        ),
        ("registry.example:5000/a:1", false),
        ("elsewhere.example/a:1", false),
        ("debian-12", false),
    ] {
        assert_eq!(login(&order, image).is_some(), has, "{image}");
    }
}

#[test]
fn runtimes_that_no_image_has_are_known_before_a_build() {
    let said = |versions: &str| {
        let text = format!(
            "version: 0.2\nenv: {{ variables: {{ OLD: '6.0' }} }}\n\
             phases: {{ install: {{ runtime-versions: {{ {versions} }}, commands: ['true'] }} }}\n"
        );
        lacking(&Buildspec::parse(&text, "buildspec.yml").unwrap().0)
    };
    for (versions, why) in [
        ("nodejs: 99", "named '99' of nodejs"),
        ("dotnet: '6.0'", "named '6.0' of dotnet"),
        ("dotnet: $OLD", "named '6.0' of dotnet"),
        ("cobol: 1", "cobol"),
        ("dotnet: '8.0', python: '3.11'", "No build image has all"),
    ] {
        let text = said(versions).unwrap();
        assert!(
            text.starts_with("YAML_FILE_ERROR: ") && text.contains(why),
            "{text}"
        );
    }
    for versions in [
        "nodejs: 22",
        "python: latest",
        "dotnet: $GIVEN",
        "dotnet: '8.0', java: 21",
    ] {
        assert_eq!(said(versions), None, "{versions}");
    }
}
