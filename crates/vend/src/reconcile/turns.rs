//! Whose turn it is to be looked after: each machine or host in one place at a time, in the order in which they came, and
//! of each tenant so many at one time that nobody else's wait for them.

use std::collections::{HashMap, HashSet, VecDeque};

use model::{HostId, TenantName};
use tokio::task::Id;

/// Those of one tenant that are looked after at one time.
const AT_ONCE: usize = 32;

#[derive(Default)]
pub struct Turns {
    waiting: VecDeque<(HostId, TenantName)>,
    /// Those that wait, or are looked after.
    known: HashSet<HostId>,
    /// By the tasks that do it.
    busy: HashMap<Id, HostId>,
    tenants: HashMap<TenantName, HashSet<HostId>>,
}

impl Turns {
    /// One that is to be looked after, unless it waits already or is. Says whether it is new.
    pub fn wait(&mut self, id: &HostId, tenant: &TenantName) -> bool {
        let is_new = self.known.insert(id.clone());
        if is_new {
            self.waiting.push_back((id.clone(), tenant.clone()));
        }
        is_new
    }

    /// Those that are looked after from now on.
    pub fn next(&mut self) -> Vec<HostId> {
        let mut next = Vec::new();
        self.waiting.retain(|(id, tenant)| {
            let own = self.tenants.entry(tenant.clone()).or_default();
            let has_room = own.len() < AT_ONCE;
            if has_room {
                own.insert(id.clone());
                next.push(id.clone());
            }
            !has_room
        });
        next
    }

    /// This task does it.
    pub fn begun(&mut self, id: &HostId, task: Id) {
        self.busy.insert(task, id.clone());
    }

    /// It ended, however. Gives whom it looked after.
    pub fn ended(&mut self, task: Id) -> Option<HostId> {
        let id = self.busy.remove(&task)?;
        self.known.remove(&id);
        self.tenants.retain(|_, own| {
            own.remove(&id);
            !own.is_empty()
        });
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task's id that no other has.
    async fn task() -> Id {
        let task = tokio::spawn(async {});
        let id = task.id();
        task.await.unwrap();
        id
    }

    #[tokio::test]
    async fn what_hangs_keeps_nobody_waiting_but_too_many_of_its_own_tenant() {
        let [acme, other]: [TenantName; 2] = ["acme", "other"].map(|name| name.parse().unwrap());
        let hosts: Vec<HostId> = (1..=40).map(HostId::from_bits).collect();
        let mut turns = Turns::default();
        for host in &hosts {
            turns.wait(host, &acme);
        }
        let begun = turns.next();
        assert_eq!(begun, hosts[..AT_ONCE]);
        let mut tasks = Vec::new();
        for host in &begun {
            tasks.push(task().await);
            turns.begun(host, tasks[tasks.len() - 1]);
        }

        // All of those hang: others have their turn, and none has two at a time.
        let theirs = HostId::from_bits(99);
        turns.wait(&theirs, &other);
        for host in &hosts {
            turns.wait(host, &acme);
        }
        assert_eq!(turns.next(), [theirs]);

        // Who waited longest is next, and who had a turn waits at the end.
        turns.ended(tasks[3]);
        turns.wait(&hosts[3], &acme);
        assert_eq!(turns.next(), [hosts[AT_ONCE].clone()]);
        for done in tasks {
            turns.ended(done);
        }
        assert_eq!(turns.next().last(), Some(&hosts[3]));
    }
}
