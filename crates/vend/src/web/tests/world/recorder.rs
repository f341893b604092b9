//! What stands behind the API: it writes down what it is asked.

use super::*;

/// Writes down what it is asked.
#[derive(Default)]
pub struct Recorder {
    pub pushes: Mutex<Vec<Pushed>>,
    pub commands: Mutex<Vec<String>>,
}

impl Recorder {
    fn note(&self, command: String) -> ExecutionId {
        let mut commands = self.commands.lock().unwrap();
        commands.push(command);
        ExecutionId::from_bits(1000 + commands.len() as u64)
    }
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, Fault>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Commands for Recorder {
    fn pushed(&self, push: Pushed) -> BoxFuture<'_, Result<String, Fault>> {
        let line = format!("{} at {} is on its way", push.branch, &push.commit.id[..8]);
        self.pushes.lock().unwrap().push(push);
        done(line)
    }

    fn gone(
        &self,
        tenant: TenantName,
        app: AppName,
        branch: String,
        by: By,
    ) -> BoxFuture<'_, Result<String, Fault>> {
        self.note(format!("gone {tenant}/{app} {branch} by {}", by.actor));
        done(format!("{branch} is gone"))
    }

    fn plan_rollback(&self, place: Place, to: Option<u64>) -> BoxFuture<'_, Result<Plan, Fault>> {
        self.note(format!("plan {place} {to:?}"));
        done(plan(&place))
    }

    fn invite(&self, new: NewInvitation, by: By) -> BoxFuture<'_, Result<Pass, Fault>> {
        self.note(format!("invite {} by {}", new.tenant, by.actor));
        done(Pass {
            text: Secret::new("vendjoin_x".to_owned()),
            url: "https://platform.example:7443".into(),
        })
    }

    fn invite_builder(&self, new: NewBuilder, by: By) -> BoxFuture<'_, Result<Pass, Fault>> {
        self.note(format!("invite a builder for {:?} by {}", new.tenants, by.actor));
        done(Pass {
            text: Secret::new("vendjoin_y".to_owned()),
            url: "https://platform.example:7443".into(),
        })
    }

    fn remove_builder(&self, id: HostId, now: bool, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        let when = if now { " now" } else { "" };
        self.note(format!("remove the builder {id}{when} by {}", by.actor));
        done(())
    }

    fn remove_machine(&self, id: HostId, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        self.note(format!("remove {id} by {}", by.actor));
        done(())
    }

    fn rollback(
        &self,
        place: Place,
        order: NewRollback,
        by: By,
    ) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        done(self.note(format!("rollback {place} {:?} by {}", order.to, by.actor)))
    }

    fn destroy(&self, place: Place, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        done(self.note(format!("destroy {place} by {}", by.actor)))
    }

    fn delete_app(
        &self,
        tenant: TenantName,
        app: AppName,
        by: By,
    ) -> BoxFuture<'_, Result<Vec<ExecutionId>, Fault>> {
        done(vec![self.note(format!("delete {tenant}/{app} by {}", by.actor))])
    }

    fn delete_tenant(&self, tenant: TenantName, by: By) -> BoxFuture<'_, Result<Vec<ExecutionId>, Fault>> {
        done(vec![self.note(format!("delete {tenant} by {}", by.actor))])
    }

    fn wake(&self, place: Place, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        done(self.note(format!("wake {place} by {}", by.actor)))
    }

    fn scale(&self, place: Place, hosts: u32, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        done(self.note(format!("scale {place} {hosts} by {}", by.actor)))
    }

    fn retry(&self, place: Place, by: By) -> BoxFuture<'_, Result<u64, Fault>> {
        self.note(format!("retry {place} by {}", by.actor));
        done(1)
    }

    fn cancel(&self, execution: ExecutionId, in_migration: bool, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        let how = if in_migration { " in its migration" } else { "" };
        self.note(format!("cancel {execution}{how} by {}", by.actor));
        done(())
    }

    fn refresh_bases(&self, base: Option<String>, by: By) -> BoxFuture<'_, Result<Refreshed, Fault>> {
        self.note(format!("refresh {base:?} by {}", by.actor));
        done(Refreshed::default())
    }

    fn hold(&self, deployment: DeploymentId, held: bool, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        self.note(format!("hold {deployment} {held} by {}", by.actor));
        done(())
    }

    fn abort(
        &self,
        deployment: DeploymentId,
        in_migration: bool,
        by: By,
    ) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        let how = if in_migration { " in its migration" } else { "" };
        done(self.note(format!("abort {deployment}{how} by {}", by.actor)))
    }

    fn follow(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.note("follow".to_owned());
        done(())
    }

    fn moved(&self, place: Place, step: Moving, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        self.note(format!("move {place} {step:?} by {}", by.actor));
        done(())
    }

    fn dump(&self, place: Place, by: By) -> BoxFuture<'_, Result<(String, Body), Fault>> {
        self.note(format!("dump {place} by {}", by.actor));
        done(("0 tables, 0 rows, 0".to_owned(), Body::empty()))
    }

    fn load(&self, place: Place, _: Body, by: By) -> BoxFuture<'_, Result<String, Fault>> {
        self.note(format!("load {place} by {}", by.actor));
        done("0 tables, 0 rows, 0".to_owned())
    }

    fn voted(&self, approval: ApprovalId) -> BoxFuture<'_, Result<(), Fault>> {
        self.note(format!("voted {approval}"));
        done(())
    }
}

