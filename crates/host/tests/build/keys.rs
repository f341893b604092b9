//! Keys of caches that take a shell, in containers.

use model::Secret;

use crate::{
    spec::cached,
    world::World,
    yard::{has, succeeds},
};

/// A shell reads a key before the build, where the build's files are: without secrets and without a network.
pub async fn a_shell_reads_the_key_of_a_cache(world: &World) {
    let reads = async |keys: &str, said: &[&str]| {
        let mut order = cached(world, "main", "7", keys, "x");
        order.variables.insert("V".to_owned(), "v 1".to_owned());
        let token = Secret::new("tigers-in-the-night".to_owned());
        order.secrets.insert("TOKEN".to_owned(), token);
        let proxy = "http://ann:hunter2secret@proxy.example:3128";
        order.variables.insert("http_proxy".to_owned(), proxy.to_owned());
        let (_, log) = succeeds(world, &order).await;
        has(&log, said);
        assert!(!log.contains("ann:h"), "{log}");
    };
    let key = "key: 'k-$(cat \"x.lock\")-$V-${TOKEN:-none}-`ls /sys/class/net | tr -d \"\\n\"`-$(codebuild-hash-files x.lock | cut -c1-4)', \
               fallback-keys: ['k-$(cat x.lock)']";
    let named = "`k-7-v 1-none-lo-8d2d`";
    reads(
        key,
        &[
            &format!("There is no cache to restore for the key {named}, nor one that begins with `k-7`"),
            &format!("The cache {named} of the branch main is saved"),
        ],
    )
    .await;
    reads(
        key,
        &[&format!("The cache {named} of the branch main is restored")],
    )
    .await;
    reads(
        "key: 'k-$(cat nothing)'",
        &["The cache is not used: its key has a command that complains: cat: nothing: No such file"],
    )
    .await;
    // Cut within the password.
    reads(
        "key: 'k-$(printf \"%0386d%s\" 0 \"$http_proxy\" >&2; echo x)'",
        &[
            "The cache is not used: its key has a command that complains: 000",
            "0http://ann:***",
        ],
    )
    .await;
    reads(
        "key: 'k-$(kill -9 $$)'",
        &["The cache is not used: its key ends the shell that reads it"],
    )
    .await;
}

/// Two digests and a word are longer than a file's name can say.
pub async fn keys_may_be_long(world: &World) {
    let hashed = "$(codebuild-hash-files x.lock)";
    let keys = format!("key: 'long-{hashed}-$V-{hashed}', fallback-keys: ['long-{hashed}-']");
    let reads = async |v: &str, said: &str| {
        let mut order = cached(world, "main", "7", &keys, "x");
        order.variables.insert("V".to_owned(), v.to_owned());
        let (_, log) = succeeds(world, &order).await;
        let restored: Vec<&str> = log.lines().filter(|line| line.contains("restore")).collect();
        assert!(
            restored.iter().any(|line| line.contains(said)),
            "{said}: {restored:?}"
        );
        has(&log, &[&format!("-{v}-")]);
    };
    reads("1", "There is no cache to restore for the key `long-").await;
    reads("1", "of the branch main is restored").await;
    reads("2", "-1-").await;
}
