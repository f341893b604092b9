//! Requests to the authority.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use camino::Utf8Path;
use hyper::{Request, body::Bytes};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;

use crate::{
    call::{call, trusting},
    tls,
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Caller(Arc<ClientConfig>);

/// A client that trusts who signed with these roots, or with the machine's.
pub fn client(trusted: Option<&Utf8Path>) -> Result<Box<dyn HttpClient>, tls::Error> {
    Ok(Box::new(Caller(trusting(trusted)?)))
}

impl HttpClient for Caller {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let config = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = call(config, request, PATIENCE).await.map_err(Error::Other)?;
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}
