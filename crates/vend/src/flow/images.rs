//! What the way of a release asks of images besides baking them: a login for their base, room on the disk, a signature,
//! and, before production takes one, proof.

mod disk;

pub use disk::{clear, longest_wait_s, refuse_more, room};

use model::{
    Digest, Place, Secret,
    plan::{Change, Subject},
    port::{BakeOrder, Baked, Blame, Fault, ImageAbout, ImageDiff, ImageOrigin, Shelf as _},
    release::Release,
    spec,
};
use serde_json::{Value, json};
use store::{Attestation, By, Predicate};

use super::{World, build, stored, variables};
use crate::output::size;

/// The environment whose images must be proven, unless another is called so.
pub const PRODUCTION: &str = "production";

/// What the registry of an image's base is asked with.
pub async fn login(world: &World, place: &Place, image: &spec::Image) -> Result<Option<Secret>, Fault> {
    match &image.login {
        Some(name) => secret(world, place, name).await.map(Some),
        None => Ok(None),
    }
}

/// A secret that must be there.
pub async fn secret(world: &World, place: &Place, name: &str) -> Result<Secret, Fault> {
    let secret = variables::reveal(&world.store, place, name, None).await?;
    secret.ok_or_else(|| build::missing(place, [name]))
}

/// The branch that the app's production follows, where it has one: what builds and bakes of others begin with.
pub async fn trunk(world: &World, place: &Place) -> Result<Option<String>, Fault> {
    let (tenant, app) = (place.tenant.clone(), place.app.clone());
    let all = world
        .store
        .read(move |db| db.environments(Some((&tenant, Some(&app)))));
    let all = all.await.map_err(stored)?;
    let mut all = all.into_iter();
    let production = all.find(|own| own.place.environment.as_str() == PRODUCTION);
    Ok(production.map(|own| own.branch))
}

/// What the platform has signed about an image of an app, oldest first.
async fn signed(world: &World, place: &Place, image: &Digest) -> Result<Vec<Attestation>, Fault> {
    let (image, place) = (*image, place.clone());
    let read = world
        .store
        .read(move |db| db.attestations(&image, Some((&place.tenant, Some(&place.app)))));
    read.await.map_err(stored)
}

/// Signs what an image is in an app, by that app's names, and what was looked at in it.
pub async fn attest(world: &World, order: &BakeOrder, baked: &Baked) -> Result<(), Fault> {
    let (place, image) = (order.place.clone(), baked.image);
    if refusal(&signed(world, &place, &image).await?, false).is_none() {
        return Ok(());
    }
    let about = world.node.describe(&image).await?;
    let about = about.of(&ImageOrigin {
        base: order.base.clone(),
        layers: baked.layers.clone(),
        commit: order.commit.clone(),
        made_at: crate::clock::now(),
    });
    let statements = [
        (Predicate::Provenance, provenance(&about)),
        (Predicate::Checks, results(&about)),
    ];
    let by = By::platform(crate::clock::now());
    let signed = world.store.write(move |tx| {
        statements
            .iter()
            .try_for_each(|(predicate, statement)| tx.attest(&place, &image, *predicate, statement, &by))
    });
    signed.await.map_err(stored)
}

/// Packages beyond this are counted, not listed.
const LISTED: usize = 50;

/// What of a plan is about the insides of its image: packages, and how many files.
pub async fn changes(world: &World, before: &Digest, after: &Digest) -> Result<Vec<Change>, Fault> {
    if before == after {
        return Ok(Vec::new());
    }
    match world.node.compare(before, after).await {
        Ok(diff) => Ok(told(&diff)),
        // One of them is not here any more: the plan says that the image is another one, and no more.
        Err(fault) if fault.blame == Blame::Order => Ok(Vec::new()),
        Err(fault) => Err(fault),
    }
}

fn told(diff: &ImageDiff) -> Vec<Change> {
    let change = |name, before, after| Change::new(Subject::Image, name, before, after);
    let (listed, rest) = diff.packages.split_at(diff.packages.len().min(LISTED));
    let mut changes: Vec<Change> = listed
        .iter()
        .map(|package| {
            let name = format!("package {} ({})", package.name, package.kind);
            change(name, package.before.clone(), package.after.clone())
        })
        .collect();
    if !rest.is_empty() {
        changes.push(change(
            "more packages".to_owned(),
            None,
            Some(format!("{} differ", rest.len())),
        ));
    }
    if diff.files_changed > 0 {
        let after = format!("{}, {} files differ", size(diff.size_after), diff.files_changed);
        changes.push(change(
            "size".to_owned(),
            Some(size(diff.size_before)),
            Some(after),
        ));
    }
    changes
}

/// Signs that a release's checks held on hosts of its image.
pub async fn passed(world: &World, place: &Place, release: &Release, checks: usize) -> Result<(), Fault> {
    if checks == 0 {
        return Ok(());
    }
    let (image, by) = (release.image, By::platform(crate::clock::now()));
    let statement = statement(
        &image,
        "https://in-toto.io/attestation/test-result/v0.1",
        json!({
            "result": "PASSED",
            "configuration": [{ "name": "checks", "uri": format!("vend:{place}/releases/{}", release.number) }],
            "passedTests": [format!("{checks} checks on hosts of {place}")],
        }),
    );
    let place = place.clone();
    let signed = world
        .store
        .write(move |tx| tx.attest(&place, &image, Predicate::Verdict, &statement, &by));
    signed.await.map_err(stored)
}

