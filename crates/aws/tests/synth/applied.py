"""Applies templates to moto, in order, and looks for each resource through the API of its own service.

moto answers CREATE_COMPLETE for types that it does not know and makes nothing; those are counted, not looked for.
Usage: applied.py DIRECTORY NAME..., where DIRECTORY/NAME.yaml is the template of the stack NAME.
"""

import json
import os
import sys

os.environ.update(AWS_DEFAULT_REGION="eu-central-1", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")

import boto3
from moto import mock_aws

import balancers


def looks(client):
    """By type: is the resource with this physical id there?"""
    ec2, iam, s3, logs = client("ec2"), client("iam"), client("s3"), client("logs")
    elb, sns, r53 = client("elbv2"), client("sns"), client("route53")
    has = lambda call, key, **ask: len(call(**ask)[key]) == 1
    return {
        "AWS::EC2::VPC": lambda i: has(ec2.describe_vpcs, "Vpcs", VpcIds=[i]),
        "AWS::EC2::Subnet": lambda i: has(ec2.describe_subnets, "Subnets", SubnetIds=[i]),
        "AWS::EC2::RouteTable": lambda i: has(ec2.describe_route_tables, "RouteTables", RouteTableIds=[i]),
        "AWS::EC2::InternetGateway": lambda i: has(ec2.describe_internet_gateways, "InternetGateways", InternetGatewayIds=[i]),
        "AWS::EC2::NatGateway": lambda i: has(ec2.describe_nat_gateways, "NatGateways", NatGatewayIds=[i]),
        "AWS::EC2::SecurityGroup": lambda i: has(ec2.describe_security_groups, "SecurityGroups", GroupIds=[i]),
        "AWS::EC2::FlowLog": lambda i: has(ec2.describe_flow_logs, "FlowLogs", FlowLogIds=[i]),
        "AWS::EC2::VPCEndpoint": lambda i: has(ec2.describe_vpc_endpoints, "VpcEndpoints", VpcEndpointIds=[i]),
        "AWS::EC2::LaunchTemplate": lambda i: has(ec2.describe_launch_templates, "LaunchTemplates", LaunchTemplateIds=[i]),
        "AWS::AutoScaling::AutoScalingGroup": lambda i: has(
            client("autoscaling").describe_auto_scaling_groups, "AutoScalingGroups", AutoScalingGroupNames=[i]),
        "AWS::ElasticLoadBalancingV2::LoadBalancer": lambda i: has(elb.describe_load_balancers, "LoadBalancers", LoadBalancerArns=[i]),
        "AWS::ElasticLoadBalancingV2::TargetGroup": lambda i: has(elb.describe_target_groups, "TargetGroups", TargetGroupArns=[i]),
        "AWS::ElasticLoadBalancingV2::Listener": lambda i: has(elb.describe_listeners, "Listeners", ListenerArns=[i]),
        "AWS::ElasticLoadBalancingV2::ListenerRule": lambda i: has(elb.describe_rules, "Rules", RuleArns=[i]),
        "AWS::S3::Bucket": lambda i: s3.head_bucket(Bucket=i) is not None,
        "AWS::IAM::Role": lambda i: iam.get_role(RoleName=i)["Role"]["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith("-boundary"),
        "AWS::IAM::ManagedPolicy": lambda i: iam.get_policy(PolicyArn=i) is not None,
        "AWS::IAM::InstanceProfile": lambda i: iam.get_instance_profile(InstanceProfileName=i) is not None,
        "AWS::SNS::Topic": lambda i: sns.get_topic_attributes(TopicArn=i) is not None,
        "AWS::Route53::HostedZone": lambda i: r53.get_hosted_zone(Id=i) is not None,
        "AWS::Logs::LogGroup": lambda i: any(
            group["logGroupName"] == i for group in logs.describe_log_groups(logGroupNamePrefix=i)["logGroups"]),
        "AWS::RDS::DBInstance": lambda i: has(client("rds").describe_db_instances, "DBInstances", DBInstanceIdentifier=i),
        "AWS::KMS::Alias": lambda i: any(one["AliasName"] == i for one in client("kms").list_aliases()["Aliases"]),
        "AWS::EC2::EIP": lambda i: any(i in (one["PublicIp"], one["AllocationId"]) for one in ec2.describe_addresses()["Addresses"]),
        "AWS::KMS::Key": lambda i: any(key["KeyId"] == i for key in client("kms").list_keys()["Keys"]),
    }


@mock_aws
def main(directory, names):
    balancers.mend()
    client = lambda service: boto3.client(service)
    seen, unseen = {}, {}
    # moto makes no certificates by CloudFormation, and a listener must have one that is there.
    certificate = client("acm").request_certificate(DomainName="*.example.com")["CertificateArn"]
    for name in names:
        cfn = client("cloudformation")
        body = open(f"{directory}/{name}.yaml").read()
        image = client("ec2").describe_images()["Images"][0]["ImageId"]
        body = body.replace("AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", "AWS::EC2::Image::Id")
        body = body.replace("CertificateArn: !Ref Certificate", f"CertificateArn: {certificate}")
        body = body.replace("/aws/service/debian/release/12/latest/arm64", image)
        cfn.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])
        stack = cfn.describe_stacks(StackName=name)["Stacks"][0]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        table = looks(client)
        made = {}
        for page in cfn.get_paginator("list_stack_resources").paginate(StackName=name):
            for one in page["StackResourceSummaries"]:
                if one.get("LogicalResourceId"):
                    made[one["LogicalResourceId"]] = one
        for logical, kind in wanted(body):
            if kind not in table:
                unseen[kind] = unseen.get(kind, 0) + 1
                continue
            assert logical in made, f"{name}: {logical} ({kind}) was not made"
            physical = made[logical]["PhysicalResourceId"]
            assert table[kind](physical), f"{name}: {logical} is not there as {physical}"
            seen[kind] = seen.get(kind, 0) + 1
    print(json.dumps({"seen": sum(seen.values()), "unseen": sum(unseen.values()), "kinds": len(seen), "unseen_kinds": sorted(unseen)}))


def wanted(body):
    """Logical ids with their types, as cfn-lint reads the template."""
    from cfnlint.decode.cfn_yaml import loads

    template = loads(body)
    parameters = {name: part.get("Default") for name, part in template.get("Parameters", {}).items()}
    holds = {name: parameters[rule["Fn::Equals"][0]["Ref"]] == rule["Fn::Equals"][1]
             for name, rule in template.get("Conditions", {}).items() if "Fn::Equals" in rule}
    for logical, part in template["Resources"].items():
        if holds.get(part.get("Condition"), True):
            yield str(logical), str(part["Type"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
