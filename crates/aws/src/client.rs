//! A client of AWS's services in one region: signed, patient with throttling, and bound in time.
//!
//! It takes [`Call`]s only, so that what the platform can do is a list that can be read. Request and answer never reach a
//! log: they may carry passwords.

mod bound;
pub mod http;
mod refusal;
mod retry;
mod xml;

use std::{sync::Arc, time::Duration};

use hyper::{Method, body::Bytes};
use serde_json::Value;

use crate::{
    call::{Call, Protocol},
    credentials::{self, Keys, Machine, Source},
    sign::{Credentials, Signed, digest, encoded, sign},
};
pub use xml::Node;

/// One try, beside the time that its body takes.
const TRY: Duration = Duration::from_secs(60);
/// A call may take so many times what one try of it may.
const TRIES: u32 = 4;
/// Bytes of a body that a line takes in a second, however slow it is; else it is believed to be broken.
const PACE: usize = 64 << 10;

/// How long one try may take whose body has so many bytes.
fn patience(bytes: usize) -> Duration {
    TRY + Duration::from_secs((bytes / PACE) as u64)
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{service} refuses {operation}: {message} ({code})")]
    Refused {
        service: &'static str,
        operation: &'static str,
        code: String,
        message: String,
    },
    #[error("{host} cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("the answer of {service} to {operation} cannot be read")]
    Answer {
        service: &'static str,
        operation: &'static str,
    },
    #[error("{0} is not an address of HTTP")]
    Endpoint(String),
    #[error("these are credentials of the account {is}, and {wanted} is wanted")]
    Account { is: String, wanted: String },
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
}

impl Error {
    /// AWS's name of a refusal.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// What AWS says with a refusal.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            _ => "",
        }
    }

    /// Is it because who calls may not?
    pub fn is_denied(&self) -> bool {
        const DENIED: [&str; 5] = [
            "AccessDenied",
            "AccessDeniedException",
            "UnauthorizedOperation",
            "UnauthorizedAccess",
            "AuthorizationError",
        ];
        DENIED.contains(&self.code())
    }
}

/// The fields of a call in the Query protocol.
#[derive(Default, Clone)]
pub struct Form(String);

impl Form {
    /// As it is sent.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub fn add(&mut self, name: &str, value: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&encoded(name, ""));
        self.0.push('=');
        self.0.push_str(&encoded(value, ""));
        self
    }

    pub fn maybe(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.add(name, value),
            None => self,
        }
    }

    /// A list: `NAME.1`, `NAME.2`.
    pub fn list<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) -> &mut Self {
        for (index, value) in values.into_iter().enumerate() {
            self.add(&format!("{name}.{}", index + 1), value);
        }
        self
    }

    /// A list of keys and values: `NAME.1.Key`, `NAME.1.Value`.
    pub fn pairs(&mut self, name: &str, pairs: &[(&str, String)]) -> &mut Self {
        for (index, (key, value)) in pairs.iter().enumerate() {
            let name = format!("{name}.{}", index + 1);
            self.add(&format!("{name}.Key"), key)
                .add(&format!("{name}.Value"), value);
        }
        self
    }
}

/// A request of S3 or Route 53: everything but who signs.
pub(crate) struct Rest<'a> {
    pub method: Method,
    pub bucket: Option<&'a str>,
    /// Encoded, with its slash.
    pub path: String,
    /// In order of the names, encoded.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Services in one region.
#[derive(Clone)]
pub struct Client {
    machine: Machine,
    source: Arc<Source>,
    region: String,
    bound: Option<Arc<bound::Bound>>,
}

struct Outgoing {
    method: Method,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

enum Signer {
    Source,
    Keys(Keys),
    Nobody,
}

impl Client {
    pub fn new(machine: Machine, source: Arc<Source>, region: &str) -> Self {
        Self {
            machine,
            source,
            region: region.to_owned(),
            bound: None,
        }
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// The partition in ARNs.
    pub fn partition(&self) -> &'static str {
        match &self.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }

    /// A call in the Query protocol: the answer's result.
    pub async fn query(&self, call: &Call, form: Form) -> Result<Node, Error> {
        self.form(call, form, Signer::Source).await
    }

    pub(crate) async fn query_as(&self, call: &Call, form: Form, keys: Option<Keys>) -> Result<Node, Error> {
        let signer = keys.map_or(Signer::Source, Signer::Keys);
        self.form(call, form, signer).await
    }

