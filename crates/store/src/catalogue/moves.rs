//! Environments that are being moved to AWS, or were: who serves them, and where their data is true.
//!
//! What is written here is what the load balancer does next, so what must never be is refused here: traffic to where the
//! data is not.

use jiff::Timestamp;
use model::{Place, wire::Side};
use rusqlite::{Row, params};
use serde_json::json;

use super::environments::place;
use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Word},
};

/// An environment's way to AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub place: Place,
    /// The name of its load balancer there.
    pub host: String,
    /// The release that was live when it began.
    pub release: u64,
    /// Percent of the traffic that goes there.
    pub share: u32,
    /// Nobody is served, because its data is on the way.
    pub closed: bool,
    /// Since when.
    pub closed_at: Option<Timestamp>,
    /// Whoever carries the data says so again and again. Who has stopped saying it is served after this where the data is.
    pub closed_until: Option<Timestamp>,
    /// Where its data is true; `None`: it has no database.
    pub data: Option<Side>,
    /// What was counted of the data when it was dumped last.
    pub counted: Option<String>,
    /// A load was begun here and has not arrived: what is here is of no use.
    pub torn: bool,
    /// Since when nothing of it runs here.
    pub finished_at: Option<Timestamp>,
    pub began_at: Timestamp,
    pub began_by: String,
}

impl Move {
    /// The command that brings it back.
    fn way_back(&self) -> String {
        match self.data {
            Some(Side::Here) => format!("vend move {} --abort", self.place),
            _ => format!("vend move {} --engine embedded", self.place),
        }
    }

    /// Percent of the traffic that goes to AWS when everybody is served where the data is.
    pub fn home(&self) -> u32 {
        match self.data {
            None => self.share,
            Some(Side::Here) => 0,
            Some(Side::Away) => 100,
        }
    }

    /// Refuses to end it where its data would be lost. `lose`: what was written there since is lost, and meant to be.
    pub fn may_end(&self, lose: bool) -> Result<(), Error> {
        let place = &self.place;
        let why = match self.data {
            Some(Side::Away) if self.torn => {
                format!("the data of {place} is on AWS only: a load was begun here, and has not arrived")
            }
            Some(Side::Away) if !lose => {
                format!("the data of {place} is on AWS: what was written there since would be lost")
            }
            _ => return Ok(()),
        };
        let next = match self.torn {
            true => self.way_back(),
            false => format!(
                "{}, which brings it; or vend move {place} --abort --lose-writes",
                self.way_back()
            ),
        };
        Err(Error::refused_with(why, next))
    }

    /// Would traffic meet its data?
    fn is_sound(&self) -> bool {
        match self.data {
            _ if self.closed => true,
            None => self.share <= 100,
            Some(Side::Here) => self.share == 0,
            Some(Side::Away) => self.share == 100,
        }
    }
}

const SELECT: &str = "SELECT m.*, t.name AS tenant, a.name AS app, e.name AS environment FROM moves m
    JOIN environments e ON e.id = m.environment_id
    JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    /// All of them, by place.
    pub fn moves(&self) -> Result<Vec<Move>, Error> {
        self.all(&format!("{SELECT} ORDER BY t.name, a.name, e.name"), [], row)
    }

    /// Those by which nobody is served for longer than was said.
    pub fn overdue_moves(&self, now: Timestamp) -> Result<Vec<Place>, Error> {
        let sql = format!("{SELECT} WHERE m.closed AND m.closed_until <= ?1 ORDER BY m.closed_until");
        let all = self.all(&sql, [At(now)], row)?;
        Ok(all.into_iter().map(|own| own.place).collect())
    }

    /// That of an environment; `None`: it is here, and stays.
    pub fn find_move(&self, place: &Place) -> Result<Option<Move>, Error> {
        let sql = format!("{SELECT} WHERE t.name = ?1 AND a.name = ?2 AND e.name = ?3");
        let names = [
            place.tenant.as_str(),
            place.app.as_str(),
            place.environment.as_str(),
        ];
        self.one(&sql, names, row)
    }

    /// The same, which must be there.
    pub fn the_move(&self, place: &Place) -> Result<Move, Error> {
        self.find_move(place)?
            .ok_or_else(|| Error::missing("move of", place))
    }
}

