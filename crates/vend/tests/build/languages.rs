//! A small app in each language, whose buildspec installs nothing that Debian and Ubuntu do not have.

use std::fs;

use crate::{has, place, said, tree, vend};

struct App {
    files: &'static [(&'static str, &'static str)],
    /// What its log says when its tests passed.
    passed: &'static str,
    /// A file of its artifact.
    leaves: &'static str,
}

const PYTHON: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases:
  install: { runtime-versions: { python: 3.x } }
  build: { commands: [python -m venv .venv, . .venv/bin/activate, python -m unittest -v] }
artifacts: { files: [greeter.py] }
",
        ),
        ("greeter.py", "def greet(name): return f'Hello, {name}'\n"),
        (
            "test_greeter.py",
            "import unittest, greeter
class Greets(unittest.TestCase):
    def test_greets(self): self.assertEqual(greeter.greet('Ada'), 'Hello, Ada')
",
        ),
    ],
    passed: "Ran 1 test",
    leaves: "greeter.py",
};

const NODE: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases:
  install: { runtime-versions: { nodejs: 18 }, commands: [npm ci] }
  build: { commands: [npm test] }
artifacts: { files: [greeter.js] }
",
        ),
        (
            "package.json",
            r#"{ "name": "greeter", "version": "1.0.0", "scripts": { "test": "node --test" } }"#,
        ),
        (
            "package-lock.json",
            r#"{ "name": "greeter", "version": "1.0.0", "lockfileVersion": 3, "packages": { "": { "name": "greeter", "version": "1.0.0" } } }"#,
        ),
        ("greeter.js", "exports.greet = (name) => `Hello, ${name}`;\n"),
        (
            "greeter.test.js",
            "const { greet } = require('./greeter');
require('node:test')('greets', () => require('node:assert').equal(greet('Ada'), 'Hello, Ada'));
",
        ),
    ],
    passed: "# pass 1",
    leaves: "greeter.js",
};

const JAVA: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases:
  install: { runtime-versions: { java: corretto17 } }
  build: { commands: [ant -q jar, java -ea -jar greeter.jar] }
artifacts: { files: [greeter.jar] }
",
        ),
        (
            "build.xml",
            r#"<project default="jar">
  <target name="jar">
    <mkdir dir="classes"/>
    <javac srcdir="src" destdir="classes" includeantruntime="false"/>
    <jar destfile="greeter.jar" basedir="classes"><manifest><attribute name="Main-Class" value="Greeter"/></manifest></jar>
  </target>
</project>
"#,
        ),
        (
            "src/Greeter.java",
            "record Greeter(String name) {
    public static void main(String[] arguments) {
        assert new Greeter(\"Ada\").toString().equals(\"Greeter[name=Ada]\");
        System.out.println(\"greets as \" + new Greeter(\"Ada\"));
    }
}
",
        ),
    ],
    passed: "greets as Greeter[name=Ada]",
    leaves: "greeter.jar",
};

const GO: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases:
  install: { runtime-versions: { golang: 1.19 } }
  build: { commands: [go vet ./..., go test -v ./..., go build -o bin/greeter .] }
artifacts: { base-directory: bin, files: [greeter] }
",
        ),
        ("go.mod", "module example.com/greeter\n\ngo 1.19\n"),
        (
            "main.go",
            "package main\n\nimport \"fmt\"\n\nfunc greet(name string) string { return \"Hello, \" + name }\n\nfunc main() { fmt.Println(greet(\"Ada\")) }\n",
        ),
        (
            "main_test.go",
            "package main\n\nimport \"testing\"\n\nfunc TestGreets(t *testing.T) {\n\tif greet(\"Ada\") != \"Hello, Ada\" {\n\t\tt.Fatal(greet(\"Ada\"))\n\t}\n}\n",
        ),
    ],
    passed: "--- PASS: TestGreets",
    leaves: "greeter",
};

const PHP: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases:
  install:
    runtime-versions: { php: 8.x }
    commands: [apt-get update -q, apt-get install -qy --no-install-recommends phpunit]
  build: { commands: [composer install --no-interaction, phpunit --log-junit junit.xml tests] }
