//! The picture as lines of text.

use unicode_width::UnicodeWidthChar as _;

use super::{
    layout::{Frame, Item, Line, Scene},
    status::{Statuses, Tint},
};

const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

/// By the directions in which lines leave a cell.
const STROKES: [char; 16] = [
    ' ', '│', '│', '│', '─', '┘', '┐', '┤', '─', '└', '┌', '├', '─', '┴', '┬', '┼',
];

#[derive(Clone, Copy)]
struct Spot {
    strokes: u8,
    /// `Some('\0')` is the right half of a wide character.
    letter: Option<char>,
    tint: Tint,
}

struct Grid {
    width: usize,
    spots: Vec<Spot>,
}

pub fn render(scene: &Scene, statuses: &Statuses, paint: impl Fn(Tint, &str) -> String) -> String {
    let empty = Spot {
        strokes: 0,
        letter: None,
        tint: Tint::None,
    };
    let mut grid = Grid {
        width: scene.width,
        spots: vec![empty; scene.width * scene.height],
    };
    for item in &scene.items {
        match item {
            Item::Box(frame) => grid.frame(frame, statuses.of(&frame.name)),
            Item::Dot { x, y, title, end } => {
                let text = format!("{} {title}", if *end { '◉' } else { '●' });
                grid.middle(*x, *y, &text);
            }
            Item::Label { x, y, title } => grid.middle(*x, *y, title),
            Item::Line(line) => grid.line(line),
        }
    }
    grid.lines(paint)
}

impl Grid {
    fn spot(&mut self, x: usize, y: usize) -> Option<&mut Spot> {
        if x >= self.width {
            return None;
        }
        self.spots.get_mut(y * self.width + x)
    }

    fn stroke(&mut self, x: usize, y: usize, strokes: u8) {
        if let Some(spot) = self.spot(x, y) {
            spot.strokes |= strokes;
        }
    }

    fn write(&mut self, mut x: usize, y: usize, text: &str, tint: Tint) {
        for letter in text.chars() {
            let width = letter.width().unwrap_or(0);
            for part in 0..width {
                if let Some(spot) = self.spot(x, y) {
                    spot.letter = Some(if part == 0 { letter } else { '\0' });
                    spot.tint = tint;
                }
                x += 1;
            }
        }
    }

    /// Text around a column.
    fn middle(&mut self, x: usize, y: usize, text: &str) {
        let width = text.chars().filter_map(|letter| letter.width()).sum::<usize>();
        self.write(x.saturating_sub(width / 2), y, text, Tint::None);
    }

    fn frame(&mut self, frame: &Frame, tint: Tint) {
        let (right, bottom) = (frame.x + frame.width - 1, frame.y + frame.height - 1);
        for x in frame.x..=right {
            let sides = if x > frame.x { LEFT } else { 0 } | if x < right { RIGHT } else { 0 };
            self.stroke(x, frame.y, sides);
            self.stroke(x, bottom, sides);
        }
        for y in frame.y..=bottom {
            let sides = if y > frame.y { UP } else { 0 } | if y < bottom { DOWN } else { 0 };
            self.stroke(frame.x, y, sides);
            self.stroke(right, y, sides);
        }
        self.write(frame.x + 2, frame.y, &format!(" {} ", frame.kind), Tint::None);
        if frame.outer {
            self.write(frame.x + 2, frame.y + 1, &frame.title, tint);
        } else {
            let width: usize = frame.title.chars().filter_map(|letter| letter.width()).sum();
            self.write(
                frame.x + (frame.width - width.min(frame.width)) / 2,
                frame.y + 1,
                &frame.title,
                tint,
            );
        }
    }

    fn line(&mut self, line: &Line) {
        for pair in line.points.windows(2) {
            let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
            for x in x1.min(x2)..=x1.max(x2) {
                let sides = if x > x1.min(x2) { LEFT } else { 0 } | if x < x1.max(x2) { RIGHT } else { 0 };
                self.stroke(x, y1, sides);
            }
            for y in y1.min(y2)..=y1.max(y2) {
                let sides = if y > y1.min(y2) { UP } else { 0 } | if y < y1.max(y2) { DOWN } else { 0 };
                self.stroke(x2, y, sides);
            }
        }
        let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else {
            return;
        };
        self.stroke(first.0, first.1, UP);
        self.stroke(last.0, last.1, DOWN);
        if line.joined.0 && !line.up && first.1 > 0 {
            self.stroke(first.0, first.1 - 1, DOWN);
        }
        if line.joined.1 && !line.down {
            self.stroke(last.0, last.1 + 1, UP);
        }
        if line.up {
            self.write(first.0, first.1, "▲", Tint::None);
        }
        if line.down {
            self.write(last.0, last.1, "▼", Tint::None);
        }
    }

    fn lines(&self, paint: impl Fn(Tint, &str) -> String) -> String {
        let mut text = String::new();
        for row in self.spots.chunks(self.width.max(1)) {
            let mut line = String::new();
            let mut run = (Tint::None, String::new());
            for spot in row {
                let letter = spot.letter.unwrap_or(STROKES[usize::from(spot.strokes & 15)]);
                if letter == '\0' {
                    continue;
                }
                if spot.tint != run.0 {
                    line.push_str(&painted(&run, &paint));
                    run = (spot.tint, String::new());
                }
                run.1.push(letter);
            }
            line.push_str(&painted(&run, &paint));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn painted((tint, text): &(Tint, String), paint: impl Fn(Tint, &str) -> String) -> String {
    match tint {
        Tint::None => text.clone(),
        tint => paint(*tint, text),
    }
}
