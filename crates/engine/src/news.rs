//! An activity was deleted, or made again: open executions whose definition has it hear of it. The news stay in the store
//! until all have.

use std::collections::HashSet;

use asl::Event;
use model::Digest;
use serde_json::Value;
use store::{Db, News};

use crate::{Engine, Error, act::Act, beside, maps::Done};

/// Executions that hear of something at once.
const PAGE: u32 = 256;

/// How far the news have come.
#[derive(Clone)]
pub(crate) struct Cursor {
    news: News,
    /// Definitions that have the activity and whose executions have not all heard of it.
    definitions: Vec<Digest>,
    /// Keys up to here of the last of these have.
    after: u64,
}

/// Executions that are to hear of something next; `None`: there are no news.
pub(crate) type Page = Result<Option<(Cursor, Vec<u64>)>, Error>;

/// Those who are hearing of something.
pub(crate) struct Telling {
    cursor: Cursor,
    left: HashSet<u64>,
}

fn activity(news: &News) -> String {
    format!("arn:aws:states:local:{:012}:activity:{}", news.owner, news.name)
}

/// Does a definition have a task for this resource?
fn uses(definition: &Value, resource: &str) -> bool {
    match definition {
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| (name == "Resource" && value == resource) || uses(value, resource)),
        Value::Array(items) => items.iter().any(|item| uses(item, resource)),
        _ => false,
    }
}

fn next(db: &Db<'_>, cursor: Option<Cursor>) -> Page {
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => {
            let Some(news) = db.activity_news()?.into_iter().next() else {
                return Ok(None);
            };
            let resource = activity(&news);
            let mut definitions = Vec::new();
            for (digest, text) in db.open_definitions(news.owner, &news.name)? {
                if asl::json::read(&text).is_ok_and(|definition| uses(&definition, &resource)) {
                    definitions.push(digest);
                }
            }
            Cursor {
                news,
                definitions,
                after: 0,
            }
        }
    };
    while let Some(definition) = cursor.definitions.last() {
        let keys = db.open_of_definition(cursor.news.owner, definition, cursor.after, PAGE)?;
        if let Some(last) = keys.last() {
            cursor.after = *last;
            return Ok(Some((cursor, keys)));
        }
        cursor.definitions.pop();
        cursor.after = 0;
    }
    Ok(Some((cursor, Vec::new())))
}

impl Engine {
    /// There may be news.
    pub(crate) fn ask_for_news(&mut self) {
        match self.telling.is_none() && !self.asking {
            true => self.tell_on(None),
            false => self.more_news = true,
        }
    }

    /// Goes on with the executions after those that have heard.
    pub(crate) fn tell_on(&mut self, cursor: Option<Cursor>) {
        (self.telling, self.asking) = (None, true);
        self.more_news &= cursor.is_some();
        let store = self.setup.store.clone();
        let reading = async move {
            let page = store.read(move |db| next(db, cursor)).await;
            let Ok(Some((cursor, keys))) = &page else {
                return Done::News(page);
            };
            if !keys.is_empty() {
                return Done::News(page);
            }
            let news = cursor.news.clone();
            let told = store.write(move |tx| tx.activity_told(&news)).await;
            Done::News(told.map_err(Error::from).and(page))
        };
        self.jobs.spawn(beside::whole(reading, || {
            Done::News(Err(store::Error::Panicked.into()))
        }));
    }

    pub(crate) fn news(&mut self, page: Page) {
        self.asking = false;
        match page {
            Ok(None) => {
                if self.more_news {
                    self.tell_on(None);
                }
            }
            Ok(Some((_, keys))) if keys.is_empty() => self.tell_on(None),
            Ok(Some((cursor, keys))) => {
                let event = Event::Activity {
                    resource: activity(&cursor.news),
                    exists: cursor.news.there,
                };
                self.agenda.extend(keys.iter().map(|key| (*key, event.clone())));
                let left = keys.into_iter().collect();
                self.telling = Some(Telling { cursor, left });
            }
            Err(error) => {
                // The next news, or the next start, take these along.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "executions could not be told of an activity"
                );
            }
        }
    }

    /// An execution has heard, or has ended before it could.
    pub(crate) fn heard(&mut self, key: u64, event: &Event) {
        let Event::Activity { .. } = event else { return };
        let Some(telling) = &mut self.telling else {
            return;
        };
        if telling.left.remove(&key) && telling.left.is_empty() {
            // Once that is kept.
            self.acts.push(Act::Told(telling.cursor.clone()));
        }
    }
}
