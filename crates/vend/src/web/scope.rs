//! What a list is about: everything, a tenant, an app, an environment.

use model::{AppName, EnvironmentName, Place, TenantName, policy::Action, wire::Page};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{auth::Caller, refusal::Refusal};

/// The query of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Scope {
    #[param(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    /// Only together with a tenant.
    #[param(value_type = Option<String>)]
    pub app: Option<AppName>,
    /// Only together with an app.
    #[param(value_type = Option<String>)]
    pub environment: Option<EnvironmentName>,
    /// Only what is open, or only what is not.
    pub open: Option<bool>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// At most so many items; 1 to 500, 100 when absent.
    pub limit: Option<u32>,
}

impl Scope {
    /// The scope within the caller's own: a caller of one tenant sees that tenant and nothing else.
    pub fn within(mut self, caller: &Caller) -> Result<Self, Refusal> {
        if self.tenant.is_none() {
            self.tenant.clone_from(&caller.0.tenant);
        }
        caller.may(Action::View, self.tenant.as_ref(), "tenant")?;
        if (self.app.is_some() && self.tenant.is_none()) || (self.environment.is_some() && self.app.is_none())
        {
            return Err(Refusal::invalid(
                "an app is named with its tenant, an environment with its app",
            ));
        }
        Ok(self)
    }

    /// The one environment that it names.
    pub fn place(&self) -> Option<Place> {
        Some(Place {
            tenant: self.tenant.clone()?,
            app: self.app.clone()?,
            environment: self.environment.clone()?,
        })
    }

    /// Its tenant, and its app where it names one.
    pub fn of_app(&self) -> Option<(&TenantName, Option<&AppName>)> {
        Some((self.tenant.as_ref()?, self.app.as_ref()))
    }

    pub fn holds(&self, place: &Place) -> bool {
        let fits = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
        fits(
            self.tenant.as_ref().map(TenantName::as_str),
            place.tenant.as_str(),
        ) && fits(self.app.as_ref().map(AppName::as_str), place.app.as_str())
            && fits(
                self.environment.as_ref().map(EnvironmentName::as_str),
                place.environment.as_str(),
            )
    }

    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 500)
    }

    /// The cursor of a list that is in the order of falling numbers.
    pub fn before(&self) -> Result<Option<u64>, Refusal> {
        number(self.cursor.as_deref())
    }
}

/// A cursor that is a number.
pub fn number(cursor: Option<&str>) -> Result<Option<u64>, Refusal> {
    let read = |cursor: &str| {
        cursor
            .parse()
            .map_err(|_| Refusal::invalid("the cursor is of another list"))
    };
    cursor.map(read).transpose()
}

/// A page of items in the order of falling numbers; `limit` was asked for.
pub fn numbered<T, W>(
    items: Vec<T>,
    limit: u32,
    key: impl Fn(&T) -> u64,
    wire: impl FnMut(T) -> W,
) -> Page<W> {
    let full = items.len() >= limit as usize;
    let next = items.last().filter(|_| full).map(|last| key(last).to_string());
    Page {
        items: items.into_iter().map(wire).collect(),
        next,
    }
}

/// A page of a list that is read whole and ordered by its keys: what comes after `cursor`.
pub fn keyed<T>(mut items: Vec<T>, cursor: Option<&str>, limit: u32, key: impl Fn(&T) -> String) -> Page<T> {
    items.sort_by_key(&key);
    if let Some(cursor) = cursor {
        items.retain(|item| key(item).as_str() > cursor);
    }
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_to_the_end() {
        let items = || vec!["c".to_owned(), "a".to_owned(), "b".to_owned()];
        let first = keyed(items(), None, 2, Clone::clone);
        assert_eq!(
            (first.items.join(""), first.next.as_deref()),
            ("ab".into(), Some("b"))
        );
        let second = keyed(items(), first.next.as_deref(), 2, Clone::clone);
        assert_eq!((second.items.join(""), second.next), ("c".into(), None));
        let page = numbered(vec![9u64, 8], 2, |n| *n, |n| n);
        assert_eq!(page.next.as_deref(), Some("8"));
        assert_eq!(numbered(vec![9u64], 2, |n| *n, |n| n).next, None);
    }
}