/// An in-toto statement, version 1, about an image.
fn statement(image: &Digest, predicate_type: &str, predicate: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "image", "digest": { "sha256": image.hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

fn provenance(about: &ImageAbout) -> Value {
    let resource =
        |name: &str, digest: &Digest| json!({ "name": name, "digest": { "sha256": digest.hex() } });
    let scripts = about
        .scripts
        .iter()
        .map(|script| resource(&script.path, &script.digest));
    let base = about
        .layers
        .first()
        .map(|layer| resource(&format!("base {}", about.base), &layer.key));
    let dependencies: Vec<Value> = base.into_iter().chain(scripts).collect();
    let commit = about.commit.as_ref();
    statement(
        &about.digest,
        "https://slsa.dev/provenance/v1",
        json!({
            "buildDefinition": {
                "buildType": "https://vend.dev/bake/v1",
                "externalParameters": {
                    "base": about.base,
                    "commit": commit.map(|commit| &commit.id),
                    "repository": commit.map(|commit| &commit.repository),
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": "vend" },
                "byproducts": [resource("bill of materials (SPDX 2.3)", &about.bill)],
            },
        }),
    )
}

fn results(about: &ImageAbout) -> Value {
    let names = |passed: bool| -> Vec<&str> {
        let chosen = about.checks.iter().filter(|check| check.passed == passed);
        chosen.map(|check| check.name.as_str()).collect()
    };
    let failed = names(false);
    statement(
        &about.digest,
        "https://in-toto.io/attestation/test-result/v0.1",
        json!({
            "result": if failed.is_empty() { "PASSED" } else { "FAILED" },
            "configuration": [],
            "passedTests": names(true),
            "failedTests": failed,
        }),
    )
}

/// Refuses an image that production must not have: unsigned, failing its checks, or on a base that has become another
/// one. Going back to an older release is never refused: that is for bad days.
pub async fn admit(world: &World, place: &Place, image: &Digest, base: &str) -> Result<(), Fault> {
    if place.environment.as_str() != PRODUCTION {
        return Ok(());
    }
    let bases = world.node.bases().await?;
    let (own, wanted) = (place.clone(), *image);
    let evidence = world.store.read(move |db| db.evidence(&wanted, &own));
    let evidence = evidence.await.map_err(stored)?;
    match refusal(&evidence, bases.is_stale(image, base)) {
        None => Ok(()),
        Some(refusal) => {
            let next = match refusal {
                Refusal::Unsigned | Refusal::Unchecked | Refusal::Stale => {
                    format!(
                        "push the same commit again, which bakes and signs it anew: vend push {}/{}",
                        place.tenant, place.app
                    )
                }
                Refusal::Failed(_) => {
                    format!("correct the image's scripts and push; vend images show {image}")
                }
            };
            let short = image.short();
            Err(Fault::order(format!("production does not take image {short}: {refusal}")).next(next))
        }
    }
}

/// Why production does not take an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the platform has not signed it")]
    Unsigned,
    #[error("nobody looked into it")]
    Unchecked,
    #[error("it does not hold that {}", .0.join(", that "))]
    Failed(Vec<String>),
    #[error("its base has become another one since")]
    Stale,
}

/// Why an image is refused. Pure.
fn refusal(signed: &[Attestation], stale: bool) -> Option<Refusal> {
    let of = |predicate| signed.iter().filter(move |one| one.predicate == predicate);
    if of(Predicate::Provenance).next().is_none() {
        return Some(Refusal::Unsigned);
    }
    let Some(newest) = of(Predicate::Checks).next_back() else {
        return Some(Refusal::Unchecked);
    };
    let result = &newest.statement["predicate"];
    if result["result"] != "PASSED" {
        let failed = result["failedTests"].as_array().into_iter().flatten();
        let failed = failed.filter_map(|name| Some(name.as_str()?.to_owned()));
        return Some(Refusal::Failed(failed.collect()));
    }
    stale.then_some(Refusal::Stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(passed: bool) -> ImageAbout {
        ImageAbout {
            digest: Digest::of("image"),
            base: "debian-12".into(),
            stale: false,
            layers: Vec::new(),
            scripts: vec![model::port::ScriptAbout {
                path: "infra/a.sh".into(),
                digest: Digest::of("a"),
            }],
            commit: None,
            bill: Digest::of("bill"),
            packages: 1,
            size_bytes: 1,
            checks: vec![model::port::ImageCheck {
                name: "every package is configured".into(),
                passed,
                found: String::new(),
            }],
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn signed(predicate: Predicate, statement: Value) -> Attestation {
        Attestation {
            predicate,
            statement,
            envelope: Value::Null,
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn production_wants_a_signature_checks_and_the_newest_base() {
        let provenance = signed(Predicate::Provenance, provenance(&about(true)));
        let passed = signed(Predicate::Checks, results(&about(true)));
        let failed = signed(Predicate::Checks, results(&about(false)));
        let check = |signed: &[Attestation], stale, expected: Option<&str>| {
            let found = refusal(signed, stale).map(|refusal| refusal.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        };
        check(&[], false, Some("not signed"));
        check(std::slice::from_ref(&passed), false, Some("not signed"));
        check(std::slice::from_ref(&provenance), false, Some("nobody looked"));
        check(
            &[provenance.clone(), passed.clone(), failed.clone()],
            false,
            Some("every package is configured"),
        );
        check(&[provenance.clone(), failed, passed.clone()], false, None);
        check(&[provenance, passed], true, Some("base"));
    }

    #[test]
    fn provenance_names_what_the_image_is_made_from() {
        let statement = provenance(&about(true));
        assert_eq!(
            statement["subject"][0]["digest"]["sha256"],
            Digest::of("image").hex()
        );
        let scripts = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        assert_eq!(scripts[0]["digest"]["sha256"], Digest::of("a").hex());
        assert_eq!(
            statement["predicate"]["runDetails"]["byproducts"][0]["digest"]["sha256"],
            Digest::of("bill").hex()
        );
    }
}
