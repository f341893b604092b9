//! Coverage in XML: Clover, Cobertura, JaCoCo.

use model::{
    port::{Coverage, Share},
    spec::build::ReportFormat,
};

use super::{
    Error, Telling,
    xml::{Element, Listener, walk},
};

pub(super) fn read(format: ReportFormat, bytes: &[u8], telling: Telling<'_>) -> Result<Coverage, Error> {
    let found = match format {
        ReportFormat::CloverXml => {
            let mut clover = Clover::default();
            walk(bytes, &["coverage"], &mut clover, telling)?;
            clover.told.unwrap_or(clover.counted)
        }
        ReportFormat::JacocoXml => {
            let mut jacoco = Jacoco::default();
            walk(bytes, &["report"], &mut jacoco, telling)?;
            jacoco.0
        }
        _ => {
            let mut cobertura = Cobertura::default();
            walk(bytes, &["coverage"], &mut cobertura, telling)?;
            cobertura.0
        }
    };
    match found.lines.total {
        0 => Err(Error::NoLines),
        _ => Ok(found),
    }
}

/// Files repeat their lines' sums for classes, packages and the project: the project's are taken, its lines are counted
/// where it has none.
#[derive(Default)]
struct Clover {
    told: Option<Coverage>,
    counted: Coverage,
}

impl Listener for Clover {
    fn open(&mut self, path: &[String], element: &Element<'_>) -> Result<(), Error> {
        let end: Vec<&str> = path.iter().rev().take(2).map(String::as_str).collect();
        match end[..] {
            ["metrics", "project"] => {
                let share = |covered: &str, total: &str| Share {
                    covered: element.number(covered).min(element.number(total)),
                    total: element.number(total),
                };
                let lines = share("coveredstatements", "statements");
                let branches = share("coveredconditionals", "conditionals");
                self.told = (lines.total > 0).then_some(Coverage { lines, branches });
            }
            ["line", ..] if element.get("type").as_deref() != Some("method") => {
                self.counted.lines.count(element.number("count") > 0);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The lines of classes. Those of methods are the same once more.
#[derive(Default)]
struct Cobertura(Coverage);

impl Listener for Cobertura {
    fn open(&mut self, path: &[String], element: &Element<'_>) -> Result<(), Error> {
        let end: Vec<&str> = path.iter().rev().take(3).map(String::as_str).collect();
        if end != ["line", "lines", "class"] {
            return Ok(());
        }
        self.0.lines.count(element.number("hits") > 0);
        // `50% (1/2)`
        let told = element.get("condition-coverage").unwrap_or_default();
        let inner = told.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let numbers = inner.and_then(|(inner, _)| inner.split_once('/'));
        if let Some((covered, total)) = numbers
            && let (Ok(covered), Ok(total)) = (covered.trim().parse::<u32>(), total.trim().parse::<u32>())
        {
            self.0.branches.add(&Share {
                covered: covered.min(total).into(),
                total: total.into(),
            });
        }
        Ok(())
    }
}

/// The report's own counters.
#[derive(Default)]
struct Jacoco(Coverage);

impl Listener for Jacoco {
    fn open(&mut self, path: &[String], element: &Element<'_>) -> Result<(), Error> {
        if path.len() != 2 || path[1] != "counter" {
            return Ok(());
        }
        let covered = element.number("covered");
        let share = Share {
            covered,
            total: covered.saturating_add(element.number("missed")),
        };
        match element.get("type").as_deref() {
            Some("LINE") => self.0.lines = share,
            Some("BRANCH") => self.0.branches = share,
            _ => {}
        }
        Ok(())
    }
}
