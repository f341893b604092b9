//! What services of AWS want of a template beside its words: an order, room, a way to go, and a permission that nobody names.

use serde_json::{Value, json};

use crate::{matrix::matrix, of};

/// No repository of Amazon Linux 2023, on which builds run, has it.
#[test]
fn a_bake_fetches_the_plugin_by_which_packer_reaches_its_host() {
    let mut seen = 0;
    for bake in matrix().iter().filter_map(|own| own.template.resource("Bake")) {
        let machine = match bake.properties["Environment"]["Type"].as_str().unwrap() {
            "ARM_CONTAINER" => "linux_arm64",
            _ => "linux_64bit",
        };
        let url = format!(
            "https://s3.amazonaws.com/session-manager-downloads/plugin/latest/{machine}/session-manager-plugin.rpm"
        );
        let text = bake.properties["Source"]["BuildSpec"].as_str().unwrap();
        let words: Vec<&str> = text
            .split_whitespace()
            .filter(|word| word.contains("session-manager-plugin"))
            .collect();
        assert_eq!(words, [url]);
        seen += 1;
    }
    assert!(seen > 3);
}

/// CloudFormation starts the new one before the old one goes, so nothing of an instance may be both's.
#[test]
fn a_nat_instance_can_be_replaced() {
    let mut seen = 0;
    for template in matrix().iter().map(|own| &own.template) {
        let Some(instance) = template.resource("NatInstance") else {
            continue;
        };
        let launch = of(template, "NatLaunch");
        assert!(!launch.to_string().contains("NetworkInterfaceId"), "{launch}");
        assert!(instance.properties["NetworkInterfaces"].is_null());
        assert_eq!(instance.properties["SourceDestCheck"], false);
        assert_eq!(
            instance.properties["SecurityGroupIds"],
            json!([{ "Fn::GetAtt": "NatGroup.GroupId" }])
        );
        // These change without being replaced themselves.
        assert_eq!(of(template, "NatAddress")["InstanceId"]["Ref"], "NatInstance");
        let routes: Vec<&Value> = template
            .of("AWS::EC2::Route")
            .map(|own| &own.properties)
            .filter(|own| own["DestinationCidrBlock"] == "0.0.0.0/0" && own["GatewayId"].is_null())
            .collect();
        assert!(!routes.is_empty());
        for route in routes {
            assert_eq!(route["InstanceId"]["Ref"], "NatInstance");
        }
        seen += 1;
    }
    assert!(seen > 1);
}
