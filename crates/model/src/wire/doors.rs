use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::route::Access;

/// What is closed: its visitors get a page, with 503, and nobody reaches the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Closed {
    /// All that the tenant has is closed, and not this environment alone.
    pub whole: bool,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    pub by: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// HTML that visitors get, at most 64 KiB; absent: one line of the platform's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Who may ask for anything of a tenant, by their addresses. Others get 403.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Allowed {
    /// Addresses and networks: nobody else may. Everybody may where there are none.
    pub allow: Vec<String>,
    /// Addresses and networks that may not, also where they are allowed.
    pub deny: Vec<String>,
}

impl Allowed {
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

impl From<Access> for Allowed {
    fn from(access: Access) -> Self {
        let texts = |list: Vec<crate::route::Network>| list.into_iter().map(String::from).collect();
        Self {
            allow: texts(access.allow),
            deny: texts(access.deny),
        }
    }
}
