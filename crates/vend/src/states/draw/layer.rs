//! Which node stands in which layer, and in which order: the first half of a layered layout.
//!
//! Ways back are turned round for as long as the layers are found. A way over several layers gets a joint in each layer
//! between, so that in the end every link leads from one layer to the next.

use super::{
    JOINTS,
    graph::{Edge, Program},
};

/// Rounds of sorting; more change little.
const ROUNDS: usize = 8;

/// A place in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Node(usize),
    Joint,
}

/// From a cell of one layer to a cell of the next, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub upper: usize,
    pub lower: usize,
    /// The arrow, if one ends here: at the upper or at the lower end.
    pub tip: Tip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tip {
    None,
    Up,
    Down,
}

#[derive(Debug)]
pub struct Layers {
    pub cells: Vec<Cell>,
    /// Numbers of cells, from top to bottom and from left to right.
    pub rows: Vec<Vec<usize>>,
    pub links: Vec<Link>,
}

/// `None` when the ways are too many and too long.
pub fn layers(program: &Program) -> Option<Layers> {
    let back = ways_back(program);
    let forward: Vec<Edge> = program
        .edges
        .iter()
        .zip(&back)
        .map(|(edge, back)| match back {
            true => Edge {
                from: edge.to,
                to: edge.from,
            },
            false => *edge,
        })
        .collect();
    let ranks = ranks(program.nodes.len(), &forward);
    let mut layers = Layers {
        cells: (0..program.nodes.len()).map(Cell::Node).collect(),
        rows: vec![Vec::new(); ranks.iter().max().map_or(0, |most| most + 1)],
        links: Vec::new(),
    };
    for (node, rank) in ranks.iter().enumerate() {
        layers.rows[*rank].push(node);
    }
    for (edge, back) in forward.iter().zip(&back) {
        layers.connect(*edge, *back, &ranks);
        if layers.cells.len() > program.nodes.len() + JOINTS {
            return None;
        }
    }
    layers.sort();
    Some(layers)
}

/// Which edges lead back to a node that they come from; found without recursion.
fn ways_back(program: &Program) -> Vec<bool> {
    let mut out = vec![Vec::new(); program.nodes.len()];
    for (at, edge) in program.edges.iter().enumerate() {
        out[edge.from].push(at);
    }
    let mut back = vec![false; program.edges.len()];
    let (mut seen, mut open) = (vec![false; out.len()], vec![false; out.len()]);
    for root in 0..out.len() {
        if std::mem::replace(&mut seen[root], true) {
            continue;
        }
        open[root] = true;
        let mut stack = vec![(root, 0)];
        while let Some((node, next)) = stack.pop() {
            let Some(edge) = out[node].get(next) else {
                open[node] = false;
                continue;
            };
            stack.push((node, next + 1));
            let to = program.edges[*edge].to;
            if open[to] {
                back[*edge] = true;
            } else if !std::mem::replace(&mut seen[to], true) {
                open[to] = true;
                stack.push((to, 0));
            }
        }
    }
    back
}

/// The longest way to each node; there are no circles any more.
fn ranks(nodes: usize, edges: &[Edge]) -> Vec<usize> {
    let mut ranks = vec![0; nodes];
    let mut waiting = vec![0_usize; nodes];
    let mut out = vec![Vec::new(); nodes];
    for edge in edges {
        waiting[edge.to] += 1;
        out[edge.from].push(edge.to);
    }
    let mut queue: Vec<usize> = (0..nodes).filter(|node| waiting[*node] == 0).collect();
    while let Some(node) = queue.pop() {
        for to in &out[node] {
            ranks[*to] = ranks[*to].max(ranks[node] + 1);
            waiting[*to] -= 1;
            if waiting[*to] == 0 {
                queue.push(*to);
            }
        }
    }
    ranks
}

impl Layers {
    fn connect(&mut self, edge: Edge, back: bool, ranks: &[usize]) {
        let mut upper = edge.from;
        for row in ranks[edge.from] + 1..=ranks[edge.to] {
            let last = row == ranks[edge.to];
            let lower = if last {
                edge.to
            } else {
                self.cells.push(Cell::Joint);
                self.rows[row].push(self.cells.len() - 1);
                self.cells.len() - 1
            };
            let tip = match back {
                false if last => Tip::Down,
                true if upper == edge.from => Tip::Up,
                _ => Tip::None,
            };
            self.links.push(Link { upper, lower, tip });
            upper = lower;
        }
    }

    /// Puts each cell below, and then above, the middle of its neighbours.
    fn sort(&mut self) {
        let (mut above, mut below) = (
            vec![Vec::new(); self.cells.len()],
            vec![Vec::new(); self.cells.len()],
        );
        for link in &self.links {
            above[link.lower].push(link.upper);
            below[link.upper].push(link.lower);
        }
        let mut place = vec![0.0; self.cells.len()];
        for round in 0..ROUNDS {
            let down = round % 2 == 0;
            let count = self.rows.len();
            for step in 0..count {
                let row = &mut self.rows[if down { step } else { count - 1 - step }];
                for (at, cell) in row.iter().enumerate() {
                    place[*cell] = at as f64;
                }
                let neighbours = if down { &above } else { &below };
                let wish = |cell: usize| {
                    let places = neighbours[cell].iter().map(|other| place[*other]);
                    match neighbours[cell].len() {
                        0 => place[cell],
                        many => places.sum::<f64>() / many as f64,
                    }
                };
                let mut wishes: Vec<_> = row.iter().map(|cell| (wish(*cell), *cell)).collect();
                wishes.sort_by(|left, right| left.0.total_cmp(&right.0));
                *row = wishes.into_iter().map(|(_, cell)| cell).collect();
                for (at, cell) in row.iter().enumerate() {
                    place[*cell] = at as f64;
                }
            }
        }
    }
}
