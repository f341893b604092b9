//! The load balancer that environments share, its certificate, and the zone of its names.

use serde_json::{Value, json};

use super::{Scope, egress::closed, named};
use crate::synth::template::{Resource, Template, att, re, sub};

/// TLS 1.2 and 1.3, forward secrecy, no CBC.
pub(crate) const TLS: &str = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06";

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    zone(template, scope);
    certificate(template, scope);
    group(template, scope);
    balancer(template, scope);
    listeners(template);
    let name = att("Balancer.LoadBalancerFullName");
    for alarm in balancers(name, &scope.name(), &super::topic(), ERRORS) {
        template.add(alarm);
    }
    if scope.options.firewall {
        firewall(template, scope);
    }
}

/// Answers of the load balancer's own in five minutes, of all that share it.
const ERRORS: u32 = 10;

/// What the load balancer answers itself when a host breaks off or says nothing: no metric of a target counts it.
pub(crate) fn balancers(name: Value, stack: &str, topic: &Value, errors: u32) -> [Resource; 2] {
    [
        (
            "BalancerBroken",
            "HTTPCode_ELB_502_Count",
            "Too many hosts that break off.",
        ),
        (
            "BalancerTimeouts",
            "HTTPCode_ELB_504_Count",
            "Too many hosts that say nothing.",
        ),
    ]
    .map(|(id, metric, about)| {
        let properties = json!({
            "AlarmDescription": format!("{stack}: {metric}"),
            "Namespace": "AWS/ApplicationELB",
            "MetricName": metric,
            "Dimensions": [{ "Name": "LoadBalancer", "Value": name }],
            "Statistic": "Sum",
            "Period": 300,
            "EvaluationPeriods": 1,
            "Threshold": errors,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            "AlarmActions": [topic],
            "OKActions": [topic],
        });
        Resource::new(id, "AWS::CloudWatch::Alarm", about, properties)
    })
}

fn zone(template: &mut Template, scope: &Scope<'_>) {
    if scope.options.zone.is_none() {
        let properties = json!({
            "Name": scope.options.domain.as_str(),
            "HostedZoneConfig": { "Comment": sub("Names of ${AWS::StackName}") },
        });
        let about = "Names of all environments. The zone above must point to its name servers once, see the output NameServers.";
        template.add(Resource::new("Zone", "AWS::Route53::HostedZone", about, properties).retained());
        let servers = json!({ "Fn::Join": [" ", att("Zone.NameServers")] });
        template.output(
            "NameServers",
            "What the zone above must name for this domain",
            servers,
        );
    }
    template.export("Zone", "The zone of all names", zone_id(scope));
    template.export(
        "Domain",
        "What names end in",
        json!(scope.options.domain.as_str()),
    );
}

fn zone_id(scope: &Scope<'_>) -> Value {
    scope
        .options
        .zone
        .as_ref()
        .map_or_else(|| re("Zone"), |zone| json!(zone.as_str()))
}

fn certificate(template: &mut Template, scope: &Scope<'_>) {
    let domain = scope.options.domain.as_str();
    let properties = json!({
        "DomainName": format!("*.{domain}"),
        "SubjectAlternativeNames": [domain],
        "ValidationMethod": "DNS",
        "DomainValidationOptions": [{ "DomainName": format!("*.{domain}"), "HostedZoneId": zone_id(scope) }],
    });
    let about = "For all names below the domain; renews itself as long as the zone answers.";
    let certificate = Resource::new(
        "Certificate",
        "AWS::CertificateManager::Certificate",
        about,
        properties,
    )
    .skip(
        "CKV2_AWS_71",
        "Environments come and go with their branches: one certificate for all names below the domain.",
    );
    template.add(certificate);
}

