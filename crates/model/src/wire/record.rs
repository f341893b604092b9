use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AppName, DeliveryId, TenantName,
    webhook::{Event, Provider},
};

/// One webhook that came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    #[schema(value_type = String)]
    pub id: DeliveryId,
    pub provider: Provider,
    #[schema(value_type = String)]
    pub tenant: TenantName,
    #[schema(value_type = String)]
    pub app: AppName,
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// The git host's own id of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    pub verdict: DeliveryVerdict,
    /// Why the verdict is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub size_bytes: u64,
    /// The push that it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<u64>,
    /// How often a person had it handled again.
    pub replays: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryVerdict {
    Accepted,
    /// Genuine, and of no interest here.
    Ignored,
    /// Not genuine, or not readable.
    Refused,
}

/// A delivery with what it says. Headers that authenticate it are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub delivery: Delivery,
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// The body as text, at most the first 64 KiB.
    pub body: String,
}

/// The platform's key, to verify checkpoints with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublicKey {
    /// `ed25519:` and 64 hex digits.
    pub key: String,
}
