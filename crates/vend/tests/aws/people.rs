//! Where several people have to say yes: who may, and who may not. The flow's own loop is run by `asl` in the tests of `aws`;
//! here moto's Step Functions asks as that does, with the names of those who said yes already.

use super::World;

/// As `moto` names whoever calls.
const CALLER: &str = "arn:aws:sts::123456789012:user/moto";

impl World {
    /// The flow asks with these people, and then keeps the half before.
    fn asks_after(&self, people: &str) {
        self.asks();
        self.python(&format!(
            "f = client('stepfunctions')\n\
             m = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-production'\n\
             d = json.loads(f.describe_state_machine(stateMachineArn=m)['definition'])\n\
             d['States']['Approve']['Parameters']['MessageAttributes'] = {{'People': {{'DataType': 'String', 'StringValue': '{people}'}}}}\n\
             f.update_state_machine(stateMachineArn=m, definition=json.dumps(d))",
        ));
    }

    fn wants(&self, approval: &str) {
        let app = std::fs::read_to_string(self.path().join("vend.yaml")).unwrap();
        let text = app.replace("production: {", &format!("production: {{ approval: {approval},"));
        self.write("vend.yaml", &text);
    }
}

#[test]
fn the_same_person_is_refused_twice_and_who_began_it_at_all() {
    let Some(world) = World::applied() else { return };
    world.wants("{ required: 2 }");
    world.asks_after("[]");
    world.good(&["push", "--detach"]);
    let (code, said) = world.bad(&["approve", "production", "--yes"]);
    assert!(
        code == 3 && said.contains("you began this release") && said.contains(CALLER),
        "{said}"
    );
    assert_eq!(
        world.json(&["releases"])[0]["waits_for_people"],
        true,
        "nothing was answered"
    );
    world.good(&["reject", "production", "--reason", "again"]);
    // Whose name only begins like that of who began it is somebody else.
    world.python(&format!(
        "p = dict(app='shop', branch='main', commit='a' * 40, author='a', message='m', sender='{CALLER}2')\n\
         m = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-production'\n\
         client('stepfunctions').start_execution(stateMachineArn=m, name='aaaaaaaaaaaa-1', input=json.dumps(p))",
    ));
    let said = world.good(&["approve", "production", "--yes"]);
    assert!(said.contains("approved"), "{said}");

    let Some(world) = World::applied() else { return };
    world.wants("{ required: 2, author_may_approve: true }");
    world.asks_after(&format!("[\"{CALLER}\"]"));
    world.good(&["push", "--detach"]);
    let (code, said) = world.bad(&["approve", "production", "--yes"]);
    assert!(
        code == 3 && said.contains("you said yes already, and 2 people must"),
        "{said}"
    );
    assert_eq!(
        world.json(&["releases"])[0]["waits_for_people"],
        true,
        "nothing was answered"
    );

    let Some(world) = World::applied() else { return };
    world.wants("{ required: 2, author_may_approve: true }");
    world.asks_after("[\"arn:aws:iam::123456789012:user/other\"]");
    world.good(&["push", "--detach"]);
    assert!(
        world
            .good(&["approve", "production", "--yes"])
            .contains("approved")
    );
    let said = world.python(
        "f = client('stepfunctions')\n\
         m = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-production'\n\
         e = f.list_executions(stateMachineArn=m)['executions'][0]['executionArn']\n\
         h = f.get_execution_history(executionArn=e)['events']\n\
         print([x['taskSucceededEventDetails']['output'] for x in h if 'taskSucceededEventDetails' in x][0])",
    );
    assert!(said.contains(CALLER), "{said}");
}
