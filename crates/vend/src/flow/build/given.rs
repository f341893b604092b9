//! What builds are given beside their buildspecs. Of variables with one name the later wins, as on CodeBuild: the
//! buildspec's, the project's (`build.env`), those of the build of a batch.

use std::collections::BTreeMap;

use model::{
    Place, Secret,
    port::Fault,
    spec::{Build, Buildspec, Variable, build::Task},
};
use store::Store;

use super::{missing, variables};

/// A buildspec without the variables that its build has from elsewhere: their secrets are not asked for. Of those that are
/// plain a batch's build has its own all the same, and they stay: an order that is under way is told by all that is in it.
pub(super) fn apart(mut buildspec: Buildspec, build: &Build, task: Option<&Task>) -> Buildspec {
    let own = task.into_iter().flat_map(|task| task.variables.keys());
    let env = &mut buildspec.env;
    for name in build.env.keys() {
        env.variables.remove(name);
    }
    for name in build.env.keys().chain(own) {
        env.parameter_store.remove(name);
        env.secrets_manager.remove(name);
    }
    buildspec
}

/// The variables of the project but those that a build of a batch has itself.
fn own<'b>(build: &'b Build, task: Option<&Task>) -> impl Iterator<Item = (&'b String, &'b Variable)> {
    let is_own = move |name: &String| task.is_some_and(|task| task.variables.contains_key(name));
    build.env.iter().filter(move |(name, _)| !is_own(name))
}

/// The secrets that a build needs for its project's variables.
pub(super) fn secrets<'b>(build: &'b Build, task: Option<&Task>) -> impl Iterator<Item = &'b str> {
    own(build, task).filter_map(|(_, variable)| match variable {
        Variable::Secret(name) => Some(name.as_str()),
        Variable::Plain(_) => None,
    })
}

/// The values of the project's variables, and of those that are secrets.
pub(super) async fn project(
    store: &Store,
    place: &Place,
    build: &Build,
    task: Option<&Task>,
) -> Result<(BTreeMap<String, String>, BTreeMap<String, Secret>), Fault> {
    let (mut plain, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (name, variable) in own(build, task) {
        match variable {
            Variable::Plain(value) => drop(plain.insert(name.clone(), value.clone())),
            Variable::Secret(secret) => {
                let value = variables::reveal(store, place, secret, None).await?;
                let value = value.ok_or_else(|| missing(place, [secret.as_str()]))?;
                secrets.insert(name.clone(), value);
            }
        }
    }
    Ok((plain, secrets))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use store::{By, SecretScope};

    use super::*;

    const SPEC: &str = "version: 0.2
env:
  variables: { A: spec, B: spec, C: spec }
  parameter-store: { P: p, Q: q }
  secrets-manager: { S: s, T: t }
phases: { build: { commands: ['true'] } }
";
    const APP: &str = "app: shop
build: { env: { B: project, C: project, Q: project, T: '{{secret:token}}', C2: '{{secret:c}}', N: 3.10 } }
";

    fn task(variables: &[&str]) -> Task {
        let variables = variables
            .iter()
            .map(|name| ((*name).to_owned(), "own".to_owned()));
        Task {
            variables: variables.collect(),
            ..Task::default()
        }
    }

    fn build() -> Build {
        let app = spec(APP);
        app.environments[0].build.clone()
    }

    fn spec(text: &str) -> model::spec::App {
        let read = model::spec::App::parse(text, "vend.yaml", &|path| path == "Procfile");
        read.unwrap().0
    }

    #[test]
    fn the_project_s_variables_are_in_the_place_of_the_buildspec_s_and_a_batch_s_of_both() {
        let (buildspec, _) = Buildspec::parse(SPEC, "buildspec.yml").unwrap();
        let left = |task: Option<&Task>| {
            let env = apart(buildspec.clone(), &build(), task).env;
            let names = env.variables.into_keys().chain(env.parameter_store.into_keys());
            names.chain(env.secrets_manager.into_keys()).collect::<Vec<_>>()
        };
        assert_eq!(left(None), ["A", "P", "S"]);
        assert_eq!(left(Some(&task(&["P", "C", "X"]))), ["A", "S"]);
        assert_eq!(secrets(&build(), None).collect::<Vec<_>>(), ["c", "token"]);
        assert_eq!(secrets(&build(), Some(&task(&["T"]))).collect::<Vec<_>>(), ["c"]);
    }

    #[tokio::test]
    async fn secrets_of_the_project_come_from_the_vault() {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::try_from(directory.path().join("serve")).unwrap();
        let store = Store::open(&path).unwrap();
        let place: Place = "acme/shop/dev".parse().unwrap();
        let scope = SecretScope {
            tenant: place.tenant.clone(),
            app: place.app.clone(),
            environment: None,
        };
        let made = store.write(move |tx| {
            let by = By::platform(Timestamp::UNIX_EPOCH);
            tx.create_tenant(&scope.tenant, &by)?;
            tx.create_app(&scope.tenant, &scope.app, None, &by)?;
            tx.set_secret(&scope, "token", &Secret::new("tigers".to_owned()), &by)
        });
        made.await.unwrap();
        let given = |task: Task| {
            let (store, place) = (store.clone(), place.clone());
            async move { project(&store, &place, &build(), Some(&task)).await }
        };
        let fault = given(task(&[])).await.err().unwrap();
        assert_eq!(fault.message, "there is no secret `c`");
        let (plain, secrets) = given(task(&["C2", "B"])).await.unwrap();
        let own = [("C", "project"), ("N", "3.10"), ("Q", "project")];
        assert_eq!(
            plain,
            own.map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        );
        assert_eq!(secrets["T"].expose(), "tigers");
        assert_eq!(secrets.len(), 1);
    }
}
