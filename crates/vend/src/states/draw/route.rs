//! Lines between two layers: where each leaves and arrives, and in which track it crosses over.

/// A line from the bottom of one layer to the top of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Columns.
    pub from: usize,
    pub to: usize,
    /// The horizontal part, counted from the layer above; `None` when the line is straight.
    pub track: Option<usize>,
}

/// Tracks that are tried for one line; beyond them lines may share one.
const TRACKS: usize = 64;

/// Gives each line (its column above and its column below) a track of its own where it would touch another.
pub fn tracks(ends: &[(usize, usize)]) -> (Vec<Line>, usize) {
    let mut order: Vec<usize> = (0..ends.len()).filter(|at| ends[*at].0 != ends[*at].1).collect();
    // Those that go right are done from the right, those that go left from the left: then they nest.
    order.sort_by_key(|at| {
        let (from, to) = ends[*at];
        if to > from {
            (0, usize::MAX - from)
        } else {
            (1, from)
        }
    });
    let mut lines: Vec<Line> = ends
        .iter()
        .map(|(from, to)| Line {
            from: *from,
            to: *to,
            track: None,
        })
        .collect();
    let mut placed: Vec<usize> = Vec::new();
    let mut used = 0;
    for at in order {
        let free = |track: &usize| placed.iter().all(|other| apart(ends[at], *track, &lines[*other]));
        let track = (0..TRACKS).find(free).unwrap_or(used.min(TRACKS));
        used = used.max(track + 1);
        lines[at].track = Some(track);
        placed.push(at);
    }
    (lines, used)
}

fn apart((from, to): (usize, usize), track: usize, other: &Line) -> bool {
    let Some(taken) = other.track else { return true };
    if taken == track {
        let (left, right) = (from.min(to), from.max(to));
        return right < other.from.min(other.to) || other.from.max(other.to) < left;
    }
    // A column in which one line arrives and another leaves: the one that leaves must turn first.
    (from != other.to || track < taken) && (to != other.from || taken < track)
}

/// `count` columns in a box from `left`, `width` wide, spread evenly and inside its corners.
pub fn ports(left: usize, width: usize, count: usize) -> Vec<usize> {
    (0..count)
        .map(|at| left + ((2 * at + 1) * width / (2 * count.max(1))).clamp(1, width.saturating_sub(2).max(1)))
        .collect()
}

/// The places next to their wishes that keep `room` between neighbours: the least sum of squared distances.
///
/// `room[i]` is how far `i + 1` must stay from `i`. Neighbours that would collide become one block, which takes the
/// mean of what they wish (pool adjacent violators).
pub fn spread(wishes: &[f64], weights: &[f64], room: &[f64]) -> Vec<f64> {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(wishes.len());
    // Sum of weighted wishes, sum of weights, members.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for (at, wish) in wishes.iter().enumerate() {
        offsets.push(offset);
        let weight = weights[at];
        let mut block = ((wish - offset) * weight, weight, 1);
        while let Some(last) = blocks.last().filter(|last| last.0 / last.1 >= block.0 / block.1) {
            block = (block.0 + last.0, block.1 + last.1, block.2 + last.2);
            blocks.pop();
        }
        blocks.push(block);
        offset += room.get(at).copied().unwrap_or_default();
    }
    let middles = blocks
        .iter()
        .flat_map(|(sum, weight, members)| std::iter::repeat_n(sum / weight, *members));
    middles
        .zip(offsets)
        .map(|(middle, offset)| middle + offset)
        .collect()
}
