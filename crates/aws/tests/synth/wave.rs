//! An environment in a Wavelength Zone: where it stands, how its hosts keep their names, and how a release finds them well.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use asl::Status;
use aws::synth::{Config, Priorities, all};
use model::spec;
use serde_json::{Value, json};

use crate::{
    of, template,
    world::{FIRST, World, failure, run},
};

const PLACED: &str = "placement = { wavelength = 'eu-central-1-wl1-muc-wlz-1' }";

/// As Route 53 answers: what begins at the name, also what belongs to others.
pub fn records(input: &Value, hosts: u32) -> Value {
    assert_eq!(input["HostedZoneId"], "ZoneId");
    let name = input["StartRecordName"].as_str().unwrap();
    let record = |name: &str, id: &str| json!({ "Name": name, "Type": "A", "SetIdentifier": id });
    let mut all = vec![record(&format!("{name}."), "nobody")];
    all.extend((0..hosts).map(|n| record(&format!("{name}."), &format!("i-{n}"))));
    all.push(record("zz.other.test.", "i-9"));
    all.push(json!({ "Name": "zzz.other.test.", "Type": "TXT" }));
    json!({ "ResourceRecordSets": all })
}

#[test]
fn hosts_stand_there_and_their_database_in_the_region() {
    let network = template("wave-vend-production");
    let subnet = of(network, "EuCentral1Wl1MucWlz1CarrierSubnet");
    assert_eq!(subnet["AvailabilityZone"], "eu-central-1-wl1-muc-wlz-1");
    assert_eq!(subnet["CidrBlock"], "10.3.242.0/23");
    let route = of(network, "CarrierRoute");
    assert_eq!(route["CarrierGatewayId"]["Ref"], "CarrierGateway");
    let own = template("wave-vend-production-game-production");
    let import = |what: &str| json!({ "Fn::ImportValue": format!("vend-production-{what}") });
    for half in ["Blue", "Green"] {
        let group = of(own, &format!("{half}Group"));
        assert_eq!(
            group["VPCZoneIdentifier"]["Fn::Split"][1],
            import("EuCentral1Wl1MucWlz1CarrierSubnets")
        );
        assert_eq!(group["HealthCheckType"], "EC2");
        assert!(group["TargetGroupARNs"].is_null());
        let launch = &of(own, &format!("{half}Launch"))["LaunchTemplateData"];
        assert_eq!(launch["NetworkInterfaces"][0]["AssociateCarrierIpAddress"], true);
        assert!(launch["SecurityGroupIds"].is_null(), "both are refused");
        assert_eq!(launch["BlockDeviceMappings"][0]["Ebs"]["VolumeType"], "gp2");
        let name = format!("{}.game-production.apps.example.com", half.to_lowercase());
        for id in ["Record", "BareRecord"] {
            let record = of(own, &format!("{half}{id}"));
            assert_eq!(record["AliasTarget"]["DNSName"], name.as_str());
            assert_eq!(record["Weight"]["Ref"], format!("{half}Weight"));
        }
        let nobody = of(own, &format!("{half}Nobody"));
        assert_eq!((&nobody["Name"], &nobody["Weight"]), (&json!(name), &json!(0)));
    }
    assert_eq!(
        of(own, "DatabaseSubnets")["SubnetIds"],
        json!(["A", "B"].map(|zone| import(&format!("IsolatedSubnet{zone}"))))
    );
    for kind in [
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        "AWS::ElasticLoadBalancingV2::ListenerRule",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
    ] {
        assert_eq!(own.of(kind).count(), 0, "{kind}");
    }
    // A host changes the names of its own environment's halves only.
    let role = of(own, "HostRole").to_string();
    let names = "[\"blue.game-production.apps.example.com\",\"green.game-production.apps.example.com\"]";
    assert!(
        role.contains(&format!(
            "\"route53:ChangeResourceRecordSetsNormalizedRecordNames\":{names}"
        )),
        "{role}"
    );
}

#[test]
fn a_release_waits_until_so_many_hosts_keep_a_record() {
    let mut world = World::new(&FIRST);
    world.records = (0, 2);
    assert!(matches!(run(PLACED, &mut world), Status::Succeeded { .. }));
    assert!(!world.calls.iter().any(|call| call.contains("TargetHealth")));
    let looks = world
        .calls
        .iter()
        .filter(|call| call.contains("ResourceRecordSets"));
    assert_eq!(looks.count(), 2, "one host was too few");
    world.is("BlueWeight", "100");
    let mut world = World::new(&FIRST);
    world.records = (0, 1);
    let said = failure(&run(PLACED, &mut world));
    assert!(said.contains("only 1 hosts are well"), "{said}");
    world.is("BlueRuns", "no");
}

