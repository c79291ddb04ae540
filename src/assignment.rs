//! Who goes with whom: the one-to-one pairs of rows and columns that gain the most together.
//!
//! A leaf: gains come in, pairs leave, on the caller's thread. It imports nothing.

/// Finds the best pairs; keeps its memory from one call to the next.
///
/// It is the shortest augmenting path algorithm (Jonker and Volgenant 1987, "A shortest augmenting path algorithm for
/// dense and sparse linear assignment problems") on the pairs that gain anything, with the choice to leave a row alone. The
/// result is optimal. The work is at most in proportion to rows² × columns, and hardly more than to the number of such
/// pairs where few rows want the same column.
#[derive(Debug, Clone, Default)]
pub struct Solver {
    /// Column and gain of the pairs that gain anything, row by row, and where each row ends.
    pairs: Vec<(usize, f64)>,
    ends: Vec<usize>,
    /// By row: its column, and its dual price.
    mate: Vec<Option<usize>>,
    row_price: Vec<f64>,
    /// By column: its row, and its dual price.
    owner: Vec<Option<usize>>,
    column_price: Vec<f64>,
    /// In the search for one row, by column: length of the shortest path to it, and the row before it.
    reach: Vec<f64>,
    via: Vec<usize>,
    /// Columns that the search came to: those whose shortest path is known, and the others.
    done: Vec<usize>,
    open: Vec<usize>,
    is_done: Vec<bool>,
}

/// Where a shortest path ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// At a column that no row has.
    Free(usize),
    /// At a row that is better left alone.
    Alone(usize),
}

impl Solver {
    /// The column of each row, none where it is left alone. `gains` has one row of `columns` values after the other; pairs
    /// whose gain is not above zero, or not finite, are never made.
    ///
    /// The sum of the gains is the greatest there is. Of several such choices it is always the same one.
    pub fn solve(&mut self, columns: usize, gains: &[f64]) -> &[Option<usize>] {
        let rows = gains.len().checked_div(columns).unwrap_or(0);
        self.pairs.clear();
        self.ends.clear();
        for row in gains.chunks_exact(columns.max(1)) {
            let pairs = row.iter().copied().enumerate();
            self.pairs.extend(pairs.filter(|(_, gain)| *gain > 0.0 && gain.is_finite()));
            self.ends.push(self.pairs.len());
        }
        refill(&mut self.mate, rows, None);
        refill(&mut self.row_price, rows, 0.0);
        refill(&mut self.owner, columns, None);
        refill(&mut self.column_price, columns, 0.0);
        refill(&mut self.reach, columns, f64::INFINITY);
        refill(&mut self.via, columns, 0);
        refill(&mut self.is_done, columns, false);
        for row in 0..rows {
            let (end, length) = self.search(row);
            self.reprice(row, length);
            self.augment(row, end);
            for column in self.done.drain(..).chain(self.open.drain(..)) {
                self.reach[column] = f64::INFINITY;
                self.is_done[column] = false;
            }
        }
        &self.mate
    }

    /// The shortest path from `row` to an end, and its length. A pair costs its gain, negative, and being alone nothing.
    fn search(&mut self, row: usize) -> (End, f64) {
        let (mut current, mut travelled) = (row, 0.0);
        let (mut alone, mut lone_row) = (f64::INFINITY, row);
        loop {
            let to_alone = travelled - self.row_price[current];
            if to_alone < alone {
                (alone, lone_row) = (to_alone, current);
            }
            let start = current.checked_sub(1).map_or(0, |before| self.ends[before]);
            for &(column, gain) in &self.pairs[start..self.ends[current]] {
                let to_column = to_alone - gain - self.column_price[column];
                // A path that is no shorter than being alone leads nowhere.
                if !self.is_done[column] && to_column < self.reach[column] && to_column < alone {
                    if self.reach[column] == f64::INFINITY {
                        self.open.push(column);
                    }
                    (self.reach[column], self.via[column]) = (to_column, current);
                }
            }
            let nearest = (0..self.open.len()).min_by(|a, b| self.length(*a).total_cmp(&self.length(*b)));
            let Some(nearest) = nearest.filter(|nearest| self.length(*nearest) < alone) else {
                return (End::Alone(lone_row), alone);
            };
            let column = self.open.swap_remove(nearest);
            self.done.push(column);
            self.is_done[column] = true;
            match self.owner[column] {
                None => return (End::Free(column), self.reach[column]),
                Some(owner) => (current, travelled) = (owner, self.reach[column]),
            }
        }
    }

