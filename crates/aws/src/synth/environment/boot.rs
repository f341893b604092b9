//! What a host does when it starts: writes the app's environment where every service finds it.
//!
//! Variables stand in one file that systemd gives to all services. Secrets are fetched, so none is in a template, an image
//! or the metadata of an instance.

use std::fmt::Write as _;

use model::spec::Variable;
use serde_json::{Value, json};

use super::{Half, Scope, access, carrier, database};
use crate::synth::{Error, template::sub};

/// EC2 takes 16 KiB of user data; pseudo-parameters get longer when they are filled in.
const MAX_BYTES: usize = 15_000;

/// What services said is kept in a file of at most so many bytes, and one more beside it.
const LOG_BYTES: u32 = 64_000_000;

pub(super) fn script(scope: &Scope<'_>, half: Half) -> Result<Value, Error> {
    let mut plain = format!("PORT=\"{}\"\n", scope.spec.host.port);
    let mut secret = String::new();
    for (name, variable) in &scope.spec.host.env {
        match variable {
            Variable::Plain(text) => {
                let _ = writeln!(plain, "{name}=\"{}\"", escaped(scope, name, text)?);
            }
            Variable::Secret(own) => {
                // In two lines: a shell goes on after what fails among the words of a command.
                let _ = writeln!(
                    secret,
                    "value=\"$(secret '{}/{own}')\"\nput {name} \"$value\"",
                    scope.secrets()
                );
            }
        }
    }
    if scope.engine.is_some() {
        secret.push_str(&database(scope));
    }
    let (record, unit) = match scope.wave() {
        Some(_) => (
            carrier::script(scope),
            "systemctl enable --now --no-block vend-record.service\n",
        ),
        None => (String::new(), ""),
    };
    let agent = if access::is_by_endpoint(scope) { AGENT } else { "" };
    let text = TEXT
        .replace("@AGENT@", agent)
        .replace("@RECORD@", &record)
        .replace("@UNIT@", unit)
        .replace("@LOG_BYTES@", &LOG_BYTES.to_string())
        .replace("@LOG@", &format!("/{}", scope.path()))
        .replace("@PLAIN@", &plain)
        .replace("@SECRET@", &secret);
    if text.len() > MAX_BYTES {
        let why = format!(
            "all variables together are too long for a host on AWS: {} bytes of {MAX_BYTES}",
            text.len()
        );
        return Err(Error::config("host.env", why));
    }
    Ok(match scope.wave() {
        Some(_) => json!({ "Fn::Sub": [text, carrier::values(scope, half)] }),
        None => sub(text),
    })
}

