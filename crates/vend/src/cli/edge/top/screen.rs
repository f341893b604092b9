//! What a terminal shows of rates. Pure.

use super::{Sort, rates::Rates};
use crate::output::{Output, Tone, clean, size};

/// What is looked at, and how much room there is.
#[derive(Debug, Clone)]
pub struct Look {
    pub sort: Sort,
    pub rules: bool,
    pub lines: usize,
    pub width: usize,
    /// What must be in a name.
    pub filter: String,
    pub keys: Keys,
}

/// What the last line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    None,
    /// What keys there are.
    Named,
    /// What is being typed to look for.
    Typing,
}

/// Lines above and below the list.
pub const AROUND: usize = 6;

/// Columns behind the name: title, width, and what sorts by it.
const COLUMNS: [(&str, usize, Option<Sort>); 11] = [
    ("REQ/S", 8, Some(Sort::Requests)),
    ("2XX", 8, None),
    ("3XX", 7, None),
    ("4XX", 7, None),
    ("5XX", 7, Some(Sort::Errors)),
    ("EDGE5XX", 8, None),
    ("P50 MS", 8, Some(Sort::P50)),
    ("P99 MS", 8, Some(Sort::P99)),
    ("ACTIVE", 7, Some(Sort::Active)),
    ("BYTES/S", 11, Some(Sort::Bytes)),
    ("HEALTHY", 9, Some(Sort::Unhealthy)),
];

pub fn draw(rates: &Rates, look: &Look, output: &Output) -> String {
    let mut lines = head(rates, output, look.width);
    lines.push(String::new());
    match look.rules {
        true => rules(rates, look, output, &mut lines),
        false => groups(rates, look, output, &mut lines),
    }
    if let Some(last) = last(look) {
        lines.push(output.tone(Tone::Faint, &cut(&last, look.width)));
    }
    lines.join("\n") + "\n"
}

fn last(look: &Look) -> Option<String> {
    let filter = clean(&look.filter);
    match look.keys {
        Keys::None => None,
        Keys::Typing => Some(format!("only: {filter}_   Enter keeps it, Escape shows all")),
        Keys::Named => {
            let only = match filter.is_empty() {
                true => "/ only".to_owned(),
                false => format!("only: {filter}"),
            };
            Some(format!(
                "q quit   g groups/rules   {only}   sort by: r requests  e errors  5 p50  9 p99  a active  b bytes  \
                 u unhealthy  n name"
            ))
        }
    }
}

fn head(rates: &Rates, output: &Output, width: usize) -> Vec<String> {
    let [c1, c2, c3, c4, c5] = rates.classes.map(number);
    let first = format!(
        "{} requests/s   1xx {c1}  2xx {c2}  3xx {c3}  4xx {c4}  5xx {c5}  edge {}   {}/s   {} connections open, {} new/s",
        number(rates.requests),
        number(rates.edge_5xx),
        size(rates.bytes as u64),
        rates.connections_open,
        number(rates.connections),
    );
    let second = format!(
        "a second: no rule {}  malformed {}  handshakes failed {}  limited {}  retries {}   waking: {}   targets: {}, \
         unhealthy {}{}",
        number(rates.unmatched),
        number(rates.malformed),
        number(rates.handshakes),
        number(rates.limited),
        number(rates.retries),
        rates.waking,
        rates.targets,
        rates.unhealthy,
        match rates.unbound {
            0 => String::new(),
            count => format!("   not listening: {count} (vend edge sockets)"),
        },
    );
    let tone = match rates.unhealthy > 0 || rates.unbound > 0 || rates.limited > 0.0 {
        true => Tone::Wait,
        false => Tone::Plain,
    };
    vec![
        output.tone(Tone::Strong, &cut(&first, width)),
        output.tone(tone, &cut(&second, width)),
    ]
}

fn groups(rates: &Rates, look: &Look, output: &Output, lines: &mut Vec<String>) {
    let columns = fitting(look.width);
    let room = look
        .width
        .saturating_sub(columns.iter().map(|(_, width, _)| width).sum());
    let longest = rates.groups.iter().map(|group| group.group.chars().count()).max();
    let name = longest.unwrap_or(0).max("GROUP".len() + 1).min(room.max(8));
    let mut title = pad(&marked("GROUP", look.sort == Sort::Name), name);
    for (text, width, sort) in &columns {
        let text = marked(text, sort.is_some_and(|sort| sort == look.sort));
        title += &format!("{text:>width$}");
    }
    lines.push(output.tone(Tone::Faint, &title));
    if rates.groups.is_empty() {
        lines.push("nothing has been asked for yet".into());
    }
    for group in &rates.groups {
        let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), milliseconds);
        let cells = [
            number(group.requests),
            number(group.classes[1]),
            number(group.classes[2]),
            number(group.classes[3]),
            number(group.classes[4]),
            number(group.edge_5xx),
            ms(group.p50_ms),
            ms(group.p99_ms),
            group.active.to_string(),
            size(group.bytes as u64),
            format!("{}/{}", group.healthy, group.targets),
        ];
        let mut line = pad(&cut(&clean(&group.group), name), name);
        for ((title, width, _), cell) in columns.iter().zip(cells) {
            let bad = match *title {
                "5XX" => group.classes[4] > 0.0,
                "EDGE5XX" => group.edge_5xx > 0.0,
                "HEALTHY" => group.unhealthy > 0,
                _ => false,
            };
            let tone = if bad { Tone::Bad } else { Tone::Plain };
            line += &output.tone(tone, &format!("{cell:>width$}"));
        }
        lines.push(line);
    }
    more(rates.groups_asked, rates.groups.len(), "groups", output, lines);
}

