//! The database of an environment: RDS, or Aurora. RDS makes its password, keeps it in Secrets Manager, and changes it.

use serde_json::{Value, json};

use super::{Scope, password};
use crate::synth::{
    Error,
    config::{self, Database, Engine},
    place::outpost,
    policy::{Role, arn, grant},
    template::{Resource, Template, att, re, sub},
};

/// The secret's ARN inside a `Fn::Sub`, of the resource `{}`.
pub(super) const SECRET: &str = "${{}.MasterUserSecret.SecretArn}";

/// `vend.yaml` names MariaDB until it can name more.
pub(super) fn engine(options: &config::Environment) -> Engine {
    options
        .database
        .as_ref()
        .and_then(|database| database.engine)
        .unwrap_or(Engine::Mariadb)
}

pub(super) fn port(engine: Engine) -> u16 {
    match engine {
        Engine::Postgres | Engine::AuroraPostgres => 5432,
        _ => 3306,
    }
}

/// As URLs of databases begin.
pub(super) fn scheme(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres | Engine::AuroraPostgres => "postgresql",
        _ => "mysql",
    }
}

pub(super) fn id(engine: Engine) -> &'static str {
    if is_aurora(engine) {
        "DatabaseCluster"
    } else {
        "Database"
    }
}

/// The address inside a `Fn::Sub`.
pub(super) fn address(engine: Engine) -> &'static str {
    if is_aurora(engine) {
        "${DatabaseCluster.Endpoint.Address}"
    } else {
        "${Database.Endpoint.Address}"
    }
}

/// Letters, digits and underscores, beginning with a letter, 63 at most.
pub(super) fn name(scope: &Scope<'_>) -> String {
    scope.app.as_str().replace('-', "_")
}

/// The secret's ARN.
pub(super) fn secret(scope: &Scope<'_>) -> Value {
    let engine = scope.engine.unwrap_or(Engine::Mariadb);
    att(format!("{}.MasterUserSecret.SecretArn", id(engine)))
}

fn is_aurora(engine: Engine) -> bool {
    matches!(engine, Engine::AuroraMysql | Engine::AuroraPostgres)
}

/// What is made when nothing more is said.
struct Wanted<'c> {
    engine: Engine,
    version: &'c str,
    /// Does aws.toml say the version?
    is_said: bool,
    size: String,
    storage: u32,
    multi_az: bool,
    backup: u32,
    protected: bool,
    rotate: u32,
}

fn wanted<'c>(scope: &Scope<'c>, engine: Engine, own: &'c Database) -> Result<Wanted<'c>, Error> {
    let production = scope.is_production();
    let size = own.size.as_deref().unwrap_or(match scope.outpost() {
        Some(_) => outpost::DATABASE,
        None if is_aurora(engine) => "t4g.medium",
        None => "t4g.small",
    });
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 40
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
    };
    let version = own.version.as_deref().unwrap_or(version(engine));
    for (key, text) in [("database.size", size), ("database.version", version)] {
        if !plain(text) {
            return Err(Error::config(
                scope.at(key),
                format!("`{}` is no such name", text.escape_debug()),
            ));
        }
    }
    if !is_class(size) {
        let why = format!(
            "`{size}` is no class of databases: a family and a size, such as t4g.small or m7g.2xlarge"
        );
        return Err(Error::config(scope.at("database.size"), why));
    }
    if !version.starts_with(|first: char| first.is_ascii_digit()) {
        let why = format!("`{version}` is no version, which begins with a number, such as 16 or 10.11");
        return Err(Error::config(scope.at("database.version"), why));
    }
    let storage = own.storage.unwrap_or(20);
    let backup = own.backup.unwrap_or(if production { 35 } else { 14 });
    let rotate = own.rotate.unwrap_or(30);
    for (key, value, range) in [
        ("storage", storage, 20..=16_384),
        ("backup", backup, 1..=35),
        ("rotate", rotate, 1..=1_000),
    ] {
        if !range.contains(&value) {
            let why = format!("{value} is not from {} to {}", range.start(), range.end());
            return Err(Error::config(scope.at(&format!("database.{key}")), why));
        }
    }
    Ok(Wanted {
        engine,
        version,
        is_said: own.version.is_some(),
        size: size.to_owned(),
        storage,
        multi_az: own.multi_az.unwrap_or(production && scope.outpost().is_none()),
        backup,
        // What comes and goes with a branch goes whatever is in it.
        protected: own.protected.unwrap_or(production) && scope.spec.preview.is_none(),
        rotate,
    })
}

