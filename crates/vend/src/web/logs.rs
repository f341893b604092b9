//! Logs: which there are, and their text. The name of a log says whose it is.

use axum::{Json, extract::State as Held};
use model::{
    ExecutionId, HostId, Place,
    policy::Action,
    port::{HostRole, LogRef},
    wire::{AccessLog, LogEntry, LogText, Page},
};
use serde::Deserialize;
use store::{Db, ExecutionFilter, ExecutionSummary};

use super::{
    auth::Caller,
    input::{Path, Query},
    refusal::Refusal,
    scope::{Scope, keyed},
    state::State,
};
use crate::flow::runs;

/// Executions whose logs are listed.
const EXECUTIONS: u32 = 30;
/// Events of a history that are read for the logs that they name.
const HISTORY: usize = 2_000;

/// Logs of an execution.
pub fn of_execution(db: &Db<'_>, id: &ExecutionId) -> Result<Vec<LogEntry>, store::Error> {
    let execution = db.execution_summary(id)?;
    let events = runs::history(db, execution.run, HISTORY)?;
    among(db, &execution, &events)
}

/// The same, by whoever has read its events.
pub fn among(
    db: &Db<'_>,
    execution: &ExecutionSummary,
    events: &[asl::HistoryEvent],
) -> Result<Vec<LogEntry>, store::Error> {
    let id = &execution.id;
    let builds = db.ran_in_execution(id)?.into_iter();
    let builds = builds.map(|build| (build.log, build.place, build.started_at));
    let bakes = db.bakes_of_execution(id)?.into_iter();
    let bakes = bakes.map(|bake| (bake.log, bake.place, bake.started_at));
    let mut entries: Vec<LogEntry> = builds
        .chain(bakes)
        .filter_map(|(log, place, at)| Some(entry(&log?, place, at)))
        .collect();
    for (log, at, deployment) in db.deployment_logs(id)? {
        entries.extend(execution.place.clone().map(|place| LogEntry {
            deployment: Some(deployment),
            ..entry(&log, place, at)
        }));
    }
    // What tasks say they wrote, such as the log of a migration.
    for event in events.iter().take(HISTORY) {
        let Some(place) = execution.place.clone() else {
            break;
        };
        for log in named(&event.details.to_string()) {
            if !entries.iter().any(|known| known.log == log.as_str()) {
                entries.push(entry(&log, place.clone(), event.at));
            }
        }
    }
    Ok(entries)
}

/// Names of logs of tickets, and of machines, in a JSON text, also in JSON texts within it.
fn named(details: &str) -> Vec<LogRef> {
    let kinds = ["build/t-", "bake/t-", "deploy/t-", "machine/h-"];
    let words = details.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)));
    let logs = words.filter(|word| kinds.iter().any(|kind| word.starts_with(kind)));
    logs.filter_map(|word| word.trim_end_matches('.').parse().ok())
        .collect()
}

fn entry(log: &LogRef, place: Place, at: jiff::Timestamp) -> LogEntry {
    let name = log.as_str();
    let first = name.split('/').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    let kind = match first {
        "host" => last,
        // Of a machine nothing else is on record.
        "machine" => "deploy",
        first => first,
    };
    LogEntry {
        kind: kind.to_owned(),
        log: name.to_owned(),
        place: Some(place.into()),
        deployment: None,
        at,
    }
}

fn of_hosts(db: &Db<'_>, scope: &Scope) -> Result<Vec<LogEntry>, store::Error> {
    let hosts = db.standing_hosts(scope.place().as_ref())?;
    let hosts = hosts.into_iter().filter(|host| scope.holds(&host.place));
    let logs = hosts.flat_map(|host| {
        let kinds: &[&str] = match host.role {
            HostRole::App => &["console", "service"],
            HostRole::Database => &["console"],
        };
        let entries = kinds.iter().filter_map(move |kind| {
            let log: LogRef = format!("host/{}/{kind}", host.id).parse().ok()?;
            Some(entry(&log, host.place.clone(), host.created_at))
        });
        entries.collect::<Vec<_>>()
    });
    Ok(logs.collect())
}

/// Logs of hosts and of the newest executions.
#[utoipa::path(get, path = "/v1/logs", operation_id = "logs.list", tag = "logs", params(Scope),
    responses((status = 200, body = Page<LogEntry>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<LogEntry>>, Refusal> {
    let scope = scope.within(&caller)?;
    let own = scope.clone();
    let logs = state
        .store
        .read(move |db| {
            let mut logs = of_hosts(db, &own)?;
            let filter = ExecutionFilter {
                tenant: own.tenant,
                app: own.app,
                environment: own.environment,
                limit: EXECUTIONS,
                ..ExecutionFilter::default()
            };
            for execution in db.executions(&filter)? {
                logs.extend(of_execution(db, &execution.id)?);
            }
            Ok::<_, store::Error>(logs)
        })
        .await?;
    let key = |entry: &LogEntry| format!("{:020} {}", entry.at.as_millisecond(), entry.log);
    Ok(Json(keyed(logs, scope.cursor.as_deref(), scope.limit(), key)))
}

/// The newest lines of the load balancer's access log about a tenant, an app or an environment.
#[utoipa::path(get, path = "/v1/access", operation_id = "logs.access", tag = "logs", params(Scope),
    responses((status = 200, body = AccessLog), Refusal))]