fn group(template: &mut Template, scope: &Scope<'_>) {
    let open = |port: u16, about: &str| json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0", "Description": about });
    let properties = json!({
        "GroupDescription": "The load balancer: from everywhere, to hosts",
        "VpcId": re("Vpc"),
        "SecurityGroupIngress": [open(80, "HTTP, redirected"), open(443, "HTTPS")],
        "SecurityGroupEgress": [closed()],
        "Tags": named("balancer"),
    });
    let about = "The only group that the world reaches. What goes out of it is one rule for each tier of hosts, and one for providers.";
    let group = Resource::new("BalancerGroup", "AWS::EC2::SecurityGroup", about, properties)
        .skip("CKV_AWS_260", "Port 80 is open so that it can redirect to 443.");
    template.add(group);
    for letter in scope.options.network.zones.letters() {
        let properties = json!({
            "GroupId": att("BalancerGroup.GroupId"),
            "IpProtocol": "tcp",
            "FromPort": 1,
            "ToPort": 65_535,
            "CidrIp": att(format!("PrivateSubnet{letter}.CidrBlock")),
            "Description": "Hosts, on the port that their own group opens",
        });
        let about = "To hosts; which port is open is each environment's own.";
        template.add(Resource::new(
            format!("BalancerToHosts{letter}"),
            "AWS::EC2::SecurityGroupEgress",
            about,
            properties,
        ));
    }
    template.add(to_providers());
    template.export(
        "BalancerGroup",
        "The load balancer's security group",
        att("BalancerGroup.GroupId"),
    );
}

/// A load balancer asks the provider itself, from its own addresses, who has signed in.
pub(crate) fn to_providers() -> Resource {
    let properties = json!({
        "GroupId": att("BalancerGroup.GroupId"),
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "CidrIp": "0.0.0.0/0",
        "Description": "Providers of identities",
    });
    let about = "To the providers of environments that want to know who somebody is (`authenticate`).";
    Resource::new(
        "BalancerToProviders",
        "AWS::EC2::SecurityGroupEgress",
        about,
        properties,
    )
}

fn balancer(template: &mut Template, scope: &Scope<'_>) {
    let protection = protection(template, scope.options.protected);
    let subnets: Vec<Value> = scope
        .options
        .network
        .zones
        .letters()
        .iter()
        .map(|letter| re(format!("PublicSubnet{letter}")))
        .collect();
    let properties = json!({
        "Type": "application",
        "Scheme": "internet-facing",
        "IpAddressType": "ipv4",
        "Subnets": subnets,
        "SecurityGroups": [att("BalancerGroup.GroupId")],
        "LoadBalancerAttributes": attributes(re("LogsBucket"), "balancer/shared", protection),
        "Tags": named("balancer"),
    });
    let resource = Resource::new(
        "Balancer",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "Shared by all environments.",
        properties,
    )
    .after("GatewayAttachment")
    .after("LogsBucketPolicy");
    template.add(unprotected(resource, scope.options.protected));
    template.export(
        "BalancerName",
        "The load balancer, as metrics name it",
        att("Balancer.LoadBalancerFullName"),
    );
    template.export(
        "BalancerDns",
        "The load balancer's own name",
        att("Balancer.DNSName"),
    );
    template.export(
        "BalancerZone",
        "The zone of the load balancer's own name",
        att("Balancer.CanonicalHostedZoneID"),
    );
}

/// A load balancer that may be deleted says that it was asked for.
pub(crate) fn unprotected(resource: Resource, protected: bool) -> Resource {
    match protected {
        true => resource,
        false => resource.skip(
            "CKV_AWS_150",
            "`protected = false` asks for one that can be deleted.",
        ),
    }
}

/// Whether a load balancer refuses to be deleted.
pub(crate) fn protection(template: &mut Template, protected: bool) -> Value {
    match protected {
        true => template.guard("true", "false"),
        false => json!("false"),
    }
}

/// What every load balancer has: logs, and no request with headers that two readers take for two different things.
pub(crate) fn attributes(bucket: Value, prefix: &str, protection: Value) -> Value {
    json!([
        { "Key": "access_logs.s3.enabled", "Value": "true" },
        { "Key": "access_logs.s3.bucket", "Value": bucket },
        { "Key": "access_logs.s3.prefix", "Value": prefix },
        { "Key": "deletion_protection.enabled", "Value": protection },
        { "Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true" },
        { "Key": "routing.http.desync_mitigation_mode", "Value": "defensive" },
    ])
}

