//! An environment in a Wavelength Zone: no load balancer stands there, so its names lead to the hosts themselves.
//!
//! Each half has a name, in which every host that is well keeps a record of its carrier address. The environment's own names
//! lead to the halves by weight, so that a release moves traffic by the same two parameters as anywhere else. A half without
//! hosts has one address that is nobody's, because a name must have something to lead to.
//!
//! Sources: "How AWS Wavelength works", "Values specific for weighted records" of the Route 53 guide, and for the records'
//! conditions "Using IAM policy conditions for fine-grained access control" there; 2026-11-22.

use std::fmt::Write as _;

use model::spec::Health;
use serde_json::{Value, json};

use super::{Half, Scope, names};
use crate::synth::{
    policy::{Grant, arn, grant},
    template::{Resource, Template, re},
};

/// An address for documentation (RFC 5737), at which nobody is.
const NOBODY: &str = "192.0.2.1";
/// Seconds for which an address may be kept.
const TTL_S: u32 = 10;

impl Scope<'_> {
    /// The Wavelength Zone in which it stands.
    pub(super) fn wave(&self) -> Option<&str> {
        self.options.placement.wavelength.as_deref()
    }
}

/// `blue.shop-live.DOMAIN`
pub(super) fn name(scope: &Scope<'_>, half: Half) -> String {
    format!("{}.{}", half.word().to_lowercase(), names::own(scope)[0])
}

pub(super) fn add(template: &mut Template, scope: &Scope<'_>, notes: &mut Vec<String>) {
    let zone = || scope.shared("Zone");
    let own = names::own(scope);
    for half in scope.halves() {
        let word = half.word().to_lowercase();
        let below = name(scope, *half);
        let nobody = json!({
            "HostedZoneId": zone(), "Name": below, "Type": "A", "SetIdentifier": "nobody", "Weight": 0, "TTL": TTL_S.to_string(),
            "ResourceRecords": [NOBODY],
        });
        let about = format!("Nobody, until a host of the {word} half is well and says so here.");
        template.add(Resource::new(
            half.id("Nobody"),
            "AWS::Route53::RecordSet",
            about,
            nobody,
        ));
        let weight = if scope.halves().len() > 1 {
            re(half.id("Weight"))
        } else {
            json!(100)
        };
        for (name, id) in own.iter().zip(["Record", "BareRecord"]) {
            let record = json!({
                "HostedZoneId": zone(), "Name": name, "Type": "A", "SetIdentifier": word, "Weight": weight,
                "AliasTarget": { "DNSName": below, "HostedZoneId": zone(), "EvaluateTargetHealth": false },
            });
            let about = format!("{name} is the {word} half, by its weight.");
            let record = Resource::new(half.id(id), "AWS::Route53::RecordSet", about, record);
            template.add(record.after(half.id("Nobody")));
        }
        template.output(
            &half.id("Records"),
            "The zone and the name that the half's hosts keep, for flows",
            json!({ "Fn::Sub": [format!("${{Zone}}/{below}"), { "Zone": zone() }] }),
        );
    }
    template.skip(
        "W6001",
        "A flow asks the stack of its target for the zone: it may be in another account, where nothing of that foundation can be imported.",
    );
    let port = scope.spec.host.port;
    let url = format!("http://{}:{port}", own[own.len() - 1]);
    template.output("Url", "Where it answers, from the carrier's network", json!(url));
    notes.push(format!(
        "`placement.wavelength`: no load balancer stands there, so the app itself answers on port {port} of {}, and TLS is the app's own; \
         how long a name is kept decides how long the old hosts are still asked",
        own[0]
    ));
}

/// What a host needs to keep its record: that of its environment, and no other.
pub(super) fn grants(scope: &Scope<'_>) -> Vec<Grant> {
    let zone = json!({ "Fn::Sub": ["arn:${AWS::Partition}:route53:::hostedzone/${Zone}", { "Zone": scope.shared("Zone") }] });
    let names: Vec<String> = scope.halves().iter().map(|half| name(scope, *half)).collect();
    let own = json!({ "ForAllValues:StringEquals": {
        "route53:ChangeResourceRecordSetsActions": ["DELETE", "UPSERT"],
        "route53:ChangeResourceRecordSetsNormalizedRecordNames": names,
        "route53:ChangeResourceRecordSetsRecordTypes": ["A"],
    } });
    vec![
        grant(
            "KeepRecord",
            "A host that is well keeps its carrier address in its half's name, and takes away those of hosts that are gone",
            "route53:ChangeResourceRecordSets",
            [zone.clone()],
        )
        .when(own),
        grant(
            "ReadRecords",
            "Whose addresses are there",
            "route53:ListResourceRecordSets",
            [zone],
        ),
        grant(
            "LookAtHosts",
            "Its own carrier address, and which hosts are gone; the call knows no single resources",
            "ec2:DescribeInstances",
            [json!("*")],
        ),
        grant(
            "SayUnwell",
            "A host whose app stays unwell is replaced, as one that a load balancer found so",
            "autoscaling:SetInstanceHealth",
            [arn(
                "autoscaling",
                &format!("autoScalingGroup:*:autoScalingGroupName/{}-*", scope.name),
            )],
        ),
    ]
}

/// The part of a host's first script that keeps its record. `${Zone}` and `${Name}` are filled in by the template.
pub(super) fn script(scope: &Scope<'_>) -> String {
    let health = &scope.spec.host.health;
    let path = health.path.replace('\'', r"'\''").replace("${", "${!");
    TEXT.replace("@PORT@", &scope.spec.host.port.to_string())
        .replace("@PATH@", &path)
        .replace("@GOOD@", &codes(health))
        .replace("@TIMEOUT@", &health.timeout.as_secs().max(1).to_string())
        .replace("@INTERVAL@", &health.interval.as_secs().max(1).to_string())
        .replace("@HEALTHY@", &health.healthy.to_string())
        .replace("@UNHEALTHY@", &health.unhealthy.to_string())
        .replace("@TTL@", &TTL_S.to_string())
}

