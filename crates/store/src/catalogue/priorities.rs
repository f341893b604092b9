//! Steps of rules: which priority each rule of an environment has, and keeps.

use std::collections::BTreeMap;

use model::Place;
use rusqlite::params;

use crate::{Db, Error, Tx};

impl Db<'_> {
    /// The step of each rule of an environment, beside that of its own names: 1 to 255, by a domain or a port.
    pub fn steps(&self, place: &Place) -> Result<BTreeMap<String, u32>, Error> {
        let key = self.environment_key(place)?;
        let sql = "SELECT name, step FROM priorities WHERE environment_id = ?1";
        let rows = self.all(sql, [key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.into_iter().collect())
    }
}

impl Tx<'_> {
    /// These are the steps from now on. What rules there are is on record elsewhere, so that no line of the ledger is written.
    pub fn set_steps(&self, place: &Place, steps: &BTreeMap<String, u32>) -> Result<(), Error> {
        let key = self.environment_key(place)?;
        self.run("DELETE FROM priorities WHERE environment_id = ?1", [key])?;
        for (name, step) in steps {
            self.run(
                "INSERT INTO priorities (environment_id, name, step) VALUES (?1, ?2, ?3)",
                params![key, name, step],
            )?;
        }
        Ok(())
    }
}
