//! `codedeployagent.yml`: as much of the agent's configuration as a deployment without a service needs.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-agent-configuration.html>

use super::psych;
use crate::{
    Problem,
    spec::{
        read::{Reader, few, quoted},
        yaml::{self, Value},
    },
};

/// The agent's configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentConfiguration {
    /// Where deployments are kept.
    pub root_dir: Option<String>,
    /// How many of a group stay on the disk; at least 1.
    pub max_revisions: Option<usize>,
}

/// What else the agent knows, and a deployment without a service has no use for.
const OTHERS: &[&str] = &[
    "bundle_name",
    "children",
    "codedeploy_test_profile",
    "deploy_control_endpoint",
    "disable_imds_v1",
    "enable_auth_policy",
    "enable_deployments_log",
    "http_read_timeout",
    "kill_agent_max_wait_time_seconds",
    "log_aws_wire",
    "log_dir",
    "on_premises_config_file",
    "ongoing_deployment_tracking",
    "pid_dir",
    "program_name",
    "proxy_uri",
    "s3_endpoint_override",
    "shared_dir",
    "use_fips_mode",
    "user",
    "verbose",
    "wait_after_error",
    "wait_after_throttle_error",
    "wait_between_runs",
    "wait_between_spawning_children",
];

impl AgentConfiguration {
    /// Reads the file. A key that the agent does not know is a warning: it ignores such keys.
    ///
    /// # Errors
    /// When it is no mapping, or a value is not of its kind.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let document = yaml::parse(file, text).map_err(|problem| vec![problem])?;
        let mut reader = Reader::new(file);
        let mut configuration = Self::default();
        match document.root.as_ref().map(|root| (root, &root.value)) {
            None => {}
            Some((_, Value::Mapping(entries))) => {
                for (key, value) in entries {
                    let name = key.text().unwrap_or_default();
                    let text = psych::to_s(value);
                    match name.strip_prefix(':') {
                        Some("root_dir") => configuration.root_dir = Some(text),
                        Some("max_revisions") => match text.parse() {
                            Ok(number @ 1..) => configuration.max_revisions = Some(number),
                            _ => {
                                let message = format!("Invalid configuration :max_revision={text}");
                                reader.error(value, message).help =
                                    Some("write a number, at least 1".to_owned());
                            }
                        },
                        Some(other) if OTHERS.contains(&other) => {}
                        _ => {
                            let message = format!("{} is not known: the agent ignores it", quoted(name));
                            reader.warn(key, message).help =
                                Some("keys begin with a colon, such as `:root_dir`".to_owned());
                        }
                    }
                }
            }
            Some((root, _)) => {
                reader.error(
                    root,
                    "a configuration must be a mapping, such as `:root_dir: /opt/deployments`",
                );
            }
        }
        match reader.problems.iter().any(Problem::is_error) {
            true => Err(few(file, reader.problems)),
            false => Ok((configuration, few(file, reader.problems))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_agent_writes() {
        let text = "---\n:log_aws_wire: false\n:root_dir: '/opt/codedeploy-agent/deployment-root'\n:max_revisions: 5\n";
        let (configuration, warnings) = AgentConfiguration::parse(text, "c").unwrap();
        assert_eq!(
            configuration.root_dir.as_deref(),
            Some("/opt/codedeploy-agent/deployment-root")
        );
        assert_eq!((configuration.max_revisions, warnings.len()), (Some(5), 0));
        let (configuration, warnings) = AgentConfiguration::parse("root_dir: /x\n", "c").unwrap();
        assert_eq!((configuration.root_dir, warnings.len()), (None, 1));
        for bad in [":max_revisions: 0", "- a", ":max_revisions: many", "a: ["] {
            assert!(AgentConfiguration::parse(bad, "c").is_err(), "{bad}");
        }
        assert!(AgentConfiguration::parse("", "c").is_ok());
    }
}