/// Ranges of codes as bash compares them.
fn codes(health: &Health) -> String {
    let mut text = String::new();
    for (low, high) in &health.codes {
        let or = if text.is_empty() { "" } else { " || " };
        let _ = write!(text, "{or}(code >= {low} && code <= {high})");
    }
    text
}

/// For what stands in the template as values of `${…}` in [`script`].
pub(super) fn values(scope: &Scope<'_>, half: Half) -> Value {
    json!({ "Zone": scope.shared("Zone"), "Name": name(scope, half) })
}

/// `${!` is `${` after CloudFormation.
const TEXT: &str = r#"cat > /usr/local/sbin/vend-record <<'END_OF_SCRIPT'
#!/bin/bash
# Keeps this host's carrier address in its half's name for as long as the app is well here.
set -uo pipefail
export AWS_DEFAULT_REGION=${AWS::Region}
zone='${Zone}' name='${Name}'
ask() { curl -fsS -m 2 -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"; }
enter() { token=$(curl -fsS -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' http://169.254.169.254/latest/api/token); }
change() {
  aws route53 change-resource-record-sets --hosted-zone-id "$zone" --output text --query ChangeInfo.Status --change-batch \
    "$(jq -nc --arg deed "$1" --argjson record "$2" '{Changes:[{Action:$deed,ResourceRecordSet:$record}]}')"
}
records() {
  aws route53 list-resource-record-sets --hosted-zone-id "$zone" --start-record-name "$name" --start-record-type A --max-items 100 \
    --output json | jq -c --arg name "$name." '.ResourceRecordSets[] | select(.Name == $name and .SetIdentifier != "nobody")'
}
join() {
  address=$(aws ec2 describe-instances --instance-ids "$host" --output text \
    --query 'Reservations[0].Instances[0].NetworkInterfaces[0].Association.CarrierIp')
  case "$address" in [0-9]*) ;; *) return 1 ;; esac
  change UPSERT "$(jq -nc --arg name "$name." --arg host "$host" --arg address "$address" \
    '{Name:$name,Type:"A",SetIdentifier:$host,Weight:1,TTL:@TTL@,ResourceRecords:[{Value:$address}]}')"
}
# Takes away the records of these hosts.
leave() {
  records | jq -c --arg hosts " $* " 'select(.SetIdentifier as $id | $hosts | contains(" " + $id + " "))' |
    while read -r record; do change DELETE "$record"; done
}
# What others took away for a host that is gone comes back, and what hosts that are gone left behind goes.
sweep() {
  there=$(records | jq -r .SetIdentifier) || return 0
  if [ "$is_in" = yes ] && ! grep -qxF "$host" <<< "$there"; then join; fi
  [ -n "$there" ] || return 0
  # A host that is gone for good is not known any more: asked for by a filter, it is left out and no error.
  live=$(aws ec2 describe-instances --output text --query 'Reservations[].Instances[].InstanceId' --filters \
    "Name=instance-id,Values=$(tr '\n' , <<< "$there" | sed 's/,$//')" Name=instance-state-name,Values=pending,running) || return 0
  gone=
  for one in $there; do case " $(tr '\t\n' '  ' <<< "$live") " in *" $one "*) ;; *) gone="$gone $one" ;; esac; done
  if [ -n "$gone" ]; then leave $gone; fi
}
enter
host=$(ask instance-id) || exit 1
if [ "$#" -gt 0 ] && [ "$1" = leave ]; then leave "$host"; exit; fi
good=0 bad=0 is_in=no was_in=no next=$(( SECONDS + RANDOM % 60 )) renew=$(( SECONDS + 10000 ))
while sleep @INTERVAL@; do
  if (( SECONDS >= renew )); then enter; renew=$(( SECONDS + 10000 )); fi
  code=$(curl -s -o /dev/null -m @TIMEOUT@ -w '%{http_code}' 'http://127.0.0.1:@PORT@@PATH@')
  code=$(( 10#$code ))
  if (( @GOOD@ )); then good=$(( good + 1 )) bad=0; else bad=$(( bad + 1 )) good=0; fi
  # What must go gets nothing new, and finishes what it has.
  life=$(ask autoscaling/target-lifecycle-state) || life=InService
  if [ "$life" = InService ] && (( good >= @HEALTHY@ )) && [ "$is_in" = no ]; then
    if join; then is_in=yes was_in=yes; fi
  elif [ "$is_in" = yes ] && { [ "$life" != InService ] || (( bad >= @UNHEALTHY@ )); }; then
    if leave "$host"; then is_in=no; fi
  fi
  if [ "$was_in" = yes ] && [ "$life" = InService ] && (( bad >= 10 * @UNHEALTHY@ )); then
    aws autoscaling set-instance-health --instance-id "$host" --health-status Unhealthy && was_in=no
  fi
  if (( SECONDS >= next )); then sweep; next=$(( SECONDS + 60 + RANDOM % 60 )); fi
done
END_OF_SCRIPT
chmod 0755 /usr/local/sbin/vend-record
cat > /etc/systemd/system/vend-record.service <<'END_OF_UNIT'
[Unit]
Description=This host's address in the environment's name
Wants=network-online.target
After=network-online.target vend-environment.service
[Service]
ExecStart=/usr/local/sbin/vend-record
ExecStop=/usr/local/sbin/vend-record leave
Restart=always
RestartSec=5
[Install]
WantedBy=multi-user.target
END_OF_UNIT
"#;
