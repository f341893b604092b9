//! A machine that builds: `vend agent --join URL --token T --builder`. Over the connection that it has made it answers
//! what a node answers of builds, with the same code, and nothing else.

use std::{collections::BTreeMap, path::Path};

use camino::Utf8Path;

use crate::{
    base::Bases,
    build,
    cache::Caches,
    container::chain,
    node::{self, NodeConfig},
};

use super::{
    Error,
    join::{self, Ring},
};

/// What the machine is, whatever its invitation says.
pub fn own_labels() -> BTreeMap<String, String> {
    build::own_labels(BTreeMap::new())
}

/// Removes what builds have left to be faster, and what logins got from registries. `state`: the directory of a builder that does not run.
pub(super) fn forget_all(state: &Path) -> Result<(), Error> {
    let node = Utf8Path::from_path(state).map(|state| state.join("node"));
    let node = node.ok_or_else(|| Error::Told("the directory's path is not UTF-8".into()))?;
    let told = |error| Error::Told(chain(&error));
    Caches::remove_all(&node).map_err(told)?;
    Bases::forget_all(&node).map_err(told)
}

/// What has the builder of a directory begin again. `None`: it is no builder's.
pub fn again(state: &Path) -> Option<String> {
    // A machine on which releases are deployed has no node.
    let builds = state.join("node").is_dir();
    builds.then(|| join::again(state, " --builder", INVITE)).flatten()
}

/// What gives an invitation.
const INVITE: &str = "vend builders invite";

/// Builds for the platform that it has joined until `stop`, whatever becomes of the connection.
/// [`crate::container::enter_private_mounts`] was called before.
///
/// # Errors
///
/// It cannot begin, or the platform says that the machine was removed.
pub async fn serve(
    state: &Path,
    mut config: NodeConfig,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let ring = Ring::open(state)?;
    config.labels = ring.labels();
    let told = |error: node::Error| Error::Unable(chain(&error));
    let builder = node::Builder::open(&config).await.map_err(told)?;
    let router = builder.router().merge(join::keys(ring.clone()));
    tokio::select! {
        // What it builds is begun anew by the next one, which removes what is left first: to end it now would be an answer.
        () = stop => return Ok(()),
        () = join::stay(&ring, &router) => {}
    }
    builder.close().await.map_err(told)?;
    join::forget(state, INVITE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_builder_s_directory_says_how_it_begins_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        fs::create_dir(state.join("node")).unwrap();
        assert_eq!(again(state), None, "a platform's");
        let identity = r#"{"platform":"platform.example:7443","machine":"h-0000000000001","key":"","certificate":"","authority":""}"#;
        let identity = identity.replace("h-0000000000001", &model::HostId::from_bits(1).to_string());
        fs::write(state.join("identity.json"), identity).unwrap();
        let known = again(state).unwrap();
        let expected = "vend agent --builder --join https://platform.example:7443 --state ";
        assert!(known.starts_with(expected), "{known}");
        let told = join::forget(state, INVITE).unwrap_err();
        assert!(told.to_string().contains(INVITE), "{told}");
        assert!(again(state).unwrap().starts_with(INVITE), "{:?}", again(state));
        fs::remove_dir(state.join("node")).unwrap();
        assert_eq!(again(state), None, "of one that does not build");
    }
}