/// Is it written as classes of RDS are, without `db.`? Which there are differs between regions, engines and years.
/// <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.DBInstanceClass.Types.html>
fn is_class(size: &str) -> bool {
    let Some((family, size)) = size.split_once('.') else {
        return false;
    };
    let times = size.strip_suffix("xlarge");
    let is_size = ["micro", "small", "medium", "large", "metal"].contains(&size)
        || times.is_some_and(|times| times.bytes().all(|byte| byte.is_ascii_digit()));
    family.starts_with(|first: char| first.is_ascii_lowercase()) && is_size
}

/// Without a patch level, so that patches come by themselves.
fn version(engine: Engine) -> &'static str {
    match engine {
        Engine::Mariadb => "10.11",
        Engine::Mysql => "8.4",
        Engine::Postgres => "17",
        Engine::AuroraMysql => "8.0.mysql_aurora.3.08.2",
        Engine::AuroraPostgres => "16.8",
    }
}

fn word(engine: Engine) -> &'static str {
    match engine {
        Engine::Mariadb => "mariadb",
        Engine::Mysql => "mysql",
        Engine::Postgres => "postgres",
        Engine::AuroraMysql => "aurora-mysql",
        Engine::AuroraPostgres => "aurora-postgresql",
    }
}

/// The first parts of a version that name a family of parameters.
fn family(wanted: &Wanted<'_>) -> String {
    let parts: Vec<&str> = wanted.version.split('.').collect();
    let first = |count: usize| parts[..count.min(parts.len())].join(".");
    match wanted.engine {
        Engine::Mariadb | Engine::Mysql => format!("{}{}", word(wanted.engine), first(2)),
        Engine::Postgres | Engine::AuroraPostgres => format!("{}{}", word(wanted.engine), first(1)),
        Engine::AuroraMysql => format!("aurora-mysql{}", first(2)),
    }
}

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let Some(engine) = scope.engine else {
        return Ok(());
    };
    let default = Database::default();
    let own = scope.options.database.as_ref().unwrap_or(&default);
    let wanted = wanted(scope, engine, own)?;
    let about = "Where data lies: in the tier without any way out.";
    let subnets = json!({ "DBSubnetGroupDescription": sub("${AWS::StackName}"), "SubnetIds": scope.subnets("Isolated") });
    template.add(Resource::new(
        "DatabaseSubnets",
        "AWS::RDS::DBSubnetGroup",
        about,
        subnets,
    ));
    if scope.outpost().is_none() {
        monitoring(template, scope);
    }
    if moves(scope) {
        freezes(template);
    }
    match is_aurora(engine) {
        true => aurora(template, scope, &wanted),
        false => single(template, scope, &wanted),
    }
    let days = json!({ "AutomaticallyAfterDays": wanted.rotate });
    let properties =
        json!({ "SecretId": secret(scope), "RotationRules": days, "RotateImmediatelyOnUpdate": false });
    let about = "The password changes by itself; RDS does it without a function.";
    template.add(Resource::new(
        "DatabasePasswordChanges",
        "AWS::SecretsManager::RotationSchedule",
        about,
        properties,
    ));
    password::add(template, scope);
    template.output(
        "DatabaseSecret",
        "Where user and password of the database are",
        secret(scope),
    );
    Ok(())
}

/// Can its data leave again, for the platform that it came from? What is there is MariaDB, and a host must dump it.
pub(super) fn moves(scope: &Scope<'_>) -> bool {
    scope.engine == Some(Engine::Mariadb) && !scope.is_container() && scope.spec.preview.is_none()
}

/// While its data leaves nobody may write, and nobody but RDS can say so: a parameter of the stack, as all that a command
/// changes between two releases.
fn freezes(template: &mut Template) {
    let frozen = json!({
        "Type": "String",
        "Default": "no",
        "AllowedValues": ["yes", "no"],
        "Description": "Does the database refuse to write, because its data leaves, or has left?",
    });
    template.parameter(FROZEN.to_owned(), frozen);
    template.condition(
        "IsFrozen".to_owned(),
        json!({ "Fn::Equals": [re(FROZEN), "yes"] }),
    );
}

/// The parameter by which the database refuses to write.
const FROZEN: &str = "Frozen";

