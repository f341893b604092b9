//! `vend serve`: the rooms that decide, put together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt as _, future::BoxFuture};
use model::{
    Digest, HostId, Place,
    port::{
        BasesSeen, Fault, HostSeen, Hosts as _, ImageAbout, ImageDiff, ImageExport, ImageTaken, LogChunk,
        LogRef, Logs as _, Shelf as _,
    },
    route::TargetHealth,
};
use store::{By, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    clock,
    config::{Data, Platform, Pool},
    flow::{self, Pokes, World, chain, commands::Flows, silent},
    git::remote::Remotes,
    machines, reconcile,
    role::Lent,
    web,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("serve is started by `vend up` or by systemd, which lend it its sockets (there is no `{0}`)")]
    NoSocket(&'static str),
    #[error("cannot open the database")]
    Store(#[from] store::Error),
    #[error("cannot take in machines")]
    Machines(#[from] Fault),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("cannot use a lent socket")]
    Socket(#[source] std::io::Error),
}

/// Runs until SIGTERM.
pub async fn run(data: Data, mut lent: Lent) -> Result<(), Error> {
    let platform = Platform::load(&data.platform_toml())?;
    let local = lent.unix("local").ok_or(Error::NoSocket("local"))?;
    let api = lent.tcp("api").ok_or(Error::NoSocket("api"))?;
    local
        .set_nonblocking(true)
        .and_then(|()| api.set_nonblocking(true))
        .map_err(Error::Socket)?;
    let local = tokio::net::UnixListener::from_std(local).map_err(Error::Socket)?;
    let api = tokio::net::TcpListener::from_std(api).map_err(Error::Socket)?;
    let url = format!("http://{}", api.local_addr().map_err(Error::Socket)?);

    let store = tokio::task::block_in_place(|| Store::open(&data.serve()))?;
    settle(&store, &data, &platform).await?;
    // Left behind by a crash in the middle of a stage; every stage makes its own again.
    let _ = tokio::fs::remove_dir_all(data.serve().join("tmp")).await;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    flow::unreadable::end(&store, By::platform(clock::now())).await?;
    let pokes = Arc::new(Pokes::default());
    let states = states(&store, &pokes, &platform, &data, &stop, &tasks).await?;
    let world = compose(
        &data,
        platform,
        states.engine.clone(),
        pokes,
        store.clone(),
        &stop,
        &tasks,
    )
    .await?;
    tasks.spawn(flow::workers::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(flow::intake::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(flow::deletion::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::fleet::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::left::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::alarms::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::branches::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::rest::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::machines::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::builders::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::moves::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::retention::run(Arc::clone(&world), stop.clone()));
    tasks.spawn(reconcile::bases::run(Arc::clone(&world), stop.clone()));

    let state = web::State::new(web::Setup {
        store,
        commands: Arc::new(Flows {
            world: Arc::clone(&world),
        }),
        sight: Arc::new(Eyes(Arc::clone(&world))),
        repositories: data.repositories(),
        remotes: world.remotes.clone(),
        url,
        owner: rustix::process::geteuid().as_raw(),
        urls: urls(&data, &world.platform),
        names: names(&world.platform),
        states,
        clock: clock::now,
        stop: stop.clone(),
    })?;
    web::resume(&state).await?;
    web::services::work(&state, &stop);
    tasks.spawn(announce(state.clone(), stop.clone()));
    let router = web::router(state.clone());
    info!("serve is ready");
    let doors = futures_util::future::join(
        web::unix(local, router.clone(), stop.clone()),
        web::tcp(api, router, stop.clone()),
    );
    let end = async {
        wait_for_end().await;
        info!("serve is stopping");
        stop.cancel();
    };
    tokio::join!(doors, end);
    tasks.close();
    tasks.wait().await;
    state.closed().await;
    Ok(())
}

/// The engine: it moves releases, and the users' state machines.
async fn states(
    store: &Store,
    pokes: &Arc<Pokes>,
    platform: &Platform,
    data: &Data,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<web::States, store::Error> {
    let known = Arc::new(web::Known::default());
    known.load(store).await?;
    let refuses = Arc::clone(&known);
    let buckets = platform.states.objects.clone().map(web::Buckets).map(Arc::new);
    if let Some(buckets) = buckets.clone() {
        // Files have the time of the last tick of the kernel's clock.
        let since = (clock::now() - Duration::from_secs(1)).into();
        let stop = stop.clone();
        let own = data.serve();
        tasks.spawn_blocking(move || tidy(&buckets, &own, since, || stop.is_cancelled()));
    }
    let (engine, handle) = engine::new(engine::Setup {
        store: store.clone(),
        clock: clock::now,
        bits: clock::bits,
        refuses: Arc::new(move |owner, resource| match owner {
            engine::PLATFORM if flow::definition::is_known(resource) => None,
            _ => refuses.refuses(owner, resource),
        }),
        // Workers of tenants' activities are processes of their own: one that has a task goes on with it.
        own: |resource| flow::definition::is_known(resource) || web::services::is_called(resource),
        objects: buckets.map(|buckets| buckets as Arc<dyn engine::Objects>),
        witness: Some(Arc::new(flow::runs::Clerk(Arc::clone(pokes)))),
        limits: engine::Limits::default(),
    });
    let cancel = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = engine.run(cancel.cancelled_owned()).await {
            error!(
                error = &error as &dyn std::error::Error,
                "the engine stopped: {}",
                chain(&error)
            );
        }
    });
    Ok(web::States {
        engine: handle,
        known,
        unsigned: platform.states.unsigned.clone(),
    })
}

/// Says so when the directory of objects is of no use, and removes what was left half-written in it. Blocks.
fn tidy(
    buckets: &web::Buckets,
    own: &camino::Utf8Path,
    since: std::time::SystemTime,
    stop: impl Fn() -> bool,
) {
    if let Err(error) = buckets.probe() {
        let path = &buckets.0;
        warn!(
            %error,
            "serve cannot read and write in {path}, and distributed Maps that do will fail; next: mkdir -p {path} && \
             chown -R --reference={own} {path}"
        );
    }
    match buckets.sweep(since, &stop) {
        Err(error) if !stop() => {
            warn!(%error, "what was left half-written among the objects could not be removed");
        }
        _ => {}
    }
}

/// What the operator's settings mean to the store.
async fn settle(store: &Store, data: &Data, platform: &Platform) -> Result<(), store::Error> {
    let (named, own) = (platform.network.named(), Pool::of(data));
    let by = By::platform(clock::now());
    let set = store
        .write(move |tx| tx.set_subnets(named.unwrap_or(own), &by))
        .await;
    match set {
        // A data directory that was moved keeps the networks of its environments.
        Err(store::Error::Refused { .. }) if named.is_none() => Ok(()),
        other => other,
    }
}

async fn compose(
    data: &Data,
    platform: Platform,
    engine: engine::Handle,
    pokes: Arc<Pokes>,
    store: Store,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Arc<World>, Fault> {
    let machines = machines::open(&store, &platform, stop, tasks).await?;
    let node = host::client::Client::new(data.node_socket());
    let edge = edge::Client::new(data.edge_socket());
    let (routes, handle) = reconcile::routes::new(store.clone(), edge.clone(), platform.clone());
    tasks.spawn(routes.run(stop.clone()));
    Ok(Arc::new(World {
        store,
        engine,
        node,
        edge,
        machines,
        remotes: Remotes::new(&platform, data),
        platform,
        data: data.clone(),
        pokes,
        routes: handle,
    }))
}

/// An environment's address as people type it: with the port of the edge, unless it is HTTP's own.
fn urls(data: &Data, platform: &Platform) -> web::Urls {
    let port =
        crate::up::endpoints(data).map_or(platform.listen.http.port(), |endpoints| endpoints.http.port());
    let port = if port == 80 {
        String::new()
    } else {
        format!(":{port}")
    };
    let platform = platform.clone();
    Arc::new(move |place: &Place| vec![format!("http://{}{port}/", platform.hostname(place))])
}

fn names(platform: &Platform) -> web::Names {
    let platform = platform.clone();
    Arc::new(move |db, environment| reconcile::routes::asked(db, &platform, environment))
}

/// A git that outlived its serve may end a push later: what it left is looked for from time to time.
async fn announce(state: web::State, stop: CancellationToken) {
    loop {
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(ANNOUNCE_EVERY) => {} }
        if let Err(error) = web::announce(&state).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot look for pushes that were left"
            );
        }
    }
}

const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);

async fn wait_for_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("cannot listen for signals: stopping");
        return;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

/// What the API sees of the other roles.
struct Eyes(Arc<World>);

impl web::Sight for Eyes {
    fn access(&self, wanted: edge::AccessNewest) -> BoxFuture<'_, Result<edge::AccessLines, Fault>> {
        Box::pin(async move {
            let lines = self.0.edge.access(&wanted).await;
            lines
                .map_err(|error| Fault::platform(format!("the access log cannot be read: {}", chain(&error))))
        })
    }

    fn log(&self, log: LogRef, offset: u64) -> BoxFuture<'_, Result<LogChunk, Fault>> {
        Box::pin(async move {
            match self.0.machines.live.log(&log, offset).await {
                Some(of_machine) => of_machine,
                None => self.0.node.read(&log, offset).await,
            }
        })
    }

    fn machine(&self, id: &HostId) -> Option<host::machine::Seen> {
        self.0.machines.live.seen(id)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        host::build::own_labels(self.0.platform.builds.labels.clone())
    }

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>, Fault>> {
        Box::pin(self.0.node.list())
    }

    fn targets(&self) -> BoxFuture<'_, Result<Vec<TargetHealth>, Fault>> {
        Box::pin(async move { self.0.edge.health().await.map_err(silent) })
    }

    fn unbound(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(async move {
            let sockets = self.0.edge.sockets().await.map_err(silent)?;
            let shared = sockets.into_iter().filter(edge::OwnSeen::is_shared);
            let closed = shared.filter_map(|seen| {
                let (at, speaks, why) = (seen.address, seen.speaks, seen.problem?);
                Some(format!("cannot listen at {at} ({speaks}): {why}"))
            });
            Ok(closed.collect())
        })
    }

    fn preparing(&self) -> BoxFuture<'_, Result<Option<String>, Fault>> {
        Box::pin(async move { Ok(self.0.node.health().await?.preparing) })
    }

    fn image(&self, image: Digest) -> BoxFuture<'_, Result<ImageAbout, Fault>> {
        Box::pin(async move { self.0.node.describe(&image).await })
    }

    fn bill(&self, image: Digest) -> BoxFuture<'_, Result<serde_json::Value, Fault>> {
        Box::pin(async move { self.0.node.bill(&image).await })
    }

    fn compare(&self, before: Digest, after: Digest) -> BoxFuture<'_, Result<ImageDiff, Fault>> {
        Box::pin(async move { self.0.node.compare(&before, &after).await })
    }

    fn bases(&self) -> BoxFuture<'_, Result<BasesSeen, Fault>> {
        Box::pin(self.0.node.bases())
    }

    fn object(&self, object: Digest) -> BoxFuture<'_, Result<Body, Fault>> {
        Box::pin(async move { self.0.node.object(&object).await })
    }

    fn export(&self, image: Digest, how: ImageExport) -> BoxFuture<'_, Result<Body, Fault>> {
        Box::pin(async move { self.0.node.export(&image, &how).await })
    }

    fn import(&self, tar: Body) -> BoxFuture<'_, Result<ImageTaken, Fault>> {
        Box::pin(async move {
            let World { node, pokes, .. } = &*self.0;
            if let Err(full) = flow::images::refuse_more(node, &pokes.sweep).await {
                // Who still sends may never read an answer.
                let mut rest = tar.into_data_stream();
                while let Some(Ok(_)) = rest.next().await {}
                return Err(full);
            }
            node.import(tar).await
        })
    }
}
