//! What `vend.yaml` says and AWS does otherwise, in notes, or cannot do, in refusals. Nothing that the file says is passed over
//! in silence: a test holds each of its keys against what is made of it.

use model::{
    route::HealthProtocol,
    spec::{self, Certificate, MinimumHealthy, Refresh, Strategy, Variable},
};

use super::{Scope, database};
use crate::synth::{
    Error,
    config::{Endpoint, Nat, Runtime},
};

/// A load balancer takes no other codes for well.
/// Source: "Health check settings" of the Application Load Balancer guide, matcher.
const CODES: std::ops::RangeInclusive<u16> = 200..=499;

/// Alarms that CodeDeploy takes for a deployment group.
/// <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_AlarmConfiguration.html>
const ALARMS: usize = 10;

/// Refuses what would be believed to be done and is not.
pub(super) fn refuse(scope: &Scope<'_>) -> Result<(), Error> {
    let said = |key: &str, why: &str| {
        let at = format!("environments.{}.{key}", scope.spec.entry());
        Err(Error::config(at, why.to_owned()))
    };
    let (build, deploy) = (&scope.spec.build, &scope.deploy);
    super::ports::refuse(scope)?;
    if build.batch {
        return said(
            "build.batch",
            "a flow starts one build, and no batch: say `batch: false` for this environment",
        );
    }
    if build.image.as_deref().is_some_and(|image| image != "standard") {
        return said(
            "build.image",
            "builds run in AWS's standard image: say `image: standard` for this environment",
        );
    }
    let named = deploy.alarms.as_ref().map_or(0, |alarms| alarms.names.len());
    let made = super::alarm::of_deployments(scope).len();
    if !scope.is_container() && named + made > ALARMS {
        let most = ALARMS - made;
        let why = format!(
            "CodeDeploy takes {ALARMS} alarms for a deployment group, of which {made} are made here, and {named} are named: name {most} \
             at most, one of them composite if need be"
        );
        return said("deploy.alarms.names", &why);
    }
    let (rule, hosts) = (deploy.minimum_healthy, scope.spec.scaling.min.max(1));
    if !scope.is_container() && !rule.is_preset() && rule.minimum(hosts) >= hosts {
        let why = format!(
            "CodeDeploy refuses every deployment to as few hosts as must stay healthy, which are {} of the {hosts} of `scaling.min`: \
             have fewer of them stay healthy, say `one-at-a-time`, or have more hosts",
            rule.minimum(hosts)
        );
        return said("deploy.minimum_healthy", &why);
    }
    if let Some(zones) = &deploy.zones
        && !scope.is_container()
    {
        let one = |rule| matches!(rule, MinimumHealthy::OneAtATime);
        let scales = scope.spec.scaling.max > scope.spec.scaling.min;
        if one(rule) && scales || one(zones.minimum_healthy) {
            let why = "with zones CodeDeploy takes a percentage or a count, and neither is one host at a time of a fleet that scales, \
                       or of a zone: say `half-at-a-time`, a percentage or a count";
            return said("deploy.zones", why);
        }
    }
    if let Some(why) = cut_off(scope) {
        return Err(Error::config(scope.at("runtime"), why));
    }
    if let Some((name, secret)) = mistaken(scope) {
        let why = format!(
            "containers could not be given `{name}`: `{secret}` ends in a dash and six letters or digits, which Secrets Manager takes for \
             the end of an ARN that it makes itself; give the secret another name, such as `{}`",
            secret.replace('-', "_")
        );
        return said("host.env", &why);
    }
    let is_found = |path: &camino::Utf8PathBuf| path == "appspec.yml";
    if !scope.is_container() && !deploy.appspec.as_ref().is_some_and(is_found) {
        return said(
            "deploy.appspec",
            "CodeDeploy's agent reads `appspec.yml` at the root of the revision, and nothing else",
        );
    }
    let is_taken = |(low, high): &(u16, u16)| CODES.contains(low) && CODES.contains(high);
    let health = &scope.spec.host.health;
    if health.protocol == HealthProtocol::Http && !health.codes.iter().all(is_taken) {
        return said(
            "host.health.codes",
            "a load balancer takes codes from 200 to 499 for well",
        );
    }
    if scope.spec.authenticate.is_some() && scope.wave().is_some() {
        return said(
            "authenticate",
            "a load balancer asks who somebody is, and none stands in a Wavelength Zone",
        );
    }
    if scope.spec.authenticate.is_some() && scope.options.plain_http {
        let why = "who must have signed in is asked over HTTPS only, and port 80 would let everybody in";
        return Err(Error::config(scope.at("plain_http"), why.to_owned()));
    }
    way(scope)
}

