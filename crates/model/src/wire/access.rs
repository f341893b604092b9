use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{EnvironmentName, Secret, TenantName, policy::Role};

/// Who the platform takes the caller for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    pub actor: String,
    pub role: Role,
    /// The tenant that the role is held in; none for the whole platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
}

/// A secret without its value, which never leaves the platform again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretInfo {
    pub name: String,
    /// The one environment that it is for; none for all of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentName>,
    pub version: u64,
    /// The platform made it up.
    pub generated: bool,
    pub set_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub set_at: Timestamp,
}

/// The value of a secret. It goes in and never out.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    #[serde(serialize_with = "crate::secret::in_the_clear")]
    #[schema(value_type = String, write_only)]
    pub value: Secret,
}

/// What a git host and the platform both know. It goes in and never out.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSecret {
    #[serde(serialize_with = "crate::secret::in_the_clear")]
    #[schema(value_type = String, write_only)]
    pub value: Secret,
}

/// A token of a machine, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub id: u64,
    pub name: String,
    /// Who acts with it, as the ledger writes it.
    pub actor: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub used_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What people call it, unique in its tenant: `ci`, which stands in the ledger as `token:ci`; or the mail address
    /// of the person that it is for, which stands there as `person:ADDRESS`.
    pub name: String,
    pub role: Role,
    /// The tenant that it works in; none for the whole platform, which only an operator may give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    /// Seconds until it ends; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A token of a few minutes for a program that acts for the caller, such as git.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Session {
    #[serde(serialize_with = "crate::secret::in_the_clear")]
    #[schema(value_type = String)]
    pub text: Secret,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// A new token with its text, which is shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub token: Token,
    #[serde(serialize_with = "crate::secret::in_the_clear")]
    #[schema(value_type = String)]
    pub text: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    pub version: String,
    /// The version of the HTTP interface.
    pub api: String,
    /// Where the platform is reached over TCP: repositories and webhooks are under it.
    pub url: String,
}

/// How the platform is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub ok: bool,
    pub roles: Vec<RoleHealth>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoleHealth {
    /// `serve`, `node`, `edge`
    pub role: String,
    pub ok: bool,
    /// Why it is not well; of a role that is, what it still prepares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
