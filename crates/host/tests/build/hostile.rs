//! Sources that mean harm.

use std::collections::BTreeMap;

use host::build::protocol::{Event, Frame, read_frame};
use model::{
    port::{Bakery as _, Blame},
    spec::build::PhaseName::Build,
};

use crate::{
    world::{World, buildspec, phase},
    yard::{artifacts, fails, succeeds},
};

pub async fn hostile_sources_are_refused(world: &World) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..11].copy_from_slice(b"../../evil\0");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, &b""[..]).unwrap();
    let mut order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &["true"], &[])]));
    order.source = world
        .objects
        .keep(&tar.into_inner().unwrap()[..], "tar".into())
        .unwrap();
    let (fault, _) = fails(world, &order, &["`../../evil`", "leads out of the tree"]).await;
    assert_eq!(fault.blame, Blame::Customer);
    // A build that writes into its own runner's output only breaks itself.
    let forge = "printf 'e\\377\\377\\377\\377' > /proc/1/fd/1; sleep 5";
    let order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &[forge], &[])]));
    let (fault, _) = fails(world, &order, &["disturbed its own runner"]).await;
    assert_eq!(fault.blame, Blame::Customer);
}

/// A runner that is told no job.
pub async fn a_runner_that_cannot_begin_says_why(_: &World) {
    let (mut frames, output) = std::io::pipe().unwrap();
    let errors = output.try_clone().unwrap();
    let mut runner = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("build-runner")
        .stdin(std::process::Stdio::null())
        // As in a container.
        .stdout(output)
        .stderr(errors)
        .spawn()
        .unwrap();
    let said = read_frame(&mut frames).unwrap();
    let Some(Frame::Event(Event::Note { text })) = &said else {
        panic!("{said:?}");
    };
    assert!(text.contains("cannot go on: EOF"), "{text}");
    assert_eq!(read_frame(&mut frames).unwrap(), None);
    assert!(!runner.wait().unwrap().success());
}

/// Links that name a file of the machine: in a container they name a file of the container, and node follows none.
pub async fn absolute_links_are_data(world: &World) {
    use std::os::unix::fs::PermissionsExt as _;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "of the machine").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["evil", "infra/evil.sh"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, name, &secret).unwrap();
    }
    let source = world
        .objects
        .keep(&tar.into_inner().unwrap()[..], "tar".into())
        .unwrap();
    let commands = [
        "[ -L evil ] && [ ! -e evil ]",
        "echo of the container > \"$(mkdir -p \"$(dirname \"$(readlink evil)\")\"; readlink evil)\"",
        "python3 -m venv --without-pip venv",
    ];
    let mut spec = buildspec(vec![phase(Build, &commands, &[])]);
    spec.artifacts = Some(artifacts(&["**/*"]));
    spec.artifacts.as_mut().unwrap().enable_symlinks = true;
    let mut order = world.build_order(&[("a", "")], spec);
    order.source = source;
    let (built, _) = succeeds(world, &order).await;
    let mut links = BTreeMap::new();
    let object = world.objects.open_object(&built.artifact).unwrap();
    for entry in tar::Archive::new(object).entries().unwrap() {
        let entry = entry.unwrap();
        if let Some(target) = entry.link_name().unwrap() {
            links.insert(entry.path().unwrap().into_owned(), target.into_owned());
        }
    }
    assert_eq!(links[std::path::Path::new("evil")], secret);
    assert!(
        links[std::path::Path::new("venv/bin/python3")].is_absolute(),
        "{links:?}"
    );

    let mut bake = world.bake_order(&[("infra/a.sh", "")], &["infra/evil.sh"]);
    bake.source = source;
    bake.inputs.clear();
    let fault = world.oven.bake(&world.ticket(), &bake).await.unwrap_err();
    assert!(fault.message.contains("infra/evil.sh"), "{fault}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of the machine");
    assert_eq!(
        std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
        0o600
    );
}