#[test]
fn what_a_load_balancer_would_do_is_refused() {
    let text = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         network = { wavelength_zones = ['eu-central-1-wl1-muc-wlz-1'] }\n[sizes.small]\ntypes = ['t3.medium']\n\
         [apps.shop.environments.live]\nplacement = { wavelength = 'eu-central-1-wl1-muc-wlz-1' }\n";
    let said = |more: &str, yaml: &str| {
        let config: Config = toml::from_str(&format!("{text}{more}\n")).unwrap();
        let yaml = format!("app: shop\n{yaml}\nenvironments: {{ live: {{}} }}\n");
        let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
        all(&config, &app, &mut Priorities::default()).map_err(|error| error.to_string())
    };
    assert!(said("", "").is_ok());
    let login = "authenticate: { issuer: 'https://id.test', authorization_endpoint: 'https://id.test/a', token_endpoint: \
        'https://id.test/t', user_info_endpoint: 'https://id.test/u', client_id: shop, client_secret: '{{secret:oidc}}' }";
    for (more, yaml, why) in [
        ("", login, "none stands in a Wavelength Zone"),
        ("scaling = { requests = 10 }", "", "say `cpu` or `step`"),
        (
            "domains = [{ host = 'x.example.org', zone = 'Z0DEF' }]",
            "",
            "own port",
        ),
        ("", "scaling: { max: 50 }", "49 hosts at most"),
    ] {
        let said = said(more, yaml).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}

/// The host's script that keeps its record, as it is on the host, with its name and zone.
fn script(directory: &Path) -> PathBuf {
    let launch = of(template("wave-vend-production-game-production"), "GreenLaunch");
    let filled = &launch["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"];
    assert_eq!(filled[1]["Name"], "green.game-production.apps.example.com");
    let whole = filled[0].as_str().unwrap();
    let whole = whole
        .replace("${AWS::Region}", "eu-central-1")
        .replace("${Zone}", "Z1")
        .replace("${Name}", "green.test")
        .replace("${!", "${");
    let path = directory.join("whole");
    fs::write(&path, &whole).unwrap();
    assert!(
        Command::new("bash")
            .arg("-n")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let own = whole
        .split("cat > /usr/local/sbin/vend-record <<'END_OF_SCRIPT'\n")
        .nth(1)
        .unwrap();
    let path = directory.join("vend-record");
    fs::write(&path, own.split("\nEND_OF_SCRIPT\n").next().unwrap()).unwrap();
    path
}

/// What stands in for AWS, the app and the clock: each turn of the loop takes the next line of `turns`, the app's code and what
/// Auto Scaling wants of the host; what is asked of AWS is written down.
const AWS: &str = r#"#!/bin/bash
cd "$(dirname "$0")"
case "$1 $2" in
  "route53 change-resource-record-sets") echo "${@: -1}" | jq -c '.Changes[0] | [.Action, .ResourceRecordSet.SetIdentifier, .ResourceRecordSet.ResourceRecords[0].Value]' >> asked ;;
  "route53 list-resource-record-sets") cat records ;;
  "ec2 describe-instances") case "$*" in *--filters*) printf 'i-own\ti-other\n' ;; *) echo 155.146.1.2 ;; esac ;;
  "autoscaling set-instance-health") echo "$*" >> asked ;;
esac
"#;
const CURL: &str = r#"#!/bin/bash
cd "$(dirname "$0")"
read -r code life < now
case "$*" in
  *latest/api/token*) echo token ;;
  *instance-id*) echo i-own ;;
  *target-lifecycle-state*) echo "$life" ;;
  *http_code*"http://127.0.0.1:9000/up?it's"*) printf %s "$code" ;;
  *) exit 22 ;;
esac
"#;
const SLEEP: &str = r#"#!/bin/bash
cd "$(dirname "$0")"
head -n 1 turns > now
sed -i 1d turns
test -s now
"#;

/// What the host asks for in these turns, none of which is the one to look for hosts that are gone.
fn asked(name: &str, turns: &[&str], arguments: &[&str]) -> Vec<String> {
    heard(name, turns, arguments, "next=999999999")
}

