//! What the guide says of `aws.toml` is so.

use aws::synth::{Config, Output, Priorities, all};
use model::spec;

/// The options of the guide: those that are marked as defaults change nothing.
#[test]
fn the_defaults_of_the_guide_are_the_defaults() {
    let page = include_str!("../../../../docs/aws.md");
    let (_, rest) = page.split_once("```toml\nplatform = ").unwrap();
    let block = format!("platform = {}", rest.split_once("```").unwrap().0);
    let sections = [
        "[foundations.production]",
        "[foundations.production.network]",
        "[apps.shop.environments.production]",
    ];
    let mut is_meant = true;
    let mut said = String::new();
    let mut count = 0;
    for line in block.lines() {
        if line.starts_with('[') {
            is_meant = sections.iter().any(|section| line.starts_with(section));
        }
        let is_default = line.contains("#=");
        let is_needed = line.starts_with('[') || line.contains("# needed");
        if is_meant && (is_default || is_needed) {
            count += usize::from(is_default);
            said.push_str(&format!("{line}\n"));
        }
    }
    assert!(count > 20, "{said}");
    let least = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'apps.example.com'\n";
    let (whole, least) = (made(&said), made(least));
    for (one, other) in whole.stacks.iter().zip(&least.stacks) {
        assert_eq!(one.template.yaml(), other.template.yaml(), "{}", one.name);
    }
    assert_eq!(whole.files, least.files);
}

fn made(config: &str) -> Output {
    let config: Config = toml::from_str(config).unwrap_or_else(|error| panic!("{error}\n{config}"));
    let app = "app: shop\nhost: { port: 8080 }\ndatabase: { engine: mariadb }\nenvironments: { production: { branch: main } }\n";
    let (app, _) = spec::App::parse(app, "vend.yaml", &|_| true).unwrap();
    all(&config, &app, &mut Priorities::default()).unwrap()
}
