//! Who must sign in is asked by the balancer.

use aws::synth::{Config, Priorities, all};
use model::spec;
use serde_json::Value;

use crate::keys::{LOGIN, made};

/// The balancer asks who somebody is before anything of the app is reached, and the secret is in no template.
#[test]
fn who_must_sign_in_is_asked_first() {
    let (stacks, _) = made(LOGIN).unwrap();
    let text = &stacks["vend-production-shop-live"];
    let template: Value = serde_json::from_str(text).unwrap();
    let rules: Vec<&Value> = template["Resources"]
        .as_object()
        .unwrap()
        .values()
        .filter(|own| own["Type"] == "AWS::ElasticLoadBalancingV2::ListenerRule")
        .collect();
    assert!(!rules.is_empty());
    for rule in rules {
        let actions = rule["Properties"]["Actions"].as_array().unwrap();
        let order: Vec<(&str, u64)> = actions
            .iter()
            .map(|own| (own["Type"].as_str().unwrap(), own["Order"].as_u64().unwrap()))
            .collect();
        assert_eq!(order, [("authenticate-oidc", 1), ("forward", 2)]);
        let provider = &actions[0]["AuthenticateOidcConfig"];
        assert_eq!(
            provider["ClientSecret"],
            "{{resolve:secretsmanager:vend/production/shop/live/oidc:SecretString}}"
        );
        assert_eq!(provider["SessionTimeout"], 7 * 24 * 3_600);
    }
    let config: Config = toml::from_str(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n[apps.shop.environments.live]\nplain_http = true\n",
    )
    .unwrap();
    let yaml = format!("app: shop\n{LOGIN}\nenvironments: {{ live: {{}} }}\n");
    let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let why = all(&config, &app, &mut Priorities::default())
        .unwrap_err()
        .to_string();
    assert!(why.contains("port 80 would let everybody in"), "{why}");
}
