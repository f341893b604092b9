//! Templates, flows and Packer's files, as goldens, by laws, and by what others wrote to check them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod again;
mod alarms;
mod asked;
mod beside;
mod boundary;
mod branches;
mod builds;
mod drive;
mod duties;
mod flow;
mod golden;
mod guard;
mod halves;
mod handlers;
mod hosts;
mod iam;
mod keys;
mod law;
mod machines;
mod matrix;
mod migrations;
mod notices;
mod order;
mod page;
mod password;
mod permits;
mod ports;
mod schemas;
mod sign_in;
mod standing;
mod tools;
mod traffic;
mod turns;
mod types;
mod wants;
mod wave;
mod world;
mod zones;

use aws::synth::{Config, Template};
use model::spec;
use serde_json::Value;

/// A platform with two foundations. `options` is what the app's production wants, or `tests` for an app with tests.
fn config(options: &str) -> Config {
    let (tests, options) = match options {
        "tests" => ("tests = [{ name = 'smoke', buildspec = 'smoke.yml' }]", ""),
        options => ("", options),
    };
    let text = format!(
        "[foundations.production]\nregion = 'eu-central-1'\naccount = '111111111111'\ndomain = 'apps.example.com'\n\
         [foundations.other]\nregion = 'eu-central-1'\naccount = '222222222222'\ndomain = 'other.example.com'\n\
         deploys_from = 'production'\nnetwork = {{ cidr = '10.7.0.0/16' }}\n\
         [foundations.third]\nregion = 'eu-central-1'\naccount = '222222222222'\ndomain = 'third.example.com'\n\
         deploys_from = 'production'\nnetwork = {{ cidr = '10.8.0.0/16' }}\n\
         [apps.shop]\npipeline = 'production'\n{tests}\n[apps.shop.environments.production]\n{options}\n"
    );
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The template of a stack of the matrix.
fn template(name: &str) -> &'static Template {
    let found = matrix::matrix().iter().find(|stack| stack.name == name);
    &found.unwrap_or_else(|| panic!("there is no {name}")).template
}

/// What a template says of one of its resources.
fn of(template: &Template, id: &str) -> Value {
    let found = template.resource(id);
    found
        .unwrap_or_else(|| panic!("there is no {id}"))
        .properties
        .clone()
}

/// An app with one environment that asks for approval.
fn app(scaling: &str) -> spec::App {
    deployed("{}", scaling)
}

/// The same, deployed so.
fn deployed(deploy: &str, scaling: &str) -> spec::App {
    let text = format!(
        "app: shop\nhost: {{ env: {{ A: b }} }}\ndeploy: {deploy}\n\
         environments:\n  production:\n    approval: {{ required: 1 }}\n    scaling: {scaling}\n"
    );
    spec::App::parse(&text, "vend.yaml", &|_| true).unwrap().0
}
