//! And comes back, through all that can fail on the way.

use super::{AT, COUNTED, Platform, STACK, World};

/// Does the database on AWS refuse to write?
pub fn frozen(world: &World) -> String {
    world.python(&format!(
        "s = client('cloudformation').describe_stacks(StackName='{STACK}')['Stacks'][0]\n\
         print([p['ParameterValue'] for p in s['Parameters'] if p['ParameterKey'] == 'Frozen'][0])"
    ))
}

const BACK: [&str; 5] = ["--engine", "embedded", "--yes", "--watch", "0"];

/// From wholly on AWS, with data, through all that can fail.
pub fn comes_back(world: &World, platform: &Platform, objects: &str) {
    let plan = world.moves(platform, &["--engine", "embedded", "--plan"]);
    assert!(
        plan.contains("nobody is served (503)") && plan.contains("refuses to write"),
        "{plan}"
    );
    assert_eq!(
        (platform.changes(), frozen(world)),
        (Vec::new(), "no".to_owned()),
        "a plan changes nothing"
    );
    let closed = "PUT /move {\"share\":100,\"closed\":true,\"closed_s\":900}";
    let open = "PUT /move {\"share\":100,\"closed\":false}";
    let arrived =
        format!("POST /move/arrived {{\"counted\":\"{COUNTED}\",\"side\":\"here\",\"closed_at\":\"{AT}\"}}");

    // The dump fails; hosts were started here, and everybody is served there again, where everybody may write.
    world.python("client('ssm').put_parameter(Name='/test/fails', Type='String', Value='the disk is full')");
    let failed = world.stops(platform, &BACK);
    assert!(
        failed.contains("the disk is full") && failed.contains("served on AWS again"),
        "{failed}"
    );
    assert_eq!(platform.changes(), ["POST /move/reopen {}", closed, open]);
    assert_eq!((frozen(world), world.python(objects)), ("no".into(), "[]".into()));
    world.python("client('ssm').delete_parameter(Name='/test/fails')");

    // It cannot be loaded here.
    let failed = world.stops(platform, &BACK);
    assert!(failed.contains("the server is away"), "{failed}");
    assert_eq!(platform.changes(), [closed, open]);
    assert_eq!((frozen(world), world.python(objects)), ("no".into(), "[]".into()));

    // What was loaded is not what was dumped.
    platform.held.lock().unwrap().loads = Some("2 tables, 4 rows, 0");
    let failed = world.stops(platform, &BACK);
    assert!(failed.contains("not what was dumped"), "{failed}");
    assert_eq!(platform.changes(), [closed, &arrived, open]);
    assert_eq!(frozen(world), "no");

    // Nobody hears that it failed: whoever looks later says that it stays there.
    {
        let mut held = platform.held.lock().unwrap();
        (held.deaf, held.loads) = (true, None);
    }
    let failed = world.stops(platform, &BACK);
    assert!(
        failed.contains("nobody is served yet") && failed.contains("--abort"),
        "{failed}"
    );
    assert_eq!(
        frozen(world),
        "yes",
        "nobody may write where it may not be true any more"
    );
    platform.held.lock().unwrap().deaf = false;
    platform.changes();
    let stays = world.moves(platform, &["--abort"]);
    assert!(
        stays.contains("100 % to") && stays.contains("may be written to again"),
        "{stays}"
    );
    assert_eq!(
        (platform.changes(), frozen(world)),
        (vec![open.to_owned()], "no".into())
    );

    // And then it comes.
    platform.held.lock().unwrap().loads = Some(COUNTED);
    let back = world.moves(platform, &BACK);
    assert!(
        back.contains("is true here") && back.contains("is served here"),
        "{back}"
    );
    assert_eq!(
        platform.changes(),
        [closed, &arrived, "DELETE /move?lose_writes=false"]
    );
    assert_eq!(
        platform.held.lock().unwrap().came,
        8 * (3 << 20),
        "all of its pieces came"
    );
    assert_eq!(
        (frozen(world), world.python(objects)),
        ("yes".into(), "[]".into())
    );
    let again = world.moves(platform, &BACK);
    assert!(again.contains("runs here"), "{again}");
}