    /// Length of the shortest path known to an open column.
    fn length(&self, open: usize) -> f64 {
        self.reach[self.open[open]]
    }

    /// Changes the prices so that no pair is cheaper than its prices, and those on the path are exactly as dear.
    fn reprice(&mut self, row: usize, length: f64) {
        self.row_price[row] += length;
        for &column in &self.done {
            let saved = length - self.reach[column];
            self.column_price[column] -= saved;
            if let Some(owner) = self.owner[column] {
                self.row_price[owner] += saved;
            }
        }
    }

    /// Gives each row on the path the column behind it.
    fn augment(&mut self, row: usize, end: End) {
        let mut column = match end {
            End::Free(column) => column,
            End::Alone(lone) => match self.mate[lone].take() {
                Some(column) => column,
                None => return,
            },
        };
        loop {
            let taker = self.via[column];
            self.owner[column] = Some(taker);
            let given_up = self.mate[taker].replace(column);
            match given_up {
                Some(next) if taker != row => column = next,
                _ => return,
            }
        }
    }
}

fn refill<T: Clone>(values: &mut Vec<T>, count: usize, value: T) {
    values.clear();
    values.resize(count, value);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The greatest sum, by trying everything.
    fn best(columns: usize, gains: &[f64], taken: u32) -> f64 {
        if gains.is_empty() {
            return 0.0;
        }
        let (row, rest) = gains.split_at(columns);
        let pair = |(column, gain): (usize, &f64)| {
            (*gain > 0.0 && taken & (1 << column) == 0).then(|| gain + best(columns, rest, taken | (1 << column)))
        };
        row.iter().enumerate().filter_map(pair).fold(best(columns, rest, taken), f64::max)
    }

    #[test]
    fn the_best_pairs_are_not_those_that_are_best_one_by_one() {
        let gains = [9.0, 8.0, 8.0, 1.0];
        assert_eq!(Solver::default().solve(2, &gains), [Some(1), Some(0)]);
    }

    #[test]
    fn a_row_is_left_alone_where_its_pair_would_cost_others_more() {
        let gains = [5.0, -1.0, 0.0, 6.0, 7.0, f64::NAN, f64::NEG_INFINITY, 0.0];
        assert_eq!(Solver::default().solve(2, &gains), [None, Some(1), Some(0), None]);
        assert_eq!(Solver::default().solve(1, &[2.0, 3.0]), [None, Some(0)]);
        assert_eq!(Solver::default().solve(0, &[]), []);
    }

    proptest! {
        #[test]
        fn nothing_gains_more(
            columns in 1usize..6,
            mut gains in prop::collection::vec(prop_oneof![3 => 0.0..10.0, 1 => -5.0..0.0, 1 => Just(3.0)], 0..36),
        ) {
            gains.truncate(gains.len() / columns * columns);
            let mut solver = Solver::default();
            let mates = solver.solve(columns, &gains).to_vec();
            let mut taken: Vec<_> = mates.iter().flatten().collect();
            let pairs = taken.len();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), pairs, "a column has one row");
            let gain = |(row, mate): (usize, &Option<usize>)| mate.map(|column| gains[row * columns + column]);
            let sum: f64 = mates.iter().enumerate().filter_map(gain).sum();
            prop_assert!(mates.iter().enumerate().filter_map(gain).all(|gain| gain > 0.0));
            prop_assert!((sum - best(columns, &gains, 0)).abs() < 1e-9);
            prop_assert_eq!(solver.solve(columns, &gains), mates);
        }
    }
}