artifacts: { files: ['src/**/*', 'vendor/**/*'] }
reports: { unit: { files: [junit.xml] } }
",
        ),
        (
            "composer.json",
            r#"{ "name": "acme/greeter", "require": { "php": ">=8.0" }, "autoload": { "psr-4": { "Acme\\": "src/" } }, "repositories": [{ "packagist.org": false }] }"#,
        ),
        (
            "src/Greeter.php",
            "<?php\nnamespace Acme;\nfinal class Greeter { public function greet(string $name): string { return \"Hello, $name\"; } }\n",
        ),
        (
            "tests/GreeterTest.php",
            "<?php
require __DIR__ . '/../vendor/autoload.php';
final class GreeterTest extends PHPUnit\\Framework\\TestCase {
    public function testGreets(): void { $this->assertSame('Hello, Ada', (new Acme\\Greeter())->greet('Ada')); }
}
",
        ),
    ],
    passed: "unit  1 of 1 passed",
    leaves: "vendor/autoload.php",
};

const RUBY: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases:
  install: { runtime-versions: { ruby: 3.x }, commands: [bundle install] }
  build: { commands: [bundle exec rake test] }
artifacts: { files: ['lib/**/*'] }
",
        ),
        ("Gemfile", "gem 'rake'\ngem 'minitest'\n"),
        (
            "Rakefile",
            "require 'rake/testtask'\nRake::TestTask.new { |tests| tests.pattern = 'test/*_test.rb' }\n",
        ),
        ("lib/greeter.rb", "def greet(name) = \"Hello, #{name}\"\n"),
        (
            "test/greeter_test.rb",
            "require 'minitest/autorun'
require 'greeter'
class GreeterTest < Minitest::Test
  def test_greets = assert_equal('Hello, Ada', greet('Ada'))
end
",
        ),
    ],
    passed: "1 runs, 1 assertions, 0 failures",
    leaves: "lib/greeter.rb",
};

const RUST: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
phases: { build: { commands: [cargo test --locked, cargo build --release --locked] } }
artifacts: { base-directory: target/release, files: [greeter] }
",
        ),
        (
            "Cargo.toml",
            "[package]\nname = \"greeter\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
        ),
        // Cargo writes this since 1.78, and older ones do not read it.
        (
            "Cargo.lock",
            "version = 4\n\n[[package]]\nname = \"greeter\"\nversion = \"0.1.0\"\n",
        ),
        (
            "src/main.rs",
            "fn greet(name: &str) -> String {\n    format!(\"Hello, {name}\")\n}\n\nfn main() {\n    println!(\"{}\", greet(\"Ada\"));\n}\n\n#[test]\nfn greets() {\n    assert_eq!(greet(\"Ada\"), \"Hello, Ada\");\n}\n",
        ),
    ],
    passed: "test greets ... ok",
    leaves: "greeter",
};

/// It has no packages; the audit of packages would still ask nuget.org for the list of the vulnerable ones.
const DOTNET: App = App {
    files: &[
        (
            "buildspec.yml",
            "version: 0.2
env: { variables: { NuGetAudit: 'false' } }
phases:
  install: { runtime-versions: { dotnet: 8.0 } }
  build: { commands: [dotnet publish -c Release -o out, dotnet out/greeter.dll] }
artifacts: { base-directory: out, files: ['**/*'] }
",
        ),
        (
            "greeter.csproj",
            r#"<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net8.0</TargetFramework></PropertyGroup>
</Project>
"#,
        ),
        (
            "Program.cs",
            "System.Console.WriteLine($\"greets as {1 + 6}\");\n",
        ),
    ],
    passed: "greets as 7",
    leaves: "greeter.dll",
};

/// Nothing of the host's goes in but the tree: each toolchain comes from the system's packages.
#[track_caller]
fn builds(app: &App) {
    let Some(_one) = place() else { return };
    let tree = tree(app.files);
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("out");
    let output = vend(tree.path(), &["--artifacts", to.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    has(&text, &[app.passed, "built in "]);
    assert!(
        fs::metadata(to.join(app.leaves)).unwrap().len() > 0,
        "{}",
        app.leaves
    );
}

#[test]
fn python() {
    builds(&PYTHON);
}

#[test]
fn node() {
    builds(&NODE);
}

#[test]
fn java() {
    builds(&JAVA);
}

#[test]
fn go() {
    builds(&GO);
}

#[test]
fn php() {
    builds(&PHP);
}

#[test]
fn ruby() {
    builds(&RUBY);
}

#[test]
fn rust() {
    builds(&RUST);
}

#[test]
fn dotnet() {
    builds(&DOTNET);
}

#[test]
fn a_runtime_that_there_is_not_says_which_there_are() {
    let Some(_one) = place() else { return };
    let spec = "version: 0.2\nphases: { install: { runtime-versions: { dotnet: '6.0' } } }\n";
    let output = vend(tree(&[("buildspec.yml", spec)]).path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    has(
        &said(&output),
        &[
            "Unknown runtime version named '6.0' of dotnet. This build image has the following versions: 8.0, 10.0",
        ],
    );
}
