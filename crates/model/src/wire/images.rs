use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::port::ImageAbout;

/// All about one image, with what the platform has signed about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageShown {
    #[serde(flatten)]
    pub about: ImageAbout,
    /// DSSE envelopes of in-toto statements, oldest first. The key is that of `GET /v1/audit/public-key`.
    #[schema(value_type = Vec<Object>)]
    pub attestations: Vec<serde_json::Value>,
}

/// An image that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    #[schema(value_type = String)]
    pub image: crate::Digest,
}
