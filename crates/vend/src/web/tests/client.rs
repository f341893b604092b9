//! The command line's client on the local socket.

use std::path::PathBuf;

use model::wire::{App, Tenant, Whoami};
use serde_json::json;
use tokio::net::UnixListener;

use super::world::World;
use crate::cli::{Client, Exit};

/// The local door of a world, in a data directory of a name that is longer than a socket's path may be.
fn door(world: &World) -> PathBuf {
    let data = world.directory.path().join("d".repeat(120));
    std::fs::create_dir_all(data.join("run")).unwrap();
    let near = world.directory.path().join("s");
    let listener = UnixListener::bind(&near).unwrap();
    std::fs::rename(near, data.join("run/api.sock")).unwrap();
    let router = crate::web::router(world.state.clone());
    tokio::spawn(crate::web::unix(listener, router, world.stop.clone()));
    data
}

#[tokio::test]
async fn the_local_socket_needs_no_token() {
    let world = World::new().await;
    let client = Client::new(None, Some(&door(&world))).unwrap();
    let whoami: Result<Whoami, _> = client.get("/v1/whoami").await;
    if !rustix::process::geteuid().is_root() {
        assert_eq!(whoami.unwrap_err().exit, Exit::Refused);
        println!("skipped: the rest needs root");
        return;
    }
    assert_eq!(whoami.unwrap().actor, "person:root");
    for name in ["a", "b", "c"] {
        let _: Tenant = client
            .post("/v1/tenants", &json!({ "name": name }))
            .await
            .unwrap();
    }
    let all = client.list::<Tenant>("/v1/tenants", 4).await.unwrap();
    assert_eq!((all.items.len(), all.next.as_deref()), (4, Some("c")));
    let missing = client
        .get::<App>("/v1/tenants/acme/apps/nothing")
        .await
        .unwrap_err();
    assert_eq!(missing.exit, Exit::NotFound);
    let twice = client
        .post::<_, Tenant>("/v1/tenants", &json!({ "name": "a" }))
        .await
        .unwrap_err();
    assert_eq!(twice.exit, Exit::Failed);
    let wrong = client
        .post::<_, Tenant>("/v1/tenants", &json!({ "name": "A" }))
        .await
        .unwrap_err();
    assert_eq!(wrong.exit, Exit::Usage);
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_said_to_be_not_there() {
    let client = Client::new(None, Some("/nonexistent".as_ref())).unwrap();
    let failure = client.get::<Whoami>("/v1/whoami").await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.next.unwrap().contains("vend up"));
}
