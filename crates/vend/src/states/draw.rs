//! A state machine as a picture: SVG for documents and the console, box drawing for terminals.
//!
//! One layout serves both. It works in the cells of a terminal; SVG scales them. Everything here is a function of the
//! definition and of what a history says of its states; nothing is read or written.

mod graph;
mod layer;
mod layout;
mod route;
mod status;
mod svg;
mod text;

use serde_json::Value;

pub use status::{Statuses, Tint};

/// States and reasons that one drawing may show; beyond that nobody could read it.
pub const STATES: usize = 1_000;
/// Places where a long way passes a layer.
const JOINTS: usize = 20_000;

/// A definition cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the definition has no States")]
    Empty,
    #[error("the definition has more than {STATES} states and rules, or too many long ways")]
    Large,
}

/// Where everything is, in cells.
#[derive(Debug)]
pub struct Drawing {
    scene: layout::Scene,
}

impl Drawing {
    /// Lays a definition out. Definitions with problems are drawn as far as they make sense.
    ///
    /// # Errors
    /// There is nothing to draw, or too much.
    pub fn of(definition: &Value) -> Result<Self, Error> {
        let program = graph::program(definition)?;
        let scene = layout::scene(&program).ok_or(Error::Large)?;
        Ok(Self { scene })
    }

    /// Lines of box-drawing characters; `paint` colours the text of a box or of a label for a terminal.
    pub fn text(&self, statuses: &Statuses, paint: impl Fn(Tint, &str) -> String) -> String {
        text::render(&self.scene, statuses, paint)
    }

    /// A whole SVG document. Every text of the definition is escaped.
    pub fn svg(&self, statuses: &Statuses) -> String {
        svg::render(&self.scene, statuses)
    }
}

#[cfg(test)]
mod tests;