fn rules(rates: &Rates, look: &Look, output: &Output, lines: &mut Vec<String>) {
    const NUMBERS: usize = 20;
    let room = look.width.saturating_sub(NUMBERS).max(16) / 2;
    let title = format!(
        "{:>10}{:>9} {} {}",
        "PRIORITY",
        marked("REQ/S", look.sort != Sort::Name),
        pad(&marked("HOST", look.sort == Sort::Name), room),
        "WHERE"
    );
    lines.push(output.tone(Tone::Faint, &cut(&title, look.width)));
    if rates.rules.is_empty() {
        lines.push("no rule has been asked yet".into());
    }
    for rule in &rates.rules {
        let line = format!(
            "{:>10}{:>9} {} {}",
            rule.priority,
            number(rule.requests),
            pad(&cut(&clean(&rule.host), room), room),
            cut(&clean(&rule.place), room)
        );
        lines.push(cut(line.trim_end(), look.width));
    }
    more(rates.rules_asked, rates.rules.len(), "rules", output, lines);
}

/// How many are not shown.
fn more(asked: usize, shown: usize, what: &str, output: &Output, lines: &mut Vec<String>) {
    let text = match asked.saturating_sub(shown) {
        0 => String::new(),
        more => format!("and {more} {what} more"),
    };
    lines.push(output.tone(Tone::Faint, &text));
}

/// As many columns as leave room for a name. The last ones go first, but for the healthy ones.
fn fitting(width: usize) -> Vec<(&'static str, usize, Option<Sort>)> {
    const NAME: usize = 24;
    let mut columns = COLUMNS.to_vec();
    while columns.len() > 1 && columns.iter().map(|(_, width, _)| width).sum::<usize>() + NAME > width {
        columns.pop();
    }
    columns
}

fn marked(title: &str, by: bool) -> String {
    match by {
        true => format!("{title}▾"),
        false => title.to_owned(),
    }
}

/// `0`, `0.4`, `12.5`, `12500`, `1.25M`
fn number(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        _ if value < 99.95 => format!("{value:.1}"),
        _ if value < 1e6 => format!("{value:.0}"),
        _ => format!("{:.2}M", value / 1e6),
    }
}

fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms < 9.995 => format!("{ms:.2}"),
        _ if ms < 999.5 => format!("{ms:.0}"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).collect::<String>() + "…",
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::edge::top::rates::tests::load;

    fn output() -> Output {
        // A test's standard output is no terminal: there are no colours.
        Output::new(false, String::new())
    }

    fn shown(look: Look) -> String {
        let mut rates = Rates::between(&load(1_000, 1), &load(3_000, 3));
        rates.arrange(look.sort, look.lines);
        draw(&rates, &look, &output())
    }

    const LOOK: Look = Look {
        sort: Sort::Requests,
        rules: false,
        lines: 9,
        width: 120,
        filter: String::new(),
        keys: Keys::None,
    };

    #[test]
    fn a_wide_terminal_has_all_columns() {
        let expected = "\
1000 requests/s   1xx 0  2xx 998  3xx 0  4xx 0  5xx 2.0  edge 4.0   976.6 KiB/s   7 connections open, 10.0 new/s
a second: no rule 0  malformed 0  handshakes failed 4.0  limited 1.0  retries 0   waking: 0   targets: 9, unhealthy 2

GROUP          REQ/S▾     2XX    3XX    4XX    5XX EDGE5XX  P50 MS  P99 MS ACTIVE    BYTES/S  HEALTHY
b/blog/dev/v2     900     899      0      0    1.0     2.0    0.13    0.25      3  878.9 KiB      3/4
a/shop/dev/v1     100    99.0      0      0    1.0     2.0    0.26    4.06      3   97.7 KiB      3/4

";
        assert_eq!(shown(LOOK), expected);
    }

    #[test]
    fn a_narrow_one_has_fewer_and_nothing_is_wider_than_it() {
        for width in [20, 40, 80, 200] {
            let keys = Look {
                width,
                keys: Keys::Named,
                ..LOOK
            };
            let rules = Look {
                rules: true,
                ..keys.clone()
            };
            for look in [keys, rules] {
                let text = shown(look);
                let wide = text.lines().find(|line| line.chars().count() > width.max(40));
                assert_eq!(wide, None, "{width}");
                assert!(text.contains("REQ/S"), "{text}");
            }
        }
        assert!(!shown(Look { width: 80, ..LOOK }).contains("HEALTHY"));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_sorts_is_marked() {
        let text = shown(Look {
            lines: 1,
            sort: Sort::P99,
            ..LOOK
        });
        assert!(
            text.contains("P99 MS▾") && text.contains("and 1 groups more"),
            "{text}"
        );
        assert!(text.contains("a/shop") && !text.contains("b/blog"), "{text}");
        let rules = shown(Look { rules: true, ..LOOK });
        assert!(rules.contains("         4      100 shop.test"), "{rules}");
    }

    #[test]
    fn names_of_others_do_not_move_the_cursor() {
        let mut rates = Rates::between(&load(0, 0), &load(1_000, 1));
        rates.groups[0].group = "a\x1b[2J".into();
        assert!(!draw(&rates, &LOOK, &output()).contains('\x1b'));
    }
}
