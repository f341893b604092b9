use camino::Utf8PathBuf;
use jiff::Timestamp;
use store::By;

use super::*;

#[test]
fn what_a_machine_refuses_that_was_another_one_is_placed_anew() {
    let labels = |text: &str| -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let own = Offer::here(labels("fleet=small"));
    let refused = || Err(Fault::platform("no builder has the label `fleet: big`"));
    let failed = || Err(Fault::customer("a test failed"));
    for (built, wanted, expected) in [
        (refused(), "fleet=big", true),
        // It was begun before, and has its end.
        (failed(), "fleet=big", false),
        // It may be tried again here.
        (refused(), "fleet=small", false),
        (refused(), "", false),
    ] {
        assert_eq!(
            is_misplaced(&built, &labels(wanted), &own),
            expected,
            "{built:?} {wanted}"
        );
    }
}

#[tokio::test]
async fn a_build_whose_builder_says_nothing_says_that_it_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(directory.path().to_owned()).unwrap();
    let store = Store::open(&path.join("serve")).unwrap();
    let ticket: Ticket = "t-1".parse().unwrap();
    let new = crate::fixtures::new_build(&ticket);
    let begun = store.write(move |tx| {
        let by = By::platform(Timestamp::UNIX_EPOCH);
        tx.create_tenant(&new.place.tenant, &by)?;
        tx.create_app(&new.place.tenant, &new.place.app, None, &by)?;
        tx.begin_build(&new, &by)
    });
    let row = begun.await.unwrap();
    let machine = Waiting {
        name: "the builder second",
        // Nobody listens there.
        node: &Client::new(path.join("none.sock")),
        own: &ticket,
        is_away: &|| true,
    };
    let waits = async || {
        let own = ticket.clone();
        let found = store.read(move |db| db.build_of_ticket(&own)).await;
        found.unwrap().unwrap().waits
    };
    let told = async {
        while waits().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        never = machine.note(&store, &row) => match never {},
        () = told => {}
    }
    assert_eq!(waits().await.as_deref(), Some("the builder second to come back"));
}

#[test]
fn an_image_is_here_for_who_got_it() {
    let tenant = |name: &str| name.parse::<TenantName>().unwrap();
    let seen = |base: &str, of: Option<&str>| model::port::BaseSeen {
        base: base.to_owned(),
        tenant: of.map(tenant),
        key: model::Digest::of(base),
        content: model::Digest::of(base),
        checked_at: Timestamp::UNIX_EPOCH,
    };
    let seen = BasesSeen {
        bases: vec![
            seen("debian-12", None),
            seen("oci:registry.example/acme/ci:7", Some("acme")),
        ],
        ..BasesSeen::default()
    };
    for (base, of, expected) in [
        ("debian-12", "rival", true),
        ("debian-13", "rival", false),
        ("oci:registry.example/acme/ci:7", "acme", true),
        ("oci:registry.example/acme/ci:7", "rival", false),
        ("oci:registry.example/acme/ci:8", "acme", false),
    ] {
        let found = is_here(&seen, &base.parse().unwrap(), &tenant(of));
        assert_eq!(found, expected, "{base} {of}");
    }
}
