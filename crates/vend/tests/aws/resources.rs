//! Each resource of each template is looked for by its logical id, because moto says that a stack is complete although it ignores types.

use std::collections::BTreeSet;

use super::World;

/// What moto 5.2.5 ignores, as docs/aws.md says.
const IGNORED: [&str; 16] = [
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Route",
    "AWS::ApiGatewayV2::Stage",
    "AWS::AutoScaling::LifecycleHook",
    "AWS::AutoScaling::ScalingPolicy",
    "AWS::Budgets::Budget",
    "AWS::CloudTrail::Trail",
    "AWS::CloudWatch::Alarm",
    "AWS::CodeBuild::Project",
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::Logs::MetricFilter",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SecretsManager::Secret",
];

/// All that the templates have is made, but for the types that moto ignores; and those are ignored, so that the list stays true.
pub fn every_resource_is_there(world: &World) {
    let stacks = world.python(
        "from cfnlint.decode import cfn_yaml\n\
         c = client('cloudformation')\nout = []\n\
         for s in c.describe_stacks()['Stacks']:\n\
         \x20   name = s['StackName']\n\
         \x20   pages = c.get_paginator('list_stack_resources').paginate(StackName=name)\n\
         \x20   made = [r['LogicalResourceId'] for p in pages for r in p['StackResourceSummaries']]\n\
         \x20   template = cfn_yaml.loads(c.get_template(StackName=name)['TemplateBody'])\n\
         \x20   out += [[name, i, r['Type'], i in made] for i, r in template['Resources'].items()]\n\
         print(json.dumps(out))",
    );
    let stacks: Vec<(String, String, String, bool)> = serde_json::from_str(&stacks).unwrap();
    assert!(stacks.len() > 100, "{stacks:?}");
    let of = |is_there: bool| {
        let those = stacks.iter().filter(|(.., made)| *made == is_there);
        those
            .map(|(.., kind, _)| kind.as_str())
            .collect::<BTreeSet<&str>>()
    };
    let missing = of(false);
    assert_eq!(missing, BTreeSet::from(IGNORED), "{stacks:#?}");
    assert!(
        of(true).is_disjoint(&missing),
        "some of a type are made, some not: {stacks:#?}"
    );
}