    pub(crate) async fn query_unsigned(&self, call: &Call, form: Form) -> Result<Node, Error> {
        self.form(call, form, Signer::Nobody).await
    }

    async fn form(&self, call: &Call, mut form: Form, signer: Signer) -> Result<Node, Error> {
        let Protocol::Query(version) = call.protocol else {
            unreachable!("the list of calls says that {} is a form", call.operation)
        };
        form.add("Action", call.operation).add("Version", version);
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let outgoing = Outgoing {
            method: Method::POST,
            path: "/".into(),
            query: String::new(),
            headers: vec![("content-type".into(), kind.into())],
            body: form.0.into(),
        };
        let endpoint = self.endpoint(call.service, None)?;
        let answer = self.send(call, &endpoint, outgoing, &signer).await?;
        let unreadable = || Error::Answer {
            service: call.service,
            operation: call.operation,
        };
        let mut node = Node::parse(&answer.body).ok_or_else(unreadable)?;
        let result = format!("{}Result", call.operation);
        match node.children.iter().position(|child| child.name == result) {
            Some(index) => Ok(node.children.swap_remove(index)),
            None => Ok(node),
        }
    }

    /// A call in one of the JSON protocols.
    pub async fn json(&self, call: &Call, input: Value) -> Result<Value, Error> {
        let Protocol::Json(prefix, version) = call.protocol else {
            unreachable!("the list of calls says that {} is JSON", call.operation)
        };
        let headers = vec![
            ("content-type".into(), format!("application/x-amz-json-{version}")),
            ("x-amz-target".into(), format!("{prefix}.{}", call.operation)),
        ];
        let outgoing = Outgoing {
            method: Method::POST,
            path: "/".into(),
            query: String::new(),
            headers,
            body: input.to_string().into(),
        };
        let endpoint = self.endpoint(call.service, None)?;
        let answer = self.send(call, &endpoint, outgoing, &Signer::Source).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|_| Error::Answer {
            service: call.service,
            operation: call.operation,
        })
    }

    /// A call of a service that speaks HTTP's own methods.
    pub(crate) async fn rest(&self, call: &Call, rest: Rest<'_>) -> Result<http::Answer, Error> {
        let endpoint = self.endpoint(call.service, rest.bucket)?;
        // With an endpoint of one's own, buckets are the first part of the path.
        let path = match rest.bucket {
            Some(bucket) if !endpoint.authority.starts_with(&format!("{bucket}.")) => {
                format!("/{bucket}{}", rest.path)
            }
            _ => rest.path,
        };
        let mut headers = rest.headers;
        if call.service == "s3" {
            headers.push(("x-amz-content-sha256".into(), digest(&rest.body)));
        }
        let outgoing = Outgoing {
            method: rest.method,
            path,
            query: rest.query,
            headers,
            body: rest.body,
        };
        self.send(call, &endpoint, outgoing, &Signer::Source).await
    }

    async fn send(
        &self,
        call: &Call,
        endpoint: &http::Endpoint,
        outgoing: Outgoing,
        signer: &Signer,
    ) -> Result<http::Answer, Error> {
        if let Some(bound) = &self.bound {
            Box::pin(self.refuse_others(bound)).await?;
        }
        let deadline = patience(outgoing.body.len()) * TRIES;
        let tries = self.tries(call, endpoint, &outgoing, signer);
        let late = || Error::Unreachable {
            host: endpoint.authority.clone(),
            why: format!("{} had no answer within {} s", call.operation, deadline.as_secs()),
        };
        tokio::time::timeout(deadline, tries).await.map_err(|_| late())?
    }

