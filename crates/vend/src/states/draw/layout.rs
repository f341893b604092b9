//! Where everything goes, in cells: the second half of a layered layout, branches inside their states.

use unicode_width::UnicodeWidthStr as _;

use super::{
    graph::{Kind, Node, Program},
    layer::{self, Cell, Layers, Tip},
    route,
};

/// Free columns between neighbours in a layer, and between branches.
const GAP: usize = 3;
/// Sweeps over the layers that bring nodes near their neighbours.
const SWEEPS: usize = 8;

/// Everything that is painted, in this order.
#[derive(Debug, Default)]
pub struct Scene {
    pub width: usize,
    pub height: usize,
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Box(Frame),
    /// The start or the end of the machine.
    Dot {
        x: usize,
        y: usize,
        title: String,
        end: bool,
    },
    /// Why a way is taken; it stands on the way, around its column.
    Label {
        x: usize,
        y: usize,
        title: String,
    },
    Line(Line),
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
    pub kind: String,
    pub name: String,
    pub title: String,
    /// There are branches in it.
    pub outer: bool,
}

/// A polyline of vertical and horizontal parts, top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub points: Vec<(usize, usize)>,
    /// A border of a state starts, or ends, the line: they are joined.
    pub joined: (bool, bool),
    pub up: bool,
    pub down: bool,
}

/// `None` when there is too much to lay out.
pub fn scene(program: &Program) -> Option<Scene> {
    block(program)
}

struct Sized {
    width: usize,
    height: usize,
    inside: Vec<Scene>,
}

fn block(program: &Program) -> Option<Scene> {
    let layers = layer::layers(program)?;
    let sizes: Vec<Sized> = program.nodes.iter().map(size).collect::<Option<_>>()?;
    let width = |cell: usize| match layers.cells[cell] {
        Cell::Node(node) => sizes[node].width,
        Cell::Joint => 1,
    };
    let widths: Vec<usize> = (0..layers.cells.len()).map(width).collect();
    let centers = centers(&layers, &widths);
    let mut placed = Placed {
        program,
        layers: &layers,
        sizes: &sizes,
        widths: &widths,
        centers: &centers,
        scene: Scene::default(),
    };
    placed.rows();
    Some(placed.scene)
}

/// Widths are odd, so that each box has a middle column.
fn size(node: &Node) -> Option<Sized> {
    let title = node.title.width();
    let inside: Vec<Scene> = node.inside.iter().map(block).collect::<Option<_>>()?;
    let (width, height) = match &node.kind {
        Kind::State(kind) => {
            let branches: usize = inside.iter().map(|scene| scene.width + GAP).sum();
            let highest = inside.iter().map(|scene| scene.height).max();
            let width =
                (title + 4)
                    .max(kind.width() + 6)
                    .max(if inside.is_empty() { 0 } else { branches + GAP });
            (width, highest.map_or(3, |highest| highest + 3))
        }
        Kind::Start | Kind::End | Kind::Label => (title + 2, 1),
    };
    Some(Sized {
        width: width | 1,
        height,
        inside,
    })
}

