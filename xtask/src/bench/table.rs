//! What was measured, beside what was wanted.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

pub struct Row {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
    target: Option<f64>,
}

impl Row {
    /// The most that it should be.
    pub fn target(&mut self, most: f64) {
        self.target = Some(most);
    }
}

impl Table {
    /// Adds a measure. Without values it was not measured, and the table says so.
    pub fn row(&mut self, name: impl Into<String>, unit: &'static str, values: &[f64]) -> &mut Row {
        self.rows.push(Row {
            name: name.into(),
            unit,
            values: values.to_vec(),
            target: None,
        });
        self.rows.last_mut().expect("one was pushed")
    }

    /// A sentence below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.notes.is_empty()
    }

    pub fn print(&self) {
        println!();
        line(["MEASURE", "MEDIAN", "MIN–MAX", "N", "TARGET", "RATIO"]);
        for row in &self.rows {
            let Some(median) = median(&row.values) else {
                line([row.name.as_str(), "not measured", "", "0", "", ""]);
                continue;
            };
            let (least, most) = ends(&row.values);
            let spread = match row.values.len() {
                1 => String::new(),
                _ => format!("{}–{}", number(least), number(most)),
            };
            line([
                row.name.as_str(),
                &format!("{} {}", number(median), row.unit),
                &spread,
                &row.values.len().to_string(),
                &row.target.map_or(String::new(), |target| {
                    format!("≤ {} {}", number(target), row.unit)
                }),
                &row.target.map_or(String::new(), |target| ratio(median, target)),
            ]);
        }
        for note in &self.notes {
            println!("{note}");
        }
    }

    /// Writes every single value, for comparisons between runs. A run without figures leaves the last one's.
    pub fn keep(&self, path: &Path) -> anyhow::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let row = |row: &Row| {
            json!({ "measure": row.name, "unit": row.unit, "median": median(&row.values), "target": row.target,
                "values": row.values })
        };
        let all = json!({ "rows": self.rows.iter().map(row).collect::<Vec<Value>>(), "notes": self.notes });
        std::fs::write(path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("all values: {}", path.display());
        Ok(())
    }
}

fn line([name, median, spread, count, target, ratio]: [&str; 6]) {
    println!("{name:<58} {median:>12} {spread:>15} {count:>4} {target:>12} {ratio:>8}");
}

/// 1 and less is as wanted.
fn ratio(median: f64, target: f64) -> String {
    match target {
        0.0 if median == 0.0 => "as wanted".to_owned(),
        0.0 => "MISSED".to_owned(),
        _ => format!("{:.2}", median / target),
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    let fold = |with: fn(f64, f64) -> f64| values.iter().copied().reduce(with).unwrap_or_default();
    (fold(f64::min), fold(f64::max))
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0], Some(2.5)),
        ] {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_missed_zero_is_said_aloud() {
        assert_eq!(ratio(0.0, 0.0), "as wanted");
        assert_eq!(ratio(1.0, 0.0), "MISSED");
        assert_eq!(ratio(1.0, 2.0), "0.50");
    }
}