/// Port 80 says where port 443 is.
pub(crate) fn redirect() -> Value {
    json!([{ "Type": "redirect", "RedirectConfig": { "Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301" } }])
}

/// What no rule knows.
pub(crate) fn unknown() -> Value {
    json!([{
        "Type": "fixed-response",
        "FixedResponseConfig": { "StatusCode": "503", "ContentType": "text/plain", "MessageBody": "host not found" },
    }])
}

fn listeners(template: &mut Template) {
    let properties = json!({ "LoadBalancerArn": re("Balancer"), "Port": 80, "Protocol": "HTTP", "DefaultActions": redirect() });
    template.add(Resource::new(
        "HttpListener",
        "AWS::ElasticLoadBalancingV2::Listener",
        "Sends everybody to HTTPS.",
        properties,
    ));
    let properties = json!({
        "LoadBalancerArn": re("Balancer"),
        "Port": 443,
        "Protocol": "HTTPS",
        "SslPolicy": TLS,
        "Certificates": [{ "CertificateArn": re("Certificate") }],
        "DefaultActions": unknown(),
    });
    let about = "Knows environments by their rules; what no rule knows is `host not found`.";
    template.add(Resource::new(
        "HttpsListener",
        "AWS::ElasticLoadBalancingV2::Listener",
        about,
        properties,
    ));
    template.export("HttpListener", "Port 80", re("HttpListener"));
    template.export("HttpsListener", "Port 443", re("HttpsListener"));
}

fn firewall(template: &mut Template, scope: &Scope<'_>) {
    let metric = |name: &str| json!({ "SampledRequestsEnabled": true, "CloudWatchMetricsEnabled": true, "MetricName": name });
    let rule = |priority: u32, name: &str| {
        json!({
            "Name": name,
            "Priority": priority,
            "OverrideAction": { "None": {} },
            "Statement": { "ManagedRuleGroupStatement": { "VendorName": "AWS", "Name": name } },
            "VisibilityConfig": metric(name),
        })
    };
    let properties = json!({
        "Scope": "REGIONAL",
        "DefaultAction": { "Allow": {} },
        "Rules": [
            rule(1, "AWSManagedRulesAmazonIpReputationList"),
            rule(2, "AWSManagedRulesCommonRuleSet"),
            rule(3, "AWSManagedRulesKnownBadInputsRuleSet"),
        ],
        "VisibilityConfig": metric(&scope.name()),
    });
    template.add(Resource::new(
        "Firewall",
        "AWS::WAFv2::WebACL",
        "Stops what AWS knows as attacks.",
        properties,
    ));
    let properties = json!({ "ResourceArn": re("Balancer"), "WebACLArn": att("Firewall.Arn") });
    template.add(Resource::new(
        "FirewallBeforeBalancer",
        "AWS::WAFv2::WebACLAssociation",
        "In front of the load balancer.",
        properties,
    ));
    let group = json!({
        "LogGroupName": format!("aws-waf-logs-{}", scope.name()),
        "KmsKeyId": att("Key.Arn"),
        "RetentionInDays": super::days(scope.options.retention.logs),
    });
    template.add(Resource::new(
        "FirewallLogGroup",
        "AWS::Logs::LogGroup",
        "What was stopped.",
        group,
    ));
    let properties = json!({
        "ResourceArn": att("Firewall.Arn"),
        "LogDestinationConfigs": [sub("arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${FirewallLogGroup}")],
        "RedactedFields": [{ "SingleHeader": { "Name": "authorization" } }, { "SingleHeader": { "Name": "cookie" } }],
    });
    let about = "Without what lets somebody in.";
    template.add(Resource::new(
        "FirewallLogs",
        "AWS::WAFv2::LoggingConfiguration",
        about,
        properties,
    ));
}