/// The middle column of every cell.
fn centers(layers: &Layers, widths: &[usize]) -> Vec<usize> {
    let mut near = [vec![Vec::new(); widths.len()], vec![Vec::new(); widths.len()]];
    for link in &layers.links {
        near[0][link.lower].push(link.upper);
        near[1][link.upper].push(link.lower);
    }
    let mut at = vec![0.0_f64; widths.len()];
    for sweep in 0..=SWEEPS {
        let count = layers.rows.len();
        for step in 0..count {
            let down = sweep % 2 == 0;
            let row = &layers.rows[if down { step } else { count - 1 - step }];
            let wish = |cell: &usize| {
                let others = &near[usize::from(!down)][*cell];
                match others.len() {
                    0 => at[*cell],
                    many => others.iter().map(|other| at[*other]).sum::<f64>() / many as f64,
                }
            };
            let wishes: Vec<f64> = row.iter().map(wish).collect();
            let weight = |cell: &usize| {
                if layers.cells[*cell] == Cell::Joint {
                    4.0
                } else {
                    1.0
                }
            };
            let weights: Vec<f64> = row.iter().map(weight).collect();
            let room = |pair: &[usize]| (widths[pair[0]] / 2 + widths[pair[1]] / 2 + 1 + GAP) as f64;
            let room: Vec<f64> = row.windows(2).map(room).collect();
            for (cell, place) in row.iter().zip(route::spread(&wishes, &weights, &room)) {
                at[*cell] = place;
            }
        }
    }
    let left = at
        .iter()
        .zip(widths)
        .map(|(at, width)| at.round() - (width / 2) as f64);
    let least = left.fold(f64::MAX, f64::min);
    at.iter()
        .map(|at| (at.round() - least).max(0.0) as usize)
        .collect()
}

struct Placed<'a> {
    program: &'a Program,
    layers: &'a Layers,
    sizes: &'a [Sized],
    widths: &'a [usize],
    centers: &'a [usize],
    scene: Scene,
}