/// A value between double quotes, for systemd and then for CloudFormation.
fn escaped(scope: &Scope<'_>, name: &str, text: &str) -> Result<String, Error> {
    if text.chars().any(char::is_control) {
        let why = format!(
            "`{name}` of {} holds a control character, which a host on AWS cannot be given",
            scope.spec.name
        );
        return Err(Error::config("host.env", why));
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\\"$`".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    Ok(out.replace("${", "${!"))
}

fn database(scope: &Scope<'_>) -> String {
    let Some(engine) = scope.engine else {
        return String::new();
    };
    let scheme = database::scheme(engine);
    let port = database::port(engine);
    let name = database::name(scope);
    // The address and the secret are the stack's own; the rest of `$` is the shell's.
    format!(
        "login=\"$(secret '{}')\"\n\
         user=\"$(jq -r .username <<< \"$login\")\"\n\
         password=\"$(jq -r .password <<< \"$login\")\"\n\
         quoted=\"$(jq -rn --arg x \"$user\" '$x|@uri'):$(jq -rn --arg x \"$password\" '$x|@uri')\"\n\
         put DATABASE_HOST '{}'\n\
         put DATABASE_PORT {port}\n\
         put DATABASE_NAME {name}\n\
         put DATABASE_USER \"$user\"\n\
         put DATABASE_PASSWORD \"$password\"\n\
         put DATABASE_URL \"{scheme}://$quoted@{}:{port}/{name}\"\n",
        database::SECRET.replace("{}", database::id(engine)),
        database::address(engine),
        database::address(engine),
    )
}

/// Has CodeDeploy's agent ask at the endpoint of the network. Without it the agent asks at the public one, by its certificate alone.
/// Source: "Use CodeDeploy with Amazon Virtual Private Cloud" and "CodeDeploy agent configuration reference", `:enable_auth_policy:`.
const AGENT: &str = "agent=/etc/codedeploy-agent/conf/codedeployagent.yml\n\
    sed -i '/^:enable_auth_policy:/d' \"$agent\"\n\
    sed -i '$a:enable_auth_policy: true' \"$agent\"\n";

/// `${!` is `${` after CloudFormation.
const TEXT: &str = r#"#!/bin/bash
# The app's environment, for every service of this host. Written at the first start and fetched anew at each.
set -euo pipefail
# A host of a warm pool may be stopped in the middle of this, and cloud-init does not begin it a second time.
if [ "$0" != /usr/local/sbin/vend-start ]; then
  install -m 0700 "$0" /usr/local/sbin/vend-start
  cat > /etc/systemd/system/vend-start.service <<'END_OF_UNIT'
[Unit]
Description=A first start that was broken off
ConditionPathExists=!/var/lib/vend/started
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/vend-start
[Install]
WantedBy=multi-user.target
END_OF_UNIT
  systemctl enable vend-start.service
fi
install -d -m 0755 /etc/vend /etc/systemd/system/service.d
install -d -m 0700 /var/lib/vend
cat > /etc/vend/plain <<'END_OF_PLAIN'
@PLAIN@END_OF_PLAIN
cat > /usr/local/sbin/vend-environment <<'END_OF_SCRIPT'
#!/bin/bash
set -euo pipefail
umask 077
export AWS_DEFAULT_REGION=${AWS::Region}
new=$(mktemp /etc/vend/environment.XXXXXX)
trap 'rm -f "$new"' EXIT
cat /etc/vend/plain > "$new"
secret() { aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text; }
put() { printf '%s="%s"\n' "$1" "$(sed 's/[\\"$`]/\\&/g' <<< "$2")" >> "$new"; }
@SECRET@if cmp -s "$new" /etc/vend/environment; then exit 0; fi
mv "$new" /etc/vend/environment
# What a deployment has installed starts again with the new values.
if [ "$#" -gt 0 ] && [ "$1" = restart ]; then
  for unit in /etc/systemd/system/*.service; do
    if [ -f "$unit" ] && [ ! -L "$unit" ]; then systemctl try-restart "$(basename "$unit")"; fi
  done
fi
END_OF_SCRIPT
chmod 0755 /usr/local/sbin/vend-environment
printf '[Service]\nEnvironmentFile=-/etc/vend/environment\n' > /etc/systemd/system/service.d/10-vend.conf
cat > /etc/systemd/system/vend-environment.service <<'END_OF_UNIT'
[Unit]
Description=The app's environment
Wants=network-online.target
After=network-online.target
Before=codedeploy-agent.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/vend-environment
[Install]
WantedBy=multi-user.target
END_OF_UNIT
if [ -d /opt/aws/amazon-cloudwatch-agent ]; then
  # CloudWatch's agent reads files only. What services say stays in the journal, and is copied where the agent reads.
  install -d -m 0750 /var/log/vend
  cat > /usr/local/sbin/vend-log <<'END_OF_SCRIPT'
#!/bin/bash
# Each call goes on where the last one ended. What is full makes room, and is kept once more beside it.
set -u
umask 027
file=/var/log/vend/services.log
while sleep 2; do
  journalctl --quiet --no-pager --output=short-iso --cursor-file=/var/lib/vend/journal _TRANSPORT=stdout _TRANSPORT=syslog >> "$file"
  if [ "$(stat -c %s "$file")" -gt @LOG_BYTES@ ]; then mv -f "$file" "$file.1"; fi
done
END_OF_SCRIPT
  chmod 0755 /usr/local/sbin/vend-log
  cat > /etc/systemd/system/vend-log.service <<'END_OF_UNIT'
[Unit]
Description=What services say, where CloudWatch's agent reads it
[Service]
ExecStart=/usr/local/sbin/vend-log
Restart=always
RestartSec=5
[Install]
WantedBy=multi-user.target
END_OF_UNIT
  systemctl daemon-reload
  systemctl enable --now vend-log.service
  install -d -m 0755 /opt/aws/amazon-cloudwatch-agent/etc
  cat > /opt/aws/amazon-cloudwatch-agent/etc/vend.json <<'END_OF_LOGS'
{ "logs": { "logs_collected": { "files": { "collect_list": [
  { "file_path": "/var/log/**.log", "log_group_name": "@LOG@", "log_stream_name": "{instance_id}" }
] } } } }
END_OF_LOGS
  /opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:/opt/aws/amazon-cloudwatch-agent/etc/vend.json
fi
@RECORD@systemctl daemon-reload
systemctl enable vend-environment.service
# Nothing is deployed before the variables are there: without a secret it ends here, and the agent stays off.
/usr/local/sbin/vend-environment
@UNIT@@AGENT@systemctl enable codedeploy-agent.service
touch /var/lib/vend/started
systemctl restart codedeploy-agent.service
"#;
