//! How things are named on the command line: `TENANT/APP[/ENVIRONMENT]`.

use model::{AppName, EnvironmentName, TenantName};

use super::{Client, failure::Failure};

/// The tenant that a name without one means.
pub const VARIABLE: &str = "VEND_TENANT";

/// One app, or one environment of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub tenant: TenantName,
    pub app: AppName,
    pub environment: Option<EnvironmentName>,
}

impl Target {
    /// Reads `TENANT/APP/ENVIRONMENT`, `TENANT/APP` and, where the tenant is known otherwise, `APP`. Two parts are
    /// always tenant and app, so that the meaning of a name does not depend on the environment of the shell.
    pub fn read(text: &str) -> Result<Self, Failure> {
        Self::read_with(text, std::env::var(VARIABLE).ok().as_deref())
    }

    fn read_with(text: &str, tenant: Option<&str>) -> Result<Self, Failure> {
        let parts: Vec<&str> = text.split('/').collect();
        let (tenant, app, environment) = match (parts.as_slice(), tenant) {
            ([app], Some(tenant)) => (tenant, *app, None),
            ([tenant, app], _) => (*tenant, *app, None),
            ([tenant, app, environment], _) => (*tenant, *app, Some(*environment)),
            _ => {
                return Err(Failure::usage(format!("`{text}` does not name an app"))
                    .cause(format!(
                        "an app is written TENANT/APP, an environment TENANT/APP/ENVIRONMENT; APP alone needs {VARIABLE}"
                    ))
                    .next("vend apps list"));
            }
        };
        let wrong = |error: model::id::NotAName| Failure::usage(error.to_string()).next("vend apps list");
        Ok(Self {
            tenant: tenant.parse().map_err(wrong)?,
            app: app.parse().map_err(wrong)?,
            environment: environment.map(str::parse).transpose().map_err(wrong)?,
        })
    }

    /// Where an environment is needed.
    pub fn environment(&self) -> Result<&EnvironmentName, Failure> {
        self.environment.as_ref().ok_or_else(|| {
            Failure::usage(format!("{self}: which environment?"))
                .cause("it is written TENANT/APP/ENVIRONMENT")
                .next(format!("vend environments list {self}"))
        })
    }

    /// `/v1/tenants/acme/apps/shop`
    pub fn app_path(&self) -> String {
        format!("/v1/tenants/{}/apps/{}", self.tenant, self.app)
    }

    /// `/v1/tenants/acme/apps/shop/environments/dev`
    pub fn environment_path(&self) -> Result<String, Failure> {
        Ok(format!(
            "{}/environments/{}",
            self.app_path(),
            self.environment()?
        ))
    }

    /// `tenant=acme&app=shop&environment=dev`
    pub fn query(&self) -> String {
        let app = format!("tenant={}&app={}", self.tenant, self.app);
        match &self.environment {
            Some(environment) => format!("{app}&environment={environment}"),
            None => app,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.app)?;
        match &self.environment {
            Some(environment) => write!(f, "/{environment}"),
            None => Ok(()),
        }
    }
}

/// A tenant named on the command line, or by the environment of the shell.
pub fn tenant(text: Option<&str>) -> Result<TenantName, Failure> {
    let text = match text {
        Some(text) => text.to_owned(),
        None => std::env::var(VARIABLE).map_err(|_| {
            Failure::usage("which tenant?")
                .cause(format!("name it, or set {VARIABLE}"))
                .next("vend tenants list")
        })?,
    };
    text.parse()
        .map_err(|error: model::id::NotAName| Failure::usage(error.to_string()).next("vend tenants list"))
}

/// Refuses a target that there is not. For lists that have nothing of it: those of what there is are empty, too.
pub async fn known(text: Option<&str>, client: &Client) -> Result<(), Failure> {
    let path = match text {
        None => return Ok(()),
        Some(text) if !text.contains('/') && std::env::var_os(VARIABLE).is_none() => {
            format!("/v1/tenants/{}", tenant(Some(text))?)
        }
        Some(text) => match Target::read(text)? {
            own if own.environment.is_some() => own.environment_path()?,
            own => own.app_path(),
        },
    };
    client.get::<serde_json::Value>(&path).await.map(|_| ())
}

/// The query of a list that may be narrowed: by a target, or to a tenant.
pub fn scope(text: Option<&str>) -> Result<String, Failure> {
    match text {
        None => Ok(std::env::var(VARIABLE)
            .map(|tenant| format!("tenant={}", super::client::escape(&tenant)))
            .unwrap_or_default()),
        Some(text) if !text.contains('/') && std::env::var_os(VARIABLE).is_none() => {
            Ok(format!("tenant={}", tenant(Some(text))?))
        }
        Some(text) => Ok(Target::read(text)?.query()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_refused() {
        for (text, tenant, expected) in [
            ("acme/shop", None, Some("acme/shop")),
            ("acme/shop/dev", None, Some("acme/shop/dev")),
            ("acme/shop", Some("other"), Some("acme/shop")),
            ("shop", Some("acme"), Some("acme/shop")),
            ("shop", None, None),
            ("acme/shop/dev/x", None, None),
            ("acme/../dev", None, None),
            ("", Some("acme"), None),
        ] {
            let read = Target::read_with(text, tenant)
                .ok()
                .map(|target| target.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
