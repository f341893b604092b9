//! What an app finds in its environment: its own variables, its secrets, its database, and who it is.

use std::collections::{BTreeMap, BTreeSet};

use model::{Place, Secret, port::Fault, release::Release, spec::Variable};

use store::Store;

use super::{World, build::missing, stored};

/// The generated secret that holds the password of an environment's database.
pub const DATABASE_PASSWORD: &str = "database-password";

/// The database's name and its user's.
pub const DATABASE_NAME: &str = "app";

/// Names of the secrets that a release uses.
pub fn secrets_of(spec: &model::spec::Environment) -> Vec<String> {
    let of_variable = |variable: &Variable| match variable {
        Variable::Secret(name) => Some(name.clone()),
        Variable::Plain(_) => None,
    };
    spec.host.env.values().filter_map(of_variable).collect()
}

/// What a host gets, and the names of the variables that are secrets.
pub struct Variables {
    pub all: BTreeMap<String, Secret>,
    pub secrets: BTreeSet<String>,
}

/// All variables of a host of this release. Secrets come in the versions that the release was made with.
pub async fn of(
    world: &World,
    environment: &store::Environment,
    release: &Release,
) -> Result<Variables, Fault> {
    let place = &environment.place;
    let mut all = about(place, release);
    let mut secrets = BTreeSet::new();
    for (name, variable) in &release.spec.host.env {
        let value = match variable {
            Variable::Plain(value) => Secret::new(value.clone()),
            Variable::Secret(secret) => {
                secrets.insert(name.clone());
                let version = release.secrets.get(secret).copied();
                reveal(&world.store, place, secret, version)
                    .await?
                    .ok_or_else(|| missing(place, [secret.as_str()]))?
            }
        };
        all.insert(name.clone(), value);
    }
    if let (Some(host), Some(_)) = (&environment.database_host, &release.spec.database) {
        let host = host.clone();
        let database = world.store.read(move |db| db.host(&host)).await.map_err(stored)?;
        let password = reveal(&world.store, place, DATABASE_PASSWORD, None).await?;
        let password =
            password.ok_or_else(|| Fault::platform("the database's password is not in the vault"))?;
        all.extend(database_variables(&database.address.to_string(), &password));
        secrets.extend(["DATABASE_URL", "DATABASE_PASSWORD"].map(str::to_owned));
    }
    Ok(Variables { all, secrets })
}

fn about(place: &Place, release: &Release) -> BTreeMap<String, Secret> {
    [
        ("VEND_TENANT", place.tenant.to_string()),
        ("VEND_APP", place.app.to_string()),
        ("VEND_ENVIRONMENT", place.environment.to_string()),
        ("VEND_RELEASE", format!("v{}", release.number)),
        ("VEND_COMMIT", release.commit.id.clone()),
        ("PORT", release.spec.host.port.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), Secret::new(value)))
    .into()
}

fn database_variables(address: &str, password: &Secret) -> [(String, Secret); 6] {
    let url = format!(
        "mysql://{DATABASE_NAME}:{}@{address}:3306/{DATABASE_NAME}",
        password.expose()
    );
    [
        ("DATABASE_URL", url),
        ("DATABASE_HOST", address.to_owned()),
        ("DATABASE_PORT", "3306".to_owned()),
        ("DATABASE_NAME", DATABASE_NAME.to_owned()),
        ("DATABASE_USER", DATABASE_NAME.to_owned()),
        ("DATABASE_PASSWORD", password.expose().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), Secret::new(value)))
}

/// Whether the vault has what the load balancer needs for the release.
pub async fn check_edge(world: &World, place: &Place, release: &Release) -> Result<(), Fault> {
    for secret in release.spec.secrets_of_the_edge() {
        if reveal(&world.store, place, secret, None).await?.is_none() {
            return Err(missing(place, [secret]));
        }
    }
    Ok(())
}

pub async fn reveal(
    store: &Store,
    place: &Place,
    name: &str,
    version: Option<u64>,
) -> Result<Option<Secret>, Fault> {
    let (place, name) = (place.clone(), name.to_owned());
    match store.read(move |db| db.reveal(&place, &name, version)).await {
        Ok(secret) => Ok(Some(secret)),
        Err(store::Error::Missing { .. }) => Ok(None),
        Err(error) => Err(stored(error)),
    }
}