/// The same, where that turn is told: by the clock it would come at any time.
fn heard(name: &str, turns: &[&str], arguments: &[&str], next: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wave-{name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let script = script(&directory);
    let text = fs::read_to_string(&script).unwrap();
    let (first, later) = (
        "next=$(( SECONDS + RANDOM % 60 ))",
        "next=$(( SECONDS + 60 + RANDOM % 60 ))",
    );
    assert!(text.contains(first) && text.contains(later));
    fs::write(&script, text.replace(first, next).replace(later, next)).unwrap();
    for (name, text) in [("aws", AWS), ("curl", CURL), ("sleep", SLEEP)] {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(directory.join("turns"), turns.join("\n") + "\n").unwrap();
    fs::write(directory.join("now"), "000 InService\n").unwrap();
    let record = |id: &str| json!({ "Name": "green.test.", "Type": "A", "SetIdentifier": id, "ResourceRecords": [{ "Value": "1.1.1.1" }] });
    let all = json!({ "ResourceRecordSets": [record("nobody"), record("i-own"), record("i-gone"), record("i-other")] });
    let all = if name == "robbed" {
        json!({ "ResourceRecordSets": [record("nobody")] })
    } else {
        all
    };
    fs::write(directory.join("records"), all.to_string()).unwrap();
    fs::write(directory.join("asked"), "").unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.arg(script).args(arguments).env("PATH", path);
    let done = bash.output().unwrap();
    assert!(
        done.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let text = fs::read_to_string(directory.join("asked")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// jq is what hosts have too.
fn is_there() -> bool {
    let found = Command::new("jq").arg("--version").output().is_ok();
    if !found {
        println!("skipped: jq is not there");
    }
    found
}

#[test]
fn a_host_keeps_its_record_while_its_app_is_well() {
    if !is_there() {
        return;
    }
    let joined = r#"["UPSERT","i-own","155.146.1.2"]"#;
    let left = r#"["DELETE","i-own","1.1.1.1"]"#;
    // 203 is none of the codes that vend.yaml says.
    let turns = [
        "200 InService",
        "203 InService",
        "204 InService",
        "299 InService",
        "200 InService",
    ];
    assert_eq!(
        asked("well", &turns, &[]),
        [joined],
        "two in a row make it well, once"
    );
    let turns = [
        "200 InService",
        "200 InService",
        "000 InService",
        "500 InService",
        "500 InService",
        "200 InService",
        "200 InService",
    ];
    assert_eq!(asked("ill", &turns, &[]), [joined, left, joined]);
    let turns = [
        "200 InService",
        "200 InService",
        "200 Terminated",
        "200 Terminated",
    ];
    assert_eq!(
        asked("going", &turns, &[]),
        [joined, left],
        "it serves what it has, and gets nothing new"
    );
    assert_eq!(asked("stopped", &[], &["leave"]), [left]);
}

#[test]
fn a_host_whose_app_stays_unwell_is_replaced_and_one_that_never_was_well_is_not() {
    if !is_there() {
        return;
    }
    let mut turns = vec!["200 InService"; 2];
    turns.extend(["500 InService"; 40]);
    let asked_of = asked("replaced", &turns, &[]);
    let said = asked_of
        .iter()
        .filter(|line| line.contains("set-instance-health --instance-id i-own --health-status Unhealthy"));
    assert_eq!(said.count(), 1, "{asked_of:?}");
    assert_eq!(asked("new", &["500 InService"; 40], &[]), Vec::<String>::new());
}

/// What a host that died left behind, the others take away.
#[test]
fn addresses_of_hosts_that_are_gone_go() {
    if !is_there() {
        return;
    }
    let asked = heard("sweep", &["500 InService"], &[], "next=0");
    assert_eq!(asked, [r#"["DELETE","i-gone","1.1.1.1"]"#]);
}

/// One that others took for gone, because EC2 told them less than there is, has its record again after a minute.
#[test]
fn a_record_that_is_missing_comes_back_while_the_app_is_well() {
    if !is_there() {
        return;
    }
    let joined = r#"["UPSERT","i-own","155.146.1.2"]"#;
    let well = ["200 InService", "200 InService"];
    assert_eq!(heard("robbed", &well, &[], "next=0"), [joined, joined]);
    let ill = ["500 InService"];
    assert_eq!(heard("robbed", &ill, &[], "next=0"), Vec::<String>::new());
}