/// Connections without TLS are refused.
fn parameters(wanted: &Wanted<'_>, moves: bool) -> Value {
    match wanted.engine {
        Engine::Postgres | Engine::AuroraPostgres => {
            json!({ "rds.force_ssl": "1", "log_min_duration_statement": "1000" })
        }
        // Backups need the binary log, with which only who may do everything makes triggers and functions otherwise; RDS lets
        // nobody do everything.
        Engine::Mysql | Engine::Mariadb => {
            let mut all = json!({
                "require_secure_transport": "1", "slow_query_log": "1", "long_query_time": "1",
                "log_bin_trust_function_creators": "1",
                // A table, which is where they go else, is not sent to CloudWatch.
                "log_output": "FILE",
            });
            if moves {
                // Taken without a restart. It has no replicas, which are read-only by default.
                all["read_only"] = json!({ "Fn::If": ["IsFrozen", "1", "0"] });
            }
            all
        }
        Engine::AuroraMysql => {
            json!({ "require_secure_transport": "ON", "slow_query_log": "1", "long_query_time": "1" })
        }
    }
}

fn logs(engine: Engine) -> Value {
    match engine {
        Engine::Postgres | Engine::AuroraPostgres => json!(["postgresql"]),
        _ => json!(["error", "slowquery"]),
    }
}

fn monitoring(template: &mut Template, scope: &Scope<'_>) {
    let about = "The database's machine writes what it does into the logs.";
    let write = grant(
        "WriteMetrics",
        "What the machine below the database does, second by second",
        "logs:CreateLogGroup logs:CreateLogStream logs:DescribeLogStreams logs:GetLogEvents logs:PutLogEvents \
         logs:PutRetentionPolicy",
        [
            arn("logs", "log-group:RDSOSMetrics"),
            arn("logs", "log-group:RDSOSMetrics:*"),
        ],
    );
    let role = Role::of_service("DatabaseMonitoringRole", about, "monitoring.rds.amazonaws.com")
        .path("host/")
        .grant(write);
    template.add(role.resource(scope.platform(), scope.shared("Boundary")));
}

/// What RDS does not do on an Outpost: grow, and tell of the machine and its logs.
const NOT_ON_OUTPOSTS: [&str; 4] = [
    "MaxAllocatedStorage",
    "EnableCloudwatchLogsExports",
    "MonitoringInterval",
    "MonitoringRoleArn",
];

fn single(template: &mut Template, scope: &Scope<'_>, wanted: &Wanted<'_>) {
    let properties = json!({ "Family": family(wanted), "Description": sub("${AWS::StackName}"), "Parameters": parameters(wanted, moves(scope)) });
    template.add(Resource::new(
        "DatabaseParameters",
        "AWS::RDS::DBParameterGroup",
        "Connections are encrypted.",
        properties,
    ));
    let protection = protection(template, wanted);
    let mut properties = json!({
        "Engine": word(wanted.engine),
        "EngineVersion": wanted.version,
        // RDS refuses the next major version to who does not say so. Who says none gets none by a newer version of this program.
        "AllowMajorVersionUpgrade": wanted.is_said,
        "DBInstanceClass": format!("db.{}", wanted.size),
        "DBName": name(scope),
        "AllocatedStorage": wanted.storage.to_string(),
        "MaxAllocatedStorage": wanted.storage.saturating_mul(4).min(65_536),
        "StorageType": if scope.outpost().is_some() { "gp2" } else { "gp3" },
        "StorageEncrypted": true,
        "KmsKeyId": scope.shared("KeyArn"),
        "MasterUsername": "vend",
        "ManageMasterUserPassword": true,
        "MasterUserSecret": { "KmsKeyId": scope.shared("KeyArn") },
        "MultiAZ": wanted.multi_az,
        "PubliclyAccessible": false,
        "DBSubnetGroupName": re("DatabaseSubnets"),
        "DBParameterGroupName": re("DatabaseParameters"),
        "VPCSecurityGroups": [att("DataGroup.GroupId")],
        "BackupRetentionPeriod": wanted.backup,
        "CopyTagsToSnapshot": true,
        // Those of a branch go with it, as all of it does.
        "DeleteAutomatedBackups": scope.spec.preview.is_some(),
        "DeletionProtection": protection,
        "AutoMinorVersionUpgrade": true,
        "EnableCloudwatchLogsExports": logs(wanted.engine),
        "EnablePerformanceInsights": false,
        "MonitoringInterval": 60,
        "MonitoringRoleArn": att("DatabaseMonitoringRole.Arn"),
        "CACertificateIdentifier": "rds-ca-rsa2048-g1",
    });
    if let (Some(_), Some(all)) = (scope.outpost(), properties.as_object_mut()) {
        all.retain(|key, _| !NOT_ON_OUTPOSTS.contains(&key.as_str()));
    }
    let about = "A last snapshot stays when it goes, and when it must be replaced.";
    let database = Resource::new("Database", "AWS::RDS::DBInstance", about, properties)
        .skip("E3691", "A version without a patch level stays right when RDS patches by itself; the rule knows whole ones only.")
        .skip("W3691", "The same: what the rule calls deprecated is a version without a patch level.")
        .skip("CKV_AWS_118", match scope.outpost() {
            None => "Enhanced monitoring is on: MonitoringInterval is 60.",
            Some(_) => "RDS on Outposts has no enhanced monitoring.",
        })
        .skip("CKV_AWS_161", "Apps log in with the password that RDS keeps and changes: their drivers know no IAM tokens.")
        .snapshot();
    let database = match scope.outpost() {
        None => database,
        Some(_) => database.skip("CKV_AWS_129", "RDS on Outposts has no logs to send."),
    };
    template.add(modest(database, wanted));
}

