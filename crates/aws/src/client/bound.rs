//! An account, outside of which nothing is done.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{Client, Error, Form};
use crate::call;

pub(super) struct Bound {
    account: String,
    /// Set when the credentials were seen to be its own.
    seen: OnceCell<()>,
}

impl Client {
    /// One that asks for nothing with credentials of another account. Before its first call it asks whose they are.
    pub fn bound(self, account: &str) -> Self {
        let bound = Bound {
            account: account.to_owned(),
            seen: OnceCell::new(),
        };
        Self {
            bound: Some(Arc::new(bound)),
            ..self
        }
    }

    /// Refuses credentials of another account.
    pub(super) async fn refuse_others(&self, bound: &Bound) -> Result<(), Error> {
        let free = Self {
            bound: None,
            ..self.clone()
        };
        let ask = async || {
            let answer = free.query(&call::CALLER, Form::default()).await?;
            match answer.text("Account") {
                own if own == bound.account => Ok(()),
                other => Err(Error::Account {
                    is: other.to_owned(),
                    wanted: bound.account.clone(),
                }),
            }
        };
        bound.seen.get_or_try_init(ask).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is asked, whose credentials they are comes first, and once.
    #[tokio::test]
    async fn nothing_is_asked_of_another_account() {
        fn answer(_: &str, _: &[String]) -> String {
            "<Account>123456789012</Account>".to_owned()
        }
        let asked_by = async |account: &str| {
            let (address, asked) = crate::fixtures::service(answer);
            let client = Client::at(address).bound(account);
            for _ in 0..2 {
                let done = client.query(&call::ROLE, Form::default()).await;
                assert_eq!(done.is_ok(), account == "123456789012", "{done:?}");
            }
            let all = asked.lock().unwrap().clone();
            let names = all.iter().map(|own| crate::fixtures::action(own).to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            asked_by("123456789012").await,
            ["GetCallerIdentity", "GetRole", "GetRole"]
        );
        // Nothing was seen, so it is looked again.
        assert_eq!(
            asked_by("999999999999").await,
            ["GetCallerIdentity", "GetCallerIdentity"]
        );
    }
}