impl Tx<'_> {
    /// Begins a move. `data`: it has a database, whose data is here.
    pub fn begin_move(
        &self,
        place: &Place,
        host: &str,
        release: u64,
        data: bool,
        by: &By,
    ) -> Result<Move, Error> {
        let key = self.environment_key(place)?;
        if let Some(own) = self.find_move(place)? {
            let message = format!(
                "{place} is being moved to {} already, since {}",
                own.host, own.began_at
            );
            return Err(Error::refused_with(message, format!("vend move {place} --abort")));
        }
        if self.closure(place)?.is_some() {
            let message = format!("{place} is closed here, and would be open on AWS");
            return Err(Error::refused_with(message, format!("vend edge open {place}")));
        }
        let data = data.then_some(Word(Side::Here));
        self.run(
            "INSERT INTO moves (environment_id, host, release, data, began_at, began_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![key, host, release, data, At(by.at), by.actor],
        )?;
        let detail = json!({ "host": host, "release": release });
        self.note(by, "move.begin", Some(&place.tenant), place, detail)?;
        self.the_move(place)
    }

    /// Sends so much of the traffic there. `closed`: or serves nobody, until then at most.
    pub fn serve_move(
        &self,
        place: &Place,
        share: u32,
        closed: Option<Timestamp>,
        by: &By,
    ) -> Result<Move, Error> {
        self.served(self.the_move(place)?, share, closed, ("move.serve", by))
    }

    fn served(
        &self,
        found: Move,
        share: u32,
        closed: Option<Timestamp>,
        (action, by): (&str, &By),
    ) -> Result<Move, Error> {
        let place = &found.place;
        if found.finished_at.is_some() {
            return Err(Error::refused_with(
                format!("nothing of {place} runs here any more"),
                found.way_back(),
            ));
        }
        let mut next = Move {
            share,
            closed: closed.is_some(),
            closed_at: closed.and(found.closed_at.or(Some(by.at))),
            closed_until: closed,
            ..found.clone()
        };
        if !next.closed {
            // Whoever is served writes: it is not what was counted any more.
            next.counted = None;
        }
        if !next.is_sound() {
            let message = match next.data {
                None => "a share is 0 to 100 percent".to_owned(),
                Some(side) => format!(
                    "the data of {place} is {side}: whoever were served elsewhere would write what is lost"
                ),
            };
            return Err(Error::refused(message));
        }
        self.run(
            "UPDATE moves SET share = ?2, closed = ?3, counted = ?4, closed_at = ?5, closed_until = ?6
             WHERE environment_id = ?1",
            params![
                self.environment_key(place)?,
                share,
                next.closed,
                next.counted,
                next.closed_at.map(At),
                next.closed_until.map(At)
            ],
        )?;
        if (next.share, next.closed) != (found.share, found.closed) {
            let mut detail = json!({ "share": share, "closed": next.closed, "before": found.share });
            if let Some(at) = found.closed_at.filter(|_| !next.closed) {
                detail["closed_at"] = json!(at);
            }
            self.note(by, action, Some(&place.tenant), place, detail)?;
        }
        Ok(next)
    }

    /// Nobody is served for longer than was said: what was counted is of no use from now on, so that no data settles
    /// elsewhere while it is let go here. `None`: it is served, or was said to be closed for longer meanwhile.
    pub fn overdue_move(&self, place: &Place, by: &By) -> Result<Option<Move>, Error> {
        let is_over = |own: &Move| own.closed && own.closed_until.is_some_and(|until| until <= by.at);
        let Some(found) = self.find_move(place)?.filter(is_over) else {
            return Ok(None);
        };
        self.run(
            "UPDATE moves SET counted = NULL WHERE environment_id = ?1",
            [self.environment_key(place)?],
        )?;
        Ok(Some(Move {
            counted: None,
            ..found
        }))
    }

    /// Serves everybody again where the data is, because whoever carried it has stopped. `None` as before.
    pub fn lapse_move(&self, place: &Place, by: &By) -> Result<Option<Move>, Error> {
        let Some(found) = self.overdue_move(place, by)? else {
            return Ok(None);
        };
        let home = found.home();
        self.served(found, home, None, ("move.lapse", by)).map(Some)
    }

    /// From now on what is here of the data is overwritten by what comes from AWS. Only while nobody writes there.
    pub fn tear_move(&self, place: &Place, by: &By) -> Result<(), Error> {
        let found = self.the_move(place)?;
        if found.data != Some(Side::Away) {
            return Err(Error::refused(format!(
                "{place} has no data on AWS that is to come here"
            )));
        }
        if !found.closed {
            return Err(Error::refused(format!("{place} is served, so its data changes")));
        }
        self.run(
            "UPDATE moves SET torn = 1, counted = NULL WHERE environment_id = ?1",
            [self.environment_key(place)?],
        )?;
        self.note(
            by,
            "move.overwrite",
            Some(&place.tenant),
            place,
            json!({ "torn": found.torn }),
        )
    }

    /// Keeps what was counted of the data that was dumped, or loaded, here just now. Only while nobody writes.
    pub fn count_move(&self, place: &Place, counted: &str, by: &By) -> Result<(), Error> {
        let found = self.the_move(place)?;
        if !found.closed {
            return Err(Error::refused(format!(
                "{place} is served, so what is counted changes"
            )));
        }
        self.run(
            "UPDATE moves SET counted = ?2 WHERE environment_id = ?1",
            params![self.environment_key(place)?, counted],
        )?;
        let action = match found.data {
            Some(Side::Away) => "move.load",
            _ => "move.dump",
        };
        self.note(
            by,
            action,
            Some(&place.tenant),
            place,
            json!({ "counted": counted }),
        )
    }

    /// What was dumped is not what is here any more: a dump failed, so the app may write again. Says whether it may: not
    /// where the data is elsewhere already.
    pub fn spoil_move(&self, place: &Place) -> Result<bool, Error> {
        match self.find_move(place)? {
            Some(found) if found.data == Some(Side::Away) => return Ok(false),
            None => return Ok(true),
            Some(_) => {}
        }
        self.run(
            "UPDATE moves SET counted = NULL WHERE environment_id = ?1",
            [self.environment_key(place)?],
        )?;
        Ok(true)
    }

    /// Its data is true on this side from now on. `counted`: what was counted on AWS, which must be what was counted here.
    /// `since`: nobody was served since then, as whoever dumped it was told.
    pub fn settle_move(
        &self,
        place: &Place,
        side: Side,
        counted: &str,
        since: Option<Timestamp>,
        by: &By,
    ) -> Result<Move, Error> {
        let found = self.the_move(place)?;
        if found.data.is_none() || !found.closed {
            return Err(Error::refused(format!("no data of {place} is on the way")));
        }
        if since.is_some_and(|since| found.closed_at != Some(since)) {
            return Err(Error::refused(format!(
                "{place} was served since it was dumped: what arrived is old"
            )));
        }
        if found.counted.as_deref() != Some(counted) {
            let had = found.counted.as_deref().unwrap_or("nothing");
            return Err(Error::refused(format!(
                "what arrived is not what was dumped: {counted}, and it was {had}"
            )));
        }
        if found.data == Some(side) {
            return Ok(found);
        }
        self.run(
            "UPDATE moves SET data = ?2, torn = 0 WHERE environment_id = ?1",
            params![self.environment_key(place)?, Word(side)],
        )?;
        let detail = json!({ "data": side, "counted": counted });
        self.note(by, "move.settle", Some(&place.tenant), place, detail)?;
        self.the_move(place)
    }

    /// Nothing of it runs here from now on; what waits to be released here is ignored.
    pub fn finish_move(&self, place: &Place, by: &By) -> Result<(), Error> {
        let found = self.the_move(place)?;
        if found.share != 100 || found.closed {
            return Err(Error::refused_with(
                format!("{place} is not wholly served by AWS yet"),
                format!("vend move {place} --engine aws"),
            ));
        }
        let changed = self.run(
            "UPDATE moves SET finished_at = ?2 WHERE environment_id = ?1 AND finished_at IS NULL",
            params![self.environment_key(place)?, At(by.at)],
        )?;
        if changed == 0 {
            return Ok(());
        }
        self.ignore_waiting(place, &format!("{place} is on AWS: vend aws push"), by)?;
        self.note(
            by,
            "move.finish",
            Some(&place.tenant),
            place,
            json!({ "host": found.host }),
        )
    }

    /// It is to run here again; the traffic stays where it is.
    pub fn reopen_move(&self, place: &Place, by: &By) -> Result<(), Error> {
        let found = self.the_move(place)?;
        self.run(
            "UPDATE moves SET finished_at = NULL WHERE environment_id = ?1",
            params![self.environment_key(place)?],
        )?;
        self.note(
            by,
            "move.reopen",
            Some(&place.tenant),
            place,
            json!({ "host": found.host }),
        )
    }

    /// All of the traffic is served here, and nothing is said about AWS any more. `lose`: what was written there since is
    /// lost.
    pub fn end_move(&self, place: &Place, lose: bool, by: &By) -> Result<(), Error> {
        let found = self.the_move(place)?;
        found.may_end(lose)?;
        if found.finished_at.is_some() {
            return Err(Error::refused_with(
                format!("nothing of {place} runs here"),
                found.way_back(),
            ));
        }
        self.run(
            "DELETE FROM moves WHERE environment_id = ?1",
            [self.environment_key(place)?],
        )?;
        let lost = found.data == Some(Side::Away);
        let detail = json!({ "host": found.host, "share": found.share, "lost_writes": lost });
        self.note(by, "move.end", Some(&place.tenant), place, detail)
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<Move> {
    Ok(Move {
        place: place(row, "environment")?,
        host: row.get("host")?,
        release: row.get("release")?,
        share: row.get("share")?,
        closed: row.get("closed")?,
        closed_at: row.maybe_at("closed_at")?,
        closed_until: row.maybe_at("closed_until")?,
        data: row
            .get::<_, Option<String>>("data")?
            .map(|word| match word.as_str() {
                "away" => Side::Away,
                _ => Side::Here,
            }),
        counted: row.get("counted")?,
        torn: row.get("torn")?,
        finished_at: row.maybe_at("finished_at")?,
        began_at: row.at("began_at")?,
        began_by: row.get("began_by")?,
    })
}