/// Whether it refuses to be deleted.
fn protection(template: &mut Template, wanted: &Wanted<'_>) -> Value {
    match wanted.protected {
        true => template.guard(true, false),
        false => json!(false),
    }
}

/// Says what was asked for in an environment whose data is not dear.
fn modest(database: Resource, wanted: &Wanted<'_>) -> Resource {
    let mut database = database;
    if !wanted.multi_az {
        database = database.skip(
            "CKV_AWS_157",
            "One zone: `multi_az` is true by default in production only.",
        );
    }
    if !wanted.protected {
        database = database.skip(
            "CKV_AWS_293",
            "`protected` is true by default in production only.",
        );
    }
    database
}

fn aurora(template: &mut Template, scope: &Scope<'_>, wanted: &Wanted<'_>) {
    let properties = json!({ "Family": family(wanted), "Description": sub("${AWS::StackName}"), "Parameters": parameters(wanted, false) });
    // Not the id that the group of a single database has: one that stands keeps its type.
    template.add(Resource::new(
        "DatabaseClusterParameters",
        "AWS::RDS::DBClusterParameterGroup",
        "Connections are encrypted.",
        properties,
    ));
    let protection = protection(template, wanted);
    let properties = json!({
        "Engine": word(wanted.engine),
        "EngineVersion": wanted.version,
        "DatabaseName": name(scope),
        "StorageEncrypted": true,
        "KmsKeyId": scope.shared("KeyArn"),
        "MasterUsername": "vend",
        "ManageMasterUserPassword": true,
        "MasterUserSecret": { "KmsKeyId": scope.shared("KeyArn") },
        "DBSubnetGroupName": re("DatabaseSubnets"),
        "DBClusterParameterGroupName": re("DatabaseClusterParameters"),
        "VpcSecurityGroupIds": [att("DataGroup.GroupId")],
        "BackupRetentionPeriod": wanted.backup,
        "CopyTagsToSnapshot": true,
        "DeletionProtection": protection,
        "EnableCloudwatchLogsExports": logs(wanted.engine),
    });
    let about = "A last snapshot stays when it goes, and when it must be replaced.";
    let cluster = Resource::new("DatabaseCluster", "AWS::RDS::DBCluster", about, properties)
        .skip(
            "CKV_AWS_162",
            "Apps log in with the password that RDS keeps and changes: their drivers know no IAM tokens.",
        )
        .snapshot();
    template.add(cluster);
    let ids: &[&str] = if wanted.multi_az {
        &["DatabaseFirst", "DatabaseSecond"]
    } else {
        &["DatabaseFirst"]
    };
    for id in ids {
        let properties = json!({
            "Engine": word(wanted.engine),
            "DBClusterIdentifier": re("DatabaseCluster"),
            "DBInstanceClass": format!("db.{}", wanted.size),
            "PubliclyAccessible": false,
            "DBSubnetGroupName": re("DatabaseSubnets"),
            "AutoMinorVersionUpgrade": true,
            "MonitoringInterval": 60,
            "MonitoringRoleArn": att("DatabaseMonitoringRole.Arn"),
            "CACertificateIdentifier": "rds-ca-rsa2048-g1",
        });
        let about = "One of the cluster's machines; it holds no data of its own.";
        template.add(
            Resource::new(*id, "AWS::RDS::DBInstance", about, properties).skip(
                "I3011",
                "A machine of a cluster has no data; the cluster has the policy.",
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_a_family_and_a_size() {
        for good in [
            "t4g.micro",
            "t4g.small",
            "m7g.xlarge",
            "r6id.24xlarge",
            "x2g.metal",
        ] {
            assert!(is_class(good), "{good}");
        }
        for bad in [
            "t4g.huge",
            "t4g",
            "small",
            ".small",
            "4.small",
            "db.t4g.small",
            "t4g.2large",
            "serverless",
            "",
        ] {
            assert!(!is_class(bad), "{bad}");
        }
    }
}
