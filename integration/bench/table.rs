//! Tables in Markdown whose columns line up as text, too.

use std::fmt;

/// A head and rows below it.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// One more row; it has as many cells as the head.
    pub fn add(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "{cells:?}");
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                // Words to the left, numbers to the right.
                match column {
                    0 => write!(f, "| {cell:<0$} ", widths[0])?,
                    _ => write!(f, "| {cell:>0$} ", widths[column])?,
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width + 1);
                    match column {
                        0 => write!(f, "|{dashes}-")?,
                        _ => write!(f, "|{dashes}:")?,
                    }
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