impl Placed<'_> {
    fn rows(&mut self) {
        let mut y = 0;
        for (at, row) in self.layers.rows.iter().enumerate() {
            let height = row.iter().map(|cell| self.height(*cell)).max().unwrap_or(1);
            for cell in row {
                self.cell(*cell, y, height);
            }
            y += height;
            let below = self.layers.rows.get(at + 1);
            let next = below.map_or(0, |row| {
                row.iter().map(|cell| self.height(*cell)).max().unwrap_or(1)
            });
            y += self.channel(row, y, height, next);
        }
        self.scene.height = y;
        let rights = self
            .centers
            .iter()
            .zip(self.widths)
            .map(|(center, width)| center + width / 2 + 1);
        self.scene.width = rights.max().unwrap_or(0);
        // Boxes first: lines join their borders.
        self.scene.items.sort_by_key(|item| matches!(item, Item::Line(_)));
    }

    fn height(&self, cell: usize) -> usize {
        match self.layers.cells[cell] {
            Cell::Node(node) => self.sizes[node].height,
            Cell::Joint => 1,
        }
    }

    fn left(&self, cell: usize) -> usize {
        self.centers[cell] - self.widths[cell] / 2
    }

    fn is_box(&self, cell: usize) -> bool {
        matches!(self.layers.cells[cell], Cell::Node(node) if matches!(self.program.nodes[node].kind, Kind::State(_)))
    }

    fn has_tip(&self, cell: usize) -> bool {
        matches!(self.layers.cells[cell], Cell::Node(node) if self.program.nodes[node].kind != Kind::Label)
    }

    fn cell(&mut self, cell: usize, top: usize, row: usize) {
        let (x, y) = (self.left(cell), top + (row - self.height(cell)) / 2);
        let Cell::Node(number) = self.layers.cells[cell] else {
            let line = Line {
                points: vec![(x, top), (x, top + row - 1)],
                joined: (false, false),
                up: false,
                down: false,
            };
            self.scene.items.push(Item::Line(line));
            return;
        };
        let (node, size) = (&self.program.nodes[number], &self.sizes[number]);
        let title = node.title.clone();
        match &node.kind {
            Kind::Start => self.scene.items.push(Item::Dot {
                x: self.centers[cell],
                y,
                title,
                end: false,
            }),
            Kind::End => self.scene.items.push(Item::Dot {
                x: self.centers[cell],
                y,
                title,
                end: true,
            }),
            Kind::Label => self.scene.items.push(Item::Label {
                x: self.centers[cell],
                y,
                title,
            }),
            Kind::State(kind) => self.state(node, kind, size, (x, y)),
        }
    }

    /// A state, and the branches in it side by side.
    fn state(&mut self, node: &Node, kind: &str, size: &Sized, (x, y): (usize, usize)) {
        self.scene.items.push(Item::Box(Frame {
            x,
            y,
            width: size.width,
            height: size.height,
            kind: kind.to_owned(),
            name: node.name.clone(),
            title: node.title.clone(),
            outer: !size.inside.is_empty(),
        }));
        let branches: usize = size.inside.iter().map(|scene| scene.width + GAP).sum();
        let mut left = x + (size.width - branches.min(size.width) + GAP) / 2;
        for scene in &size.inside {
            let items = scene.items.iter().map(|item| moved(item, left, y + 2));
            self.scene.items.extend(items);
            left += scene.width + GAP;
        }
    }

    /// The lines from `row` to the next; returns how many rows of cells they need.
    fn channel(&mut self, row: &[usize], y: usize, height: usize, next: usize) -> usize {
        let mut links: Vec<_> = self
            .layers
            .links
            .iter()
            .filter(|link| row.contains(&link.upper))
            .copied()
            .collect();
        if links.is_empty() {
            return 0;
        }
        links.sort_by_key(|link| (self.centers[link.upper], self.centers[link.lower]));
        let ends = self.ends(&links);
        let (lines, tracks) = route::tracks(&ends);
        let up = links
            .iter()
            .any(|link| link.tip == Tip::Up && self.has_tip(link.upper));
        let depth = usize::from(up) + tracks + 1;
        for (link, line) in links.iter().zip(lines) {
            let top = y - (height - self.height(link.upper)).div_ceil(2);
            let bottom = y + depth + (next - self.height(link.lower)) / 2;
            let mut points = vec![(line.from, top)];
            if let Some(track) = line.track {
                let turn = y + usize::from(up) + track;
                points.extend([(line.from, turn), (line.to, turn)]);
            }
            points.push((line.to, bottom - 1));
            self.scene.items.push(Item::Line(Line {
                points,
                joined: (self.is_box(link.upper), self.is_box(link.lower)),
                up: link.tip == Tip::Up && self.has_tip(link.upper),
                down: link.tip == Tip::Down && self.has_tip(link.lower),
            }));
        }
        depth
    }

    /// The columns at which each link leaves and arrives.
    fn ends(&self, links: &[layer::Link]) -> Vec<(usize, usize)> {
        let mut ends = vec![(0, 0); links.len()];
        for (at, link) in links.iter().enumerate() {
            let same: Vec<usize> = (0..links.len())
                .filter(|other| links[*other].upper == link.upper)
                .collect();
            let order = same.iter().position(|other| *other == at).unwrap_or(0);
            let ports = route::ports(self.left(link.upper), self.widths[link.upper], same.len());
            ends[at].0 = if same.len() == 1 {
                self.centers[link.upper]
            } else {
                ports[order]
            };
        }
        for (at, link) in links.iter().enumerate() {
            let mut same: Vec<usize> = (0..links.len())
                .filter(|other| links[*other].lower == link.lower)
                .collect();
            same.sort_by_key(|other| ends[*other].0);
            let order = same.iter().position(|other| *other == at).unwrap_or(0);
            let (left, width) = (self.left(link.lower), self.widths[link.lower]);
            let inner = left + 1..(left + width).saturating_sub(1);
            ends[at].1 = match same.len() {
                // A single line runs straight when it can.
                1 if self.is_box(link.lower) && inner.contains(&ends[at].0) => ends[at].0,
                1 => self.centers[link.lower],
                many => route::ports(left, width, many)[order],
            };
        }
        ends
    }
}

fn moved(item: &Item, dx: usize, dy: usize) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Box(Frame { x, y, .. }) | Item::Dot { x, y, .. } | Item::Label { x, y, .. } => {
            *x += dx;
            *y += dy;
        }
        Item::Line(line) => {
            for point in &mut line.points {
                *point = (point.0 + dx, point.1 + dy);
            }
        }
    }
    item
}
