//! What the edge must hold for the table: certificates of domains and secrets of clients of providers, from the vault.
//!
//! Always the newest: a certificate is renewed, and a secret changed, with `vend secrets set` and nothing else.

use edge::Given;
use model::{Place, Secret, route::Authenticate, spec::Certificate};
use store::Db;
use tracing::debug;

use super::Served;

/// The name in the table of an environment's secret at its provider. Names of places are labels, so that no two are alike.
/// Sessions are bound to it: those of an environment that had the name before are nobody's.
pub fn client_secret(served: &Served) -> String {
    let Served {
        place, created_at, ..
    } = served;
    let made = created_at.as_millisecond();
    format!("{}.{}.{}.{made}.oidc", place.tenant, place.app, place.environment)
}

/// As the table says it: with the name that the secret has at the edge.
pub fn login(served: &Served, spec: &Authenticate) -> Box<Authenticate> {
    Box::new(Authenticate {
        client_secret: client_secret(served),
        ..spec.clone()
    })
}

/// What is not in the vault is left out, and said by the release's plan and in the log.
pub fn given(db: &Db<'_>, environments: &[Served]) -> Result<Given, store::Error> {
    let mut given = Given::default();
    for served in environments {
        let place = &served.place;
        if let Some(login) = &served.authenticate
            && let Some(secret) = reveal(db, place, &login.client_secret)?
        {
            given.secrets.insert(client_secret(served), secret);
        }
        for (domain, _) in &served.domains {
            // As in the table: another's domain has another's certificate.
            if !served.owns.contains(&domain.host) {
                continue;
            }
            let Certificate::Vault { chain, key } = &domain.certificate else {
                continue;
            };
            if let (Some(chain), Some(key)) = (reveal(db, place, chain)?, reveal(db, place, key)?) {
                let pem = Secret::new(format!("{}\n{}\n", chain.expose(), key.expose()));
                given.certificates.insert(domain.host.clone(), pem);
            }
        }
    }
    Ok(given)
}

fn reveal(db: &Db<'_>, place: &Place, name: &str) -> Result<Option<Secret>, store::Error> {
    match db.reveal(place, name, None) {
        Ok(secret) => Ok(Some(secret)),
        Err(store::Error::Missing { .. }) => {
            debug!("{place} needs the secret {name} at the load balancer, and it is not set");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
