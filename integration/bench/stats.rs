//! What is left of many measurements: a median with its bounds. Two things are compared by the
//! quotients of measurements that were taken one right after the other, so that a machine that is
//! slower for a while is slower for both.

/// A median with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of no values there is none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread { median, least, most })
    }

    /// Of the quotients of what was measured in the same turns. A turn whose divisor is zero says
    /// nothing about a ratio.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
        let turns = ours.iter().zip(theirs).filter(|&(_, &theirs)| theirs > 0.0);
        Spread::of(&turns.map(|(ours, theirs)| ours / theirs).collect::<Vec<f64>>())
    }
}