pub async fn access(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<AccessLog>, Refusal> {
    let scope = scope.within(&caller)?;
    let own = scope.tenant.clone();
    // A tenant of the same name before it is not its business.
    let since = state
        .store
        .read(move |db| {
            own.map(|tenant| db.tenant(&tenant).map(|tenant| tenant.created_at))
                .transpose()
        })
        .await?;
    let of = [
        scope.tenant.as_ref().map(ToString::to_string),
        scope.app.as_ref().map(ToString::to_string),
        scope.environment.as_ref().map(ToString::to_string),
    ];
    let wanted = edge::AccessNewest {
        of: of.into_iter().flatten().collect::<Vec<_>>().join("/"),
        since,
        lines: scope.limit() as usize,
    };
    let edge::AccessLines { lines, all } = state.sight.access(wanted).await?;
    Ok(Json(AccessLog { lines, all }))
}

/// Where to read from.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct From {
    /// In bytes; 0 when absent.
    offset: Option<u64>,
}

impl From {
    pub fn offset(&self) -> u64 {
        self.offset.unwrap_or(0)
    }
}

/// Some text of a log. Ask again with `offset` set to `next` until it has ended.
#[utoipa::path(get, path = "/v1/logs/{*log}", operation_id = "logs.read", tag = "logs",
    params(("log" = String, Path), From),
    responses((status = 200, body = LogText), Refusal))]
pub async fn read(
    Held(state): Held<State>,
    caller: Caller,
    Path(log): Path<String>,
    Query(from): Query<From>,
) -> Result<Json<LogText>, Refusal> {
    let missing = || Refusal::not_found(format_args!("log `{log}`"));
    let name: LogRef = log.parse().map_err(|_| missing())?;
    let owned = owner(&name).ok_or_else(missing)?;
    let tenant = match owned {
        // Anybody's: a build that waits for an image of the platform's refers to it.
        Owner::Platform => caller.0.tenant.clone(),
        Owner::Machine(id) => match state.store.read(move |db| db.machine(&id)).await {
            Ok(machine) => Some(machine.tenant),
            Err(store::Error::Missing { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        },
        owned => match state.store.read(move |db| place(db, &owned)).await {
            Ok(place) => Some(place.ok_or_else(missing)?.tenant),
            Err(store::Error::Missing { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        },
    };
    caller.may(Action::View, tenant.as_ref(), &format!("log `{log}`"))?;
    let chunk = state.sight.log(name, from.offset()).await?;
    Ok(Json(LogText {
        log,
        text: chunk.text,
        next: chunk.next,
        ended: chunk.ended,
        times: chunk.times,
    }))
}

/// What a log belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Host(HostId),
    Execution(ExecutionId),
    /// A registered one.
    Machine(HostId),
    /// How an image of the platform's own is made.
    Platform,
}

/// By the log's name: `host/HOST/…`, `machine/MACHINE/…`, `bake/platform-IMAGE`, or `KIND/TICKET`, and a ticket names its execution (`model::Ticket::of`).
fn owner(log: &LogRef) -> Option<Owner> {
    let mut parts = log.as_str().split('/');
    let (kind, name) = (parts.next()?, parts.next()?);
    match kind {
        "host" => Some(Owner::Host(name.parse().ok()?)),
        "machine" => Some(Owner::Machine(name.parse().ok()?)),
        "bake" if name.starts_with("platform-") => Some(Owner::Platform),
        "build" | "bake" | "deploy" => {
            let execution = name.strip_prefix("t-")?.split('-').next()?;
            Some(Owner::Execution(format!("x-{execution}").parse().ok()?))
        }
        _ => None,
    }
}

fn place(db: &Db<'_>, owner: &Owner) -> Result<Option<Place>, store::Error> {
    match owner {
        Owner::Host(host) => Ok(Some(db.host(host)?.place)),
        Owner::Execution(execution) => Ok(db.execution_summary(execution)?.place),
        Owner::Platform | Owner::Machine(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use model::Ticket;

    use super::*;

    #[test]
    fn a_log_says_whose_it_is() {
        let execution = ExecutionId::from_bits(77);
        let ticket = Ticket::of(&execution, 3, 1).part("h-1");
        let log: LogRef = format!("deploy/{ticket}").parse().unwrap();
        assert_eq!(owner(&log), Some(Owner::Execution(execution)));
        let host = HostId::from_bits(5);
        let log: LogRef = format!("host/{host}/service").parse().unwrap();
        assert_eq!(owner(&log), Some(Owner::Host(host)));
        let log: LogRef = "bake/platform-standard".parse().unwrap();
        assert_eq!(owner(&log), Some(Owner::Platform));
        for other in [
            "host/x",
            "build/platform-standard",
            "build/x-1",
            "serve/log",
            "host",
        ] {
            assert_eq!(owner(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn logs_are_found_in_what_tasks_said() {
        let details = r#"{"output":"{\"log\":\"deploy/t-abc-1-1\",\"n\":1}","cause":"see build/t-abc-2-1."}"#;
        let found: Vec<String> = named(details).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["deploy/t-abc-1-1", "build/t-abc-2-1"]);
    }
}
