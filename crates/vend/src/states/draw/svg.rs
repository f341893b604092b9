//! The picture as an SVG document. Only attributes, no style sheet and no script: a page with a strict content policy
//! can hold it.

use std::fmt::Write as _;

use super::{
    layout::{Frame, Item, Line, Scene},
    status::{Statuses, Tint},
};

/// Pixels of a cell.
const WIDE: usize = 8;
const HIGH: usize = 18;
const MARGIN: usize = 16;

pub fn render(scene: &Scene, statuses: &Statuses) -> String {
    let (width, height) = (scene.width * WIDE + 2 * MARGIN, scene.height * HIGH + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <g transform=\"translate({MARGIN} {MARGIN})\">\n"
    );
    for item in &scene.items {
        match item {
            Item::Box(own) => frame(&mut svg, own, statuses.of(&own.name)),
            Item::Dot { x, y, title, end } => dot(&mut svg, *x, *y, title, *end),
            Item::Label { x, y, title } => {
                let (x, y) = (middle(*x), y * HIGH + 13);
                let title = escape(title);
                let _ = writeln!(
                    svg,
                    "<text class=\"reason\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" font-size=\"12\" fill=\"#475569\">{title}</text>"
                );
            }
            Item::Line(own) => line(&mut svg, own),
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn middle(x: usize) -> usize {
    x * WIDE + WIDE / 2
}

fn frame(svg: &mut String, frame: &Frame, tint: Tint) {
    let (x, y) = (frame.x * WIDE, frame.y * HIGH);
    let (width, height) = (frame.width * WIDE, frame.height * HIGH);
    let (fill, stroke) = colours(tint, frame.outer);
    let dash = if frame.outer {
        " stroke-dasharray=\"5 3\""
    } else {
        ""
    };
    let (name, kind, title, word) = (
        escape(&frame.name),
        escape(&frame.kind),
        escape(&frame.title),
        tint.word(),
    );
    let _ = writeln!(
        svg,
        "<g class=\"state\" data-status=\"{word}\"><title>{name} ({kind}, {word})</title>\
         <rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"1.5\"{dash}/>\
         <text x=\"{}\" y=\"{}\" font-size=\"10\" fill=\"#64748b\">{kind}</text>",
        x + 8,
        y + 13,
    );
    let (at, below, anchor) = match frame.outer {
        true => (x + 8, 28, "start"),
        false => (x + width / 2, 34, "middle"),
    };
    let _ = writeln!(
        svg,
        "<text x=\"{at}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"#0f172a\">{title}</text></g>",
        y + below,
    );
}

fn colours(tint: Tint, outer: bool) -> (&'static str, &'static str) {
    match tint {
        Tint::None if outer => ("#f8fafc", "#94a3b8"),
        Tint::None => ("#ffffff", "#475569"),
        Tint::Succeeded => ("#dcfce7", "#15803d"),
        Tint::Caught => ("#ffedd5", "#c2410c"),
        Tint::Running => ("#dbeafe", "#1d4ed8"),
        Tint::Aborted => ("#f1f5f9", "#64748b"),
        Tint::Failed => ("#fee2e2", "#b91c1c"),
    }
}

fn dot(svg: &mut String, x: usize, y: usize, title: &str, end: bool) {
    let (x, y, title) = (middle(x), y * HIGH + HIGH / 2, escape(title));
    let fill = if end { "#ffffff" } else { "#0f172a" };
    let _ = writeln!(
        svg,
        "<g><title>{title}</title><circle cx=\"{x}\" cy=\"{y}\" r=\"6\" fill=\"{fill}\" stroke=\"#0f172a\" stroke-width=\"2\"/></g>"
    );
}

fn line(svg: &mut String, line: &Line) {
    let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else {
        return;
    };
    // From the lower edge of what is above to the upper edge of what is below.
    let (top, bottom) = (first.1 * HIGH, (last.1 + 1) * HIGH);
    let mut path = format!("M{} {top}", middle(first.0));
    for (x, y) in line
        .points
        .iter()
        .skip(1)
        .take(line.points.len().saturating_sub(2))
    {
        let _ = write!(path, " L{} {}", middle(*x), y * HIGH + HIGH / 2);
    }
    let _ = write!(path, " L{} {bottom}", middle(last.0));
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"#475569\" stroke-width=\"1.5\" stroke-linejoin=\"round\"/>"
    );
    for (wanted, x, y, back) in [(line.down, last.0, bottom, -8_i64), (line.up, first.0, top, 8)] {
        if wanted {
            let (x, y) = (middle(x), i64::try_from(y).unwrap_or(i64::MAX));
            let _ = writeln!(
                svg,
                "<path d=\"M{} {} L{x} {y} L{} {}\" fill=\"none\" stroke=\"#475569\" stroke-width=\"1.5\"/>",
                x - 4,
                y + back,
                x + 4,
                y + back,
            );
        }
    }
}

/// Text for content and attributes. Characters that XML forbids become the replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
