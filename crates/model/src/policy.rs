//! Who may do what. Pure: every API operation asks [`decide`] with what it is about to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::TenantName;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// As it stands in the ledger: `person:ops@acme.example`, `token:ci`, `platform`.
    pub actor: String,
    pub role: Role,
    /// The tenant that the role is held in; `None` for the whole platform.
    pub tenant: Option<TenantName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Vends hosts to tenants: may do everything in its scope.
    Operator,
    /// Pushes, looks, rolls back, sets secrets; no approvals, no tenants, no protected destruction.
    Developer,
    /// Looks, approves and rejects.
    Approver,
    /// Looks, and reads the ledger.
    Auditor,
    /// Tells how alarms are, and nothing else: what a program that measures needs.
    Monitor,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Read what belongs to a tenant.
    View,
    /// Push, release, roll back, scale, set secrets, create and destroy environments and apps.
    Develop,
    Approve,
    /// Tell how an alarm is.
    Alarm,
    /// Read the ledger.
    Audit,
    /// Protect and unprotect, tokens of a tenant, deletion of a tenant's apps.
    Administer,
    /// Tenants and the platform itself.
    Operate,
}

/// May `principal` do `action` on what belongs to `tenant` (`None`: to the platform)?
///
/// Nobody sees another tenant: a principal of one tenant is refused everything outside it, the platform's own included.
pub fn decide(principal: &Principal, action: Action, tenant: Option<&TenantName>) -> bool {
    let in_scope = match (&principal.tenant, tenant) {
        (None, _) => true,
        (Some(own), Some(asked)) => own == asked,
        (Some(_), None) => false,
    };
    let may = match principal.role {
        Role::Operator => action != Action::Operate || principal.tenant.is_none(),
        Role::Developer => matches!(action, Action::View | Action::Develop | Action::Alarm),
        Role::Approver => matches!(action, Action::View | Action::Approve),
        Role::Auditor => matches!(action, Action::View | Action::Audit),
        Role::Monitor => action == Action::Alarm,
    };
    in_scope && may
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_scopes() {
        let acme: TenantName = "acme".parse().unwrap();
        let other: TenantName = "other".parse().unwrap();
        let who = |role, tenant: Option<&TenantName>| Principal {
            actor: "person:x".into(),
            role,
            tenant: tenant.cloned(),
        };
        for (principal, action, tenant, expected) in [
            (who(Role::Operator, None), Action::Operate, None, true),
            (who(Role::Operator, None), Action::View, Some(&acme), true),
            (who(Role::Operator, Some(&acme)), Action::Operate, None, false),
            (
                who(Role::Operator, Some(&acme)),
                Action::Operate,
                Some(&acme),
                false,
            ),
            (
                who(Role::Operator, Some(&acme)),
                Action::Administer,
                Some(&acme),
                true,
            ),
            (
                who(Role::Developer, Some(&acme)),
                Action::Develop,
                Some(&acme),
                true,
            ),
            (
                who(Role::Developer, Some(&acme)),
                Action::Develop,
                Some(&other),
                false,
            ),
            (
                who(Role::Developer, Some(&acme)),
                Action::Approve,
                Some(&acme),
                false,
            ),
            (
                who(Role::Approver, Some(&acme)),
                Action::Approve,
                Some(&acme),
                true,
            ),
            (
                who(Role::Approver, Some(&acme)),
                Action::View,
                Some(&other),
                false,
            ),
            (who(Role::Auditor, Some(&acme)), Action::Audit, None, false),
            (who(Role::Monitor, Some(&acme)), Action::Alarm, Some(&acme), true),
            (
                who(Role::Monitor, Some(&acme)),
                Action::Alarm,
                Some(&other),
                false,
            ),
            (who(Role::Monitor, Some(&acme)), Action::View, Some(&acme), false),
            (who(Role::Monitor, None), Action::Develop, Some(&acme), false),
            (
                who(Role::Approver, Some(&acme)),
                Action::Alarm,
                Some(&acme),
                false,
            ),
            (who(Role::Auditor, None), Action::Develop, Some(&acme), false),
        ] {
            assert_eq!(
                decide(&principal, action, tenant),
                expected,
                "{principal:?} {action:?} {tenant:?}"
            );
        }
    }
}