/// A machine with the one host.
pub struct Machine;

impl Sight for Machine {
    fn machine(&self, _: &HostId) -> Option<host::machine::Seen> {
        None
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [("arch".to_owned(), "amd64".to_owned())].into()
    }

    fn access(&self, wanted: edge::AccessNewest) -> BoxFuture<'_, Result<edge::AccessLines, Fault>> {
        let about = ["", "acme", "acme/shop"].contains(&wanted.of.as_str());
        done(edge::AccessLines {
            lines: about
                .then(|| "a line of acme/shop/dev/v1".to_owned())
                .into_iter()
                .collect(),
            all: true,
        })
    }

    fn log(&self, log: LogRef, offset: u64) -> BoxFuture<'_, Result<LogChunk, Fault>> {
        let text = format!("the text of {log}\n");
        let text = text.get(offset as usize..).unwrap_or_default().to_owned();
        done(LogChunk {
            next: offset + text.len() as u64,
            text,
            ended: true,
            times: Vec::new(),
        })
    }

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>, Fault>> {
        done(vec![HostSeen {
            host: host(),
            place: place(),
            role: HostRole::App,
            state: HostState::Running,
            address: Ipv4Addr::LOCALHOST,
            image: Digest::of("image"),
            started_at: now(),
            memory_bytes: 1,
            cpu_ms: 1,
            pids: 1,
            disk_bytes: Some(1),
            disk_total_bytes: Some(2),
            configured: true,
        }])
    }

    fn targets(&self) -> BoxFuture<'_, Result<Vec<TargetHealth>, Fault>> {
        done(Vec::new())
    }

    fn unbound(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        done(Vec::new())
    }

    fn preparing(&self) -> BoxFuture<'_, Result<Option<String>, Fault>> {
        done(Some("build image".to_owned()))
    }

    fn image(&self, image: Digest) -> BoxFuture<'_, Result<ImageAbout, Fault>> {
        done(ImageAbout {
            digest: image,
            base: "debian-12".to_owned(),
            stale: false,
            layers: Vec::new(),
            scripts: Vec::new(),
            commit: None,
            bill: Digest::of("bill"),
            packages: 0,
            size_bytes: 0,
            checks: Vec::new(),
            created_at: now(),
        })
    }

    fn bill(&self, _: Digest) -> BoxFuture<'_, Result<Value, Fault>> {
        done(Value::Null)
    }

    fn compare(&self, _: Digest, _: Digest) -> BoxFuture<'_, Result<ImageDiff, Fault>> {
        done(ImageDiff::default())
    }

    fn bases(&self) -> BoxFuture<'_, Result<BasesSeen, Fault>> {
        done(BasesSeen::default())
    }

    fn object(&self, object: Digest) -> BoxFuture<'_, Result<Body, Fault>> {
        match object == Digest::of("swept") {
            true => Box::pin(async { Err(Fault::order("there is no such object")) }),
            false => done(Body::from(serde_json::to_vec(&object).unwrap())),
        }
    }

    fn export(&self, _: Digest, how: ImageExport) -> BoxFuture<'_, Result<Body, Fault>> {
        done(Body::from(serde_json::to_vec(&how).unwrap()))
    }

    /// What was taken in is the body, where that says it.
    fn import(&self, tar: Body) -> BoxFuture<'_, Result<ImageTaken, Fault>> {
        Box::pin(async {
            let bytes = to_bytes(tar, 10 << 20).await.unwrap();
            Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| ImageTaken {
                image: Digest::of("imported"),
                bill: None,
                told: Vec::new(),
                warning: None,
            }))
        })
    }
}
