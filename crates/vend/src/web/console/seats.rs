//! How many pages are kept up to date at once, and whose they are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::{TenantName, policy::Principal};

/// Open pages of everybody together, of the people of one tenant, and of one principal.
const ALL: u32 = 128;
const OF_TENANT: u32 = 48;
const OF_ONE: u32 = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pot {
    All,
    Tenant(TenantName),
    One(String, Option<TenantName>),
}

impl Pot {
    fn most(&self) -> u32 {
        match self {
            Self::All => ALL,
            Self::Tenant(_) => OF_TENANT,
            Self::One(..) => OF_ONE,
        }
    }
}

/// Those that are taken; a pot of which none is taken is not there.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<Pot, u32>>);

/// Is given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    pots: Vec<Pot>,
}

impl Seats {
    /// `None`: too many are taken, by this principal, its tenant, or everybody.
    pub fn take(self: &Arc<Self>, who: &Principal) -> Option<Seat> {
        let one = Pot::One(who.actor.clone(), who.tenant.clone());
        let tenant = who.tenant.clone().map(Pot::Tenant);
        let pots: Vec<Pot> = [Pot::All, one].into_iter().chain(tenant).collect();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |pot: &Pot| taken.get(pot).is_some_and(|count| *count >= pot.most());
        if pots.iter().any(is_full) {
            return None;
        }
        for pot in &pots {
            *taken.entry(pot.clone()).or_default() += 1;
        }
        let seats = Arc::clone(self);
        Some(Seat { seats, pots })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pot in &self.pots {
            let count = taken.get_mut(pot).expect("a seat that is taken is counted");
            *count -= 1;
            if *count == 0 {
                taken.remove(pot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::policy::Role;

    use super::*;

    fn somebody(actor: &str, tenant: Option<&str>) -> Principal {
        Principal {
            actor: actor.into(),
            role: Role::Developer,
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
        }
    }

    /// Takes all that are to be had.
    fn all(seats: &Arc<Seats>, who: &Principal) -> Vec<Seat> {
        std::iter::from_fn(|| seats.take(who)).take(1000).collect()
    }

    #[test]
    fn nobody_takes_the_seats_of_others() {
        let seats = Arc::new(Seats::default());
        let one = all(&seats, &somebody("token:a", Some("acme")));
        assert_eq!(one.len(), OF_ONE as usize);
        // The same name in another tenant is somebody else.
        let other = all(&seats, &somebody("token:a", Some("other")));
        assert_eq!(other.len(), OF_ONE as usize);
        let rest: Vec<Seat> = (0..9)
            .flat_map(|n| all(&seats, &somebody(&format!("token:b{n}"), Some("acme"))))
            .collect();
        assert_eq!(one.len() + rest.len(), OF_TENANT as usize);
        assert!(seats.take(&somebody("token:b", Some("other"))).is_some());
        assert!(seats.take(&somebody("person:root", None)).is_some());
        let root: Vec<Seat> = (0..99)
            .flat_map(|n| all(&seats, &somebody(&format!("person:{n}"), None)))
            .collect();
        assert_eq!(one.len() + other.len() + rest.len() + root.len(), ALL as usize);
        drop((one, other, rest, root));
        assert!(seats.0.lock().unwrap().is_empty(), "all are given back");
    }
}
