//! Prints a table that reads well on a terminal and pastes into Markdown.

use std::fmt::{self, Display};

use super::stats::Spread;

/// Rows below a head. The first column is text, the others are numbers.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = lines().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(2)
            })
            .collect();
        for (index, row) in lines().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if column == 0 {
                    write!(f, "| {cell:<width$} ")?;
                } else {
                    write!(f, "| {cell:>width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let colon = if column == 0 { '-' } else { ':' };
                    write!(f, "|{:-<1$}{colon}", "", width + 1)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// `median (min–max)` with so many decimals, the value alone when there was one round; `–` when
/// nothing was measured.
pub(crate) fn cell(values: &[f64], decimals: usize) -> String {
    match Spread::of(values) {
        None => "–".to_owned(),
        Some(Spread { median, .. }) if values.len() == 1 => format!("{median:.decimals$}"),
        Some(Spread { min, median, max }) => {
            format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["what", "ms"]);
        table.row(vec!["last".to_owned(), cell(&[1.0, 3.0, 2.0], 1)]);
        table.row(vec!["none".to_owned(), cell(&[], 1)]);
        let expected = "\
            | what |            ms |\n\
            |------|--------------:|\n\
            | last | 2.0 (1.0–3.0) |\n\
            | none |             – |\n";
        assert_eq!(table.to_string(), expected);
        assert_eq!(cell(&[2.5], 1), "2.5");
    }
}
