//! Changes of the table.

use model::route;

use super::ends;
use crate::{book::Book, head::Ask, table::Rule};

/// Reads a change of the table from any bytes. What is found good is applied; what is then in force must be what the
/// change says, and each rule must be found, or not, as a walk over all rules finds it.
///
/// # Panics
/// When it is not so.
pub fn change(bytes: &[u8]) {
    let Ok(delta) = serde_json::from_slice::<route::Delta>(bytes) else {
        return;
    };
    let mut book = Book::default();
    if book.check(&delta).is_err() {
        return;
    }
    let mut table = route::Table::default();
    table.change(delta.clone());
    book.apply(&delta, 0);
    assert_eq!(book.source(), table, "what is in force is not what was said");
    let rules = book.index();
    let all = book.rules();
    for rule in &table.rules {
        let host = rule
            .hosts
            .first()
            .map_or("a.test", String::as_str)
            .replace(['*', '?'], "x");
        let path = rule
            .paths
            .first()
            .map_or("/", String::as_str)
            .replace(['*', '?'], "y");
        let mut ask = Ask::default();
        ask.start("GET", &path, &ends());
        if !path.starts_with('/') || !ask.name_host(&host) {
            continue;
        }
        ask.end();
        let found = rules.find(&ask).map(|rule| rule.priority);
        let walked = all.iter().find(|rule| rule.is_for(&ask.host) && rule.fits(&ask));
        assert_eq!(found, walked.map(|rule| rule.priority), "{host}{path}");
        if let Some(rest) = rule_of(&all, rule.priority).rest() {
            let _ = (rest.url(&ask).is_ok(), rest.host(&ask).is_ok());
        }
    }
}

fn rule_of(rules: &[Rule], priority: u32) -> &Rule {
    rules
        .iter()
        .find(|rule| rule.priority == priority)
        .expect("it is in force")
}