/// Why containers would never start in a network without a way out.
/// Source: "Amazon ECR interface VPC endpoints" of the ECR guide, considerations; "Amazon ECS interface VPC endpoints" of ECS's.
fn cut_off(scope: &Scope<'_>) -> Option<String> {
    let network = &scope.foundation.network;
    if !scope.is_container() || network.nat != Nat::None {
        return None;
    }
    if scope.options.runtime == Runtime::Ec2 {
        let why = "ECS's agent on hosts of its own has no way to ECS without NAT, and `endpoints` knows none: say `runtime = \"fargate\"`";
        return Some(why.to_owned());
    }
    let needed = [Endpoint::EcrApi, Endpoint::EcrDkr, Endpoint::Logs];
    let missing = needed.iter().find(|own| !network.endpoints.contains(own))?;
    Some(format!(
        "without NAT, containers need the endpoint `{}`, which is not in `endpoints` of the foundation",
        missing.service().replace('.', "-")
    ))
}

/// The variable of a container, and its secret, that would not be found: ECS wants an ARN, and one without the six characters at
/// its end is not known before the secret is there.
/// Source: "Finding a secret from a partial ARN" of the Secrets Manager guide.
fn mistaken<'s>(scope: &'s Scope<'_>) -> Option<(&'s str, &'s str)> {
    let is_complete = |name: &str| {
        let end = name.rsplit_once('-').map(|(_, end)| end);
        end.is_some_and(|end| end.len() == 6 && end.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    let of = scope.spec.host.env.iter().filter(|_| scope.is_container());
    let mut secrets = of.filter_map(|(name, variable)| match variable {
        Variable::Secret(own) => Some((name.as_str(), own.as_str())),
        Variable::Plain(_) => None,
    });
    secrets.find(|(_, own)| is_complete(own))
}

/// Refuses a strategy and a migration that containers cannot follow.
fn way(scope: &Scope<'_>) -> Result<(), Error> {
    if !scope.is_container() {
        return Ok(());
    }
    let (at, why) = match (scope.deploy.strategy, &scope.deploy.migrate) {
        (Strategy::InPlace, _) => (
            "strategy",
            "containers are never changed in place: a new one stands beside the old; say another strategy here",
        ),
        (_, Some(_)) => (
            "runtime",
            "`deploy.migrate` is a script of the revision, and containers have none: let the container migrate when it starts",
        ),
        _ => return Ok(()),
    };
    Err(Error::config(scope.at(at), why.to_owned()))
}

/// What AWS does otherwise, in sentences.
pub(super) fn notes(scope: &Scope<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |is_so: bool, text: &str| notes.extend(is_so.then(|| text.to_owned()));
    let judged = scope.deploy.steps.as_ref().map(|steps| steps.analysis);
    note(
        judged.is_some_and(|analysis| analysis != spec::Analysis::default()),
        "`deploy.analysis` compares new hosts with old ones; here a step goes on while no alarm of the new ones rings: see `alarms`",
    );
    let alarms = scope.deploy.alarms.as_ref();
    note(
        alarms.is_some_and(|alarms| alarms.stale_after.is_some()),
        "`deploy.alarms.stale_after`: CloudWatch measures by itself, and its alarms say what becomes of missing data",
    );
    note(
        alarms.is_some(),
        "`deploy.alarms.names`: one that CloudWatch does not know in this region and account hinders nothing there, and nobody says so",
    );
    note(
        alarms.is_some() && scope.is_container(),
        "`deploy.alarms`: containers have no CodeDeploy; a step goes on while none of them rings, and a release without steps does not ask",
    );
    let (spec, image) = (scope.spec, &scope.spec.image);
    note(
        spec.checks.is_some(),
        "`checks`: no host runs them on AWS; CodeDeploy's hook `ValidateService` and the load balancer's health check come before the traffic",
    );
    note(
        spec.sleep_after.is_some(),
        "`sleep_after`: nothing sleeps on AWS; `scaling.schedule` of aws.toml makes it smaller by the clock",
    );
    note(
        image.login.is_some(),
        "`image.login`: images of machines on AWS begin from those of its own list, which nobody logs in for",
    );
    note(
        image.refresh == Refresh::Automatic,
        "`image.refresh`: nobody looks for a newer base; the next bake, after a change of the image's inputs, has it",
    );
    note(
        scope.is_container() && !image.scripts.is_empty(),
        "`image`: a container's image is made by the Dockerfile of the source, without `image.scripts`",
    );
    note(
        scope.is_container() && scope.engine.is_some(),
        "`database`: a container finds DATABASE_HOST, _PORT, _NAME, _USER and _PASSWORD, and no DATABASE_URL: ECS puts a secret into a \
         variable of its own, and not into a text",
    );
    note(
        !scope.is_container() && scope.halves().len() == 1,
        "`deploy.strategy: in-place`: an `apply` that changes how hosts start (variables, size, disk) replaces those that serve, as many \
         at a time as `minimum_healthy` lets go; the only one is away for minutes",
    );
    note(scope.engine.is_some() && !scope.foundation.trail, untold(scope));
    tls(scope, &mut note);
    note(
        scope.is_container() && scope.drain() > 120,
        "`scaling.drain`: a container gets 120 s at most to finish; the load balancer waits as long as was said",
    );
    approval(scope, &mut notes);
    domains(scope, &mut notes);
    notes.extend(super::ports::notes(scope));
    notes
}

/// What becomes of those who log in when nobody hears of a new password.
/// Source: "AWS service events delivered via AWS CloudTrail" of the EventBridge guide.
fn untold(scope: &Scope<'_>) -> &'static str {
    match scope.is_container() {
        true => {
            "`trail = false` of the foundation: that RDS has changed the database's password is heard by way of CloudTrail, so the account \
             must have another trail that has management events of this region; without one containers go on with the old password, and \
             cannot connect anew after `database.rotate` days until they are started again"
        }
        false => {
            "`trail = false` of the foundation: that RDS has changed the database's password is heard by way of CloudTrail, so the account \
             must have another trail that has management events of this region; without one hosts go on with the old password, and cannot \
             connect anew after `database.rotate` days until `/usr/local/sbin/vend-environment restart` runs on them or others start"
        }
    }
}

/// Some drivers do without TLS until they are told, and are refused.
fn tls(scope: &Scope<'_>, note: &mut impl FnMut(bool, &str)) {
    let postgres = scope
        .engine
        .map(|engine| database::scheme(engine) == "postgresql");
    note(
        postgres == Some(false),
        "`database`: it refuses connections without TLS, and drivers of MySQL and MariaDB do without until they are told: `ssl: {}` for \
         mysql2 of Node, `tls=true` for Go, `ssl` for PyMySQL, `MYSQL_ATTR_SSL_CA` for PDO of PHP, `sslMode=trust` or `verify-full` for Java. \
         Who also wants to know that it is the database finds RDS's certificates at https://truststore.pki.rds.amazonaws.com",
    );
    note(
        postgres == Some(true),
        "`database`: it refuses connections without TLS, which libpq and what is made with it do by themselves; others must be told: `ssl` \
         for node-postgres and asyncpg, `sslmode=require` for Go and Java. Who also wants to know that it is the database finds RDS's \
         certificates at https://truststore.pki.rds.amazonaws.com",
    );
}

fn approval(scope: &Scope<'_>, notes: &mut Vec<String>) {
    match &scope.spec.approval {
        Some(approval) if approval.required > 1 => notes.push(format!(
            "`approval`: IAM says who may answer (states:SendTaskSuccess), not `by`; {} different people are told apart by who calls \
             `vend aws approve`, and whoever may answer without it can be as many as they like",
            approval.required
        )),
        Some(_) => notes.push(
            "`approval`: the question goes to the operators' topic, and IAM says who may answer it (states:SendTaskSuccess), \
             not `by` and `author_may_approve`"
                .to_owned(),
        ),
        None => {}
    }
}

/// Names of a customer's own need a zone or a certificate of AWS, which only aws.toml can say.
fn domains(scope: &Scope<'_>, notes: &mut Vec<String>) {
    for domain in &scope.spec.domains {
        let host = &domain.host;
        let is_known = scope.options.domains.iter().any(|own| own.host.as_str() == host);
        if !is_known {
            notes.push(format!(
                "`domains`: {host} is not served here until `domains` of aws.toml names it with its `zone` or `certificate`"
            ));
        }
        if domain.certificate != Certificate::File {
            notes.push(format!(
                "`domains`: the `certificate` of {host} is one of AWS's certificate manager, whatever vend.yaml says"
            ));
        }
        if domain.dedicated_balancer && !scope.options.dedicated_balancer {
            notes.push(format!(
                "`domains`: {host} shares its load balancer until aws.toml says `dedicated_balancer = true`"
            ));
        }
    }
}
