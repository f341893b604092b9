//! What goes wrong in the middle: between what is switched off and what is changed, and beside somebody else.

use super::*;

/// Somebody was cut off while CloudFormation took back a change with which a database was to go.
#[tokio::test]
async fn what_was_to_leave_and_stays_is_protected_at_the_next_apply() {
    fn taken_back(asked: &str, before: &[String]) -> String {
        match asked {
            "DescribeStacks" => {
                let protected =
                    "<EnableTerminationProtection>true</EnableTerminationProtection><CreationTime>";
                answered(asked, before, "UPDATE_ROLLBACK_COMPLETE", "").replace("<CreationTime>", protected)
            }
            "DescribeDBInstances" => PROTECTED.replace("true", "false"),
            _ => answered(asked, before, "UPDATE_ROLLBACK_COMPLETE", ""),
        }
    }
    let wanted = guarded();
    let (done, forms) = applied_at(taken_back, &wanted, Some(wanted.mark.clone()), &[]).await;
    done.unwrap();
    assert_eq!(deeds(&forms)[0], "ModifyDBInstance true");
    // Who took the protection of the stack away has taken that of its database too.
    fn bare(asked: &str, before: &[String]) -> String {
        taken_back(asked, before).replace("Protection>true", "Protection>false")
    }
    let (done, forms) = applied_at(bare, &wanted, Some(wanted.mark.clone()), &[]).await;
    done.unwrap();
    assert!(!has(&forms, "ModifyDBInstance"), "{forms:?}");
    // Or before it was begun: whatever is changed next, it is protected first. What is as it shall be asks for nothing.
    fn untouched(asked: &str, before: &[String]) -> String {
        taken_back(asked, before).replace("UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE")
    }
    let (done, forms) = applied_at(untouched, &wanted, None, &[]).await;
    done.unwrap();
    assert_eq!(deeds(&forms)[0], "ModifyDBInstance true");
    let (done, forms) = applied_at(untouched, &wanted, Some(wanted.mark.clone()), &[]).await;
    assert_eq!(done.unwrap(), Outcome::Unchanged);
    assert!(!has(&forms, "ModifyDBInstance"), "{forms:?}");
}

/// Two leave. The load balancer is not protected any more when the database refuses.
#[tokio::test]
async fn where_one_refuses_to_be_opened_the_others_are_closed_again() {
    fn two(asked: &str, before: &[String]) -> String {
        let removed = |id: &str, kind: &str| {
            format!(
                "<member><ResourceChange><Action>Remove</Action><LogicalResourceId>{id}</LogicalResourceId><ResourceType>{kind}\
                 </ResourceType><PolicyAction>Delete</PolicyAction></ResourceChange></member>"
            )
        };
        let kinds = [
            ("Balancer", "AWS::ElasticLoadBalancingV2::LoadBalancer"),
            ("Database", "AWS::RDS::DBInstance"),
        ];
        let changes = kinds.map(|(id, kind)| removed(id, kind)).concat();
        let held = kinds.map(|(id, kind)| {
            format!(
                "<member><LogicalResourceId>{id}</LogicalResourceId><PhysicalResourceId>arn-{id}</PhysicalResourceId>\
                 <ResourceType>{kind}</ResourceType><ResourceStatus>CREATE_COMPLETE</ResourceStatus></member>"
            )
        });
        match asked {
            "ListStackResources" => format!(
                "<StackResourceSummaries>{}</StackResourceSummaries>",
                held.concat()
            ),
            "DescribeLoadBalancerAttributes" => {
                "<Attributes><member><Key>deletion_protection.enabled</Key><Value>true</Value>\
                 </member></Attributes>"
                    .to_owned()
            }
            "ModifyDBInstance" => {
                "<Error><Code>InvalidDBInstanceState</Code><Message>it is backing up</Message></Error>"
                    .to_owned()
            }
            _ => answered(asked, before, "UPDATE_COMPLETE", &changes),
        }
    }
    let (done, forms) = applied_at(two, &wanted(), None, &["Balancer", "Database"]).await;
    assert!(
        matches!(&done, Err(Error::Client(error)) if error.code() == "InvalidDBInstanceState"),
        "{done:?}"
    );
    let switched: Vec<bool> = forms
        .iter()
        .filter(|own| action(own) == "ModifyLoadBalancerAttributes")
        .map(|own| own.contains("Value=true"))
        .collect();
    assert_eq!(switched, [false, true], "{forms:?}");
    assert!(!has(&forms, "ExecuteChangeSet"));
}

/// Two apps' files say two things of their foundation, and both are applied at one moment.
#[tokio::test]
async fn what_another_app_made_meanwhile_is_changed_by_agreement_only() {
    fn moving(asked: &str, before: &[String]) -> String {
        let answer = answered(asked, before, "UPDATE_COMPLETE", "");
        let mark = "<Outputs><member><OutputKey>Vend</OutputKey><OutputValue>platform=vend kind=foundation foundation=production \
             by=shop digest=other cents=1</OutputValue></member></Outputs>";
        let looks = before
            .iter()
            .filter(|own| action(own) == "DescribeStacks")
            .count();
        match asked {
            "DescribeStacks" if looks == 0 => answer.replace("UPDATE_COMPLETE", "UPDATE_IN_PROGRESS"),
            "DescribeStacks" => answer.replace("<Parameters>", &format!("{mark}<Parameters>")),
            _ => answer,
        }
    }
    let mut wanted = guarded();
    for (by, digest, is_refused) in [
        ("blog", "mine", true),
        ("blog", "other", false),
        ("shop", "mine", false),
    ] {
        wanted.mark.by = Some(by.to_owned());
        digest.clone_into(&mut wanted.mark.digest);
        let (done, forms) = applied_at(moving, &wanted, None, &[]).await;
        let refused = matches!(&done, Err(Error::Anothers { by, .. }) if by == "shop");
        assert_eq!(refused, is_refused, "{by} {digest}: {done:?}");
        assert!(!refused || deeds(&forms).is_empty(), "{forms:?}");
    }
}
