//! Small settings of the platform, by name.

use model::ledger::Deed;

use crate::{By, Db, Error, Tx};

impl Db<'_> {
    pub fn setting(&self, name: &str) -> Result<Option<String>, Error> {
        self.one("SELECT value FROM settings WHERE name = ?1", [name], |row| {
            row.get(0)
        })
    }
}

impl Tx<'_> {
    /// Sets it; `None` removes it. Never for a secret: settings stand in the ledger.
    pub fn set_setting(&self, name: &str, value: Option<&str>, by: &By) -> Result<(), Error> {
        self.put_setting(name, value)?;
        let deed = Deed {
            actor: by.actor.clone(),
            action: "platform.set".into(),
            tenant: None,
            object: name.to_owned(),
            detail: serde_json::json!({ "value": value }),
        };
        self.record(deed, by.at).map(drop)
    }

    /// Counts up from 1, for ever: the versions of the route table. Not a line of the ledger.
    pub fn count_up(&self, name: &str) -> Result<u64, Error> {
        let text: String = self.value(
            "INSERT INTO settings VALUES (?1, '1')
             ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1 || '' RETURNING value",
            [format!("count.{name}")],
        )?;
        text.parse()
            .map_err(|_| Error::Damaged(format!("the count of {name} is not a number")))
    }

    pub(crate) fn put_setting(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        match value {
            Some(value) => self.run(
                "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [name, value],
            )?,
            None => self.run("DELETE FROM settings WHERE name = ?1", [name])?,
        };
        Ok(())
    }
}