    async fn tries(
        &self,
        call: &Call,
        endpoint: &http::Endpoint,
        outgoing: &Outgoing,
        signer: &Signer,
    ) -> Result<http::Answer, Error> {
        for tries in 1.. {
            let request = self.signed(call.service, endpoint, outgoing, signer).await?;
            let patience = patience(outgoing.body.len());
            let (error, why) = match http::exchange(endpoint, request, patience).await {
                Ok(answer) => {
                    let refused = match answer.status < 300 {
                        true => refusal::within(call, &answer),
                        false => Some(refusal::refusal(&answer)),
                    };
                    let Some((code, message)) = refused else {
                        return Ok(answer);
                    };
                    let why = retry::why(answer.status, &code);
                    let error = Error::Refused {
                        service: call.service,
                        operation: call.operation,
                        code,
                        message,
                    };
                    (error, why)
                }
                Err(why) => {
                    let host = endpoint.authority.clone();
                    (Error::Unreachable { host, why }, retry::Why::Broken)
                }
            };
            match retry::pause(why, tries, (self.machine.bits)()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
        unreachable!("tries come to an end")
    }

    async fn signed(
        &self,
        service: &str,
        endpoint: &http::Endpoint,
        outgoing: &Outgoing,
        signer: &Signer,
    ) -> Result<http::Call, Error> {
        let now = (self.machine.now)();
        let keys = match signer {
            Signer::Nobody => None,
            Signer::Keys(keys) => Some(keys.clone()),
            Signer::Source => Some(self.source.keys(self, now).await?),
        };
        let path = format!("{}{}", endpoint.prefix, outgoing.path);
        let mut headers = outgoing.headers.clone();
        headers.push(("host".into(), endpoint.authority.clone()));
        if let Some(keys) = keys {
            let credentials = Credentials {
                key_id: keys.id,
                secret: keys.secret,
                token: keys.token,
                region: self.signing_region(service),
            };
            let own: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let request = Signed {
                method: outgoing.method.as_str(),
                path: &path,
                query: &outgoing.query,
                headers: &own,
                body: &outgoing.body,
            };
            let made = sign(&credentials, service, &request, now);
            headers.extend(made.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        let target = match outgoing.query.as_str() {
            "" => path,
            query => format!("{path}?{query}"),
        };
        Ok(http::Call {
            method: outgoing.method.clone(),
            target,
            headers,
            body: outgoing.body.clone(),
        })
    }

    /// Services that know no region are signed for one that their partition names.
    fn signing_region(&self, service: &str) -> String {
        let own = match (service, self.partition()) {
            ("iam" | "route53", "aws") => "us-east-1",
            ("iam", "aws-cn") => "cn-north-1",
            ("route53", "aws-cn") => "cn-northwest-1",
            ("iam" | "route53", "aws-us-gov") => "us-gov-west-1",
            _ => &self.region,
        };
        own.to_owned()
    }

    /// `AWS_ENDPOINT_URL_SERVICE`, `AWS_ENDPOINT_URL`, or AWS's own.
    fn endpoint(&self, service: &str, bucket: Option<&str>) -> Result<http::Endpoint, Error> {
        let variable = match service {
            "elasticloadbalancing" => "ELASTIC_LOAD_BALANCING_V2".to_owned(),
            "autoscaling" => "AUTO_SCALING".to_owned(),
            "servicequotas" => "SERVICE_QUOTAS".to_owned(),
            "route53" => "ROUTE_53".to_owned(),
            "states" => "SFN".to_owned(),
            "secretsmanager" => "SECRETS_MANAGER".to_owned(),
            "logs" => "CLOUDWATCH_LOGS".to_owned(),
            other => other.to_ascii_uppercase(),
        };
        let own = self.machine.get(&format!("AWS_ENDPOINT_URL_{variable}"));
        let own = own.or_else(|| self.machine.get("AWS_ENDPOINT_URL"));
        let text = own.unwrap_or_else(|| self.address(service, bucket));
        http::Endpoint::parse(&text).ok_or(Error::Endpoint(text))
    }

    fn address(&self, service: &str, bucket: Option<&str>) -> String {
        let region = &self.region;
        let (partition, end) = match self.partition() {
            "aws-cn" => ("aws-cn", "amazonaws.com.cn"),
            other => (other, "amazonaws.com"),
        };
        let host = match (service, partition) {
            ("iam", "aws-cn") => format!("iam.cn-north-1.{end}"),
            ("iam" | "route53", "aws-us-gov") => format!("{service}.us-gov.{end}"),
            ("iam" | "route53", _) => format!("{service}.{end}"),
            ("ecr", _) => format!("api.ecr.{region}.{end}"),
            ("s3", _) => match bucket {
                Some(bucket) => format!("{bucket}.s3.{region}.{end}"),
                None => format!("s3.{region}.{end}"),
            },
            _ => format!("{service}.{region}.{end}"),
        };
        format!("https://{host}")
    }
}

#[cfg(test)]
impl Client {
    /// Of a service at this address, with credentials that nobody checks.
    pub fn at(address: std::net::SocketAddr) -> Self {
        let machine = Machine {
            variable: Arc::new(move |name| match name {
                "AWS_ENDPOINT_URL" => Some(format!("http://{address}")),
                "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("x".to_owned()),
                _ => None,
            }),
            now: || jiff::Timestamp::UNIX_EPOCH,
            bits: || 0,
        };
        let source = Arc::new(Source::chain(machine.clone(), None));
        Self::new(machine, source, "eu-central-1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(region: &str, endpoint: Option<&'static str>) -> Client {
        let machine = Machine {
            variable: Arc::new(move |name| {
                endpoint.filter(|_| name == "AWS_ENDPOINT_URL").map(str::to_owned)
            }),
            now: || Timestamp::UNIX_EPOCH,
            bits: || 0,
        };
        let source = Arc::new(Source::chain(machine.clone(), None));
        Client::new(machine, source, region)
    }

    use jiff::Timestamp;

    #[test]
    fn every_service_has_its_address() {
        let address = |region: &str, service: &str, bucket: Option<&str>| {
            client(region, None).endpoint(service, bucket).unwrap().authority
        };
        for (region, service, bucket, host) in [
            (
                "eu-central-1",
                "cloudformation",
                None,
                "cloudformation.eu-central-1.amazonaws.com",
            ),
            ("eu-central-1", "iam", None, "iam.amazonaws.com"),
            ("eu-central-1", "ecr", None, "api.ecr.eu-central-1.amazonaws.com"),
            ("eu-central-1", "s3", Some("b"), "b.s3.eu-central-1.amazonaws.com"),
            ("cn-north-1", "sts", None, "sts.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "iam", None, "iam.us-gov.amazonaws.com"),
        ] {
            assert_eq!(address(region, service, bucket), host);
        }
        let own = client("eu-central-1", Some("http://127.0.0.1:5000"));
        assert_eq!(own.endpoint("s3", Some("b")).unwrap().authority, "127.0.0.1:5000");
        assert!(
            client("eu-central-1", Some("nowhere"))
                .endpoint("s3", None)
                .is_err()
        );
        assert_eq!(own.signing_region("iam"), "us-east-1");
    }

    /// The variables as AWS's list of service-specific endpoints has them.
    #[test]
    fn one_service_may_be_elsewhere() {
        for (service, variable) in [
            ("autoscaling", "AWS_ENDPOINT_URL_AUTO_SCALING"),
            ("cloudformation", "AWS_ENDPOINT_URL_CLOUDFORMATION"),
            ("dynamodb", "AWS_ENDPOINT_URL_DYNAMODB"),
            ("ec2", "AWS_ENDPOINT_URL_EC2"),
            ("ecr", "AWS_ENDPOINT_URL_ECR"),
            ("ecs", "AWS_ENDPOINT_URL_ECS"),
            (
                "elasticloadbalancing",
                "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2",
            ),
            ("iam", "AWS_ENDPOINT_URL_IAM"),
            ("kms", "AWS_ENDPOINT_URL_KMS"),
            ("logs", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"),
            ("outposts", "AWS_ENDPOINT_URL_OUTPOSTS"),
            ("rds", "AWS_ENDPOINT_URL_RDS"),
            ("route53", "AWS_ENDPOINT_URL_ROUTE_53"),
            ("s3", "AWS_ENDPOINT_URL_S3"),
            ("secretsmanager", "AWS_ENDPOINT_URL_SECRETS_MANAGER"),
            ("servicequotas", "AWS_ENDPOINT_URL_SERVICE_QUOTAS"),
            ("ssm", "AWS_ENDPOINT_URL_SSM"),
            ("states", "AWS_ENDPOINT_URL_SFN"),
            ("sts", "AWS_ENDPOINT_URL_STS"),
        ] {
            let mut own = client("eu-central-1", Some("http://127.0.0.1:5000"));
            let all = Arc::clone(&own.machine.variable);
            own.machine.variable = Arc::new(move |name| match name == variable {
                true => Some("http://127.0.0.1:6000".to_owned()),
                false => all(name),
            });
            assert_eq!(own.endpoint(service, None).unwrap().authority, "127.0.0.1:6000");
            let other = if service == "s3" { "sts" } else { "s3" };
            assert_eq!(own.endpoint(other, None).unwrap().authority, "127.0.0.1:5000");
        }
    }

    #[test]
    fn what_is_long_may_take_long() {
        assert_eq!(
            (patience(0), patience(0) * TRIES),
            (TRY, Duration::from_secs(240))
        );
        assert_eq!(patience(crate::upload::PIECE), Duration::from_secs(316));
    }
}
