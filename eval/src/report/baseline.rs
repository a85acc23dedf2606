//! The committed table of figures: one row per suite, system and kind, sorted, so that a diff shows what moved. It has
//! no timings, since these depend on the machine.

use std::collections::BTreeMap;

use super::Report;
use crate::stats::Value;

/// Columns, in order. Shares are in percent.
const HEADER: &str = "suite,system,kind,holes,compiles,compiles_low,compiles_high,exact,exact_low,exact_high,similar,\
                      similar_low,similar_high,bits_per_byte,bits_low,bits_high,saved,saved_low,saved_high";
const N_COLUMNS: usize = 19;
/// First column of compile success.
const COMPILES: usize = 4;
/// Holes, and compile success with its interval.
const HEADLINE: std::ops::Range<usize> = 3..COMPILES + 3;

/// The parsed table, written back byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// By suite, system and kind: the cells as they are written.
    rows: BTreeMap<[String; 3], Vec<String>>,
}

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// The file has another header.
    #[error("the first line is not the header of a baseline; write a new one with `eval --write-baseline`")]
    Header,
    /// A row has another number of cells, or a cell is not a number.
    #[error("line {line} of the baseline is no row of {N_COLUMNS} cells with figures from the fourth on")]
    Row {
        /// Line number, from 1.
        line: usize,
    },
    /// Two rows have the same suite, system and kind.
    #[error("line {line} of the baseline repeats a row")]
    Twice {
        /// Line number, from 1.
        line: usize,
    },
}

/// A row whose compile success or number of holes changed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Moved {
    /// The row's suite, system and kind.
    pub row: [String; 3],
    /// Compile success in percent, as committed; `None` for a new row.
    pub before: Option<Value>,
    /// Compile success in percent now; `None` where the report has no such row.
    pub after: Option<Value>,
}

impl Baseline {
    /// Parses the committed CSV.
    pub fn parse(text: &str) -> Result<Self, BaselineError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        if lines.next().is_none_or(|(_, header)| header.trim() != HEADER) {
            return Err(BaselineError::Header);
        }
        let mut rows = BTreeMap::new();
        for (at, line) in lines {
            let cells: Vec<String> = line.trim_end().split(',').map(str::to_owned).collect();
            let is_figure = |cell: &String| cell.is_empty() || cell.parse().is_ok_and(f64::is_finite);
            if cells.len() != N_COLUMNS || !cells[3..].iter().all(is_figure) {
                return Err(BaselineError::Row { line: at + 1 });
            }
            let key = [cells[0].clone(), cells[1].clone(), cells[2].clone()];
            if rows.insert(key, cells).is_some() {
                return Err(BaselineError::Twice { line: at + 1 });
            }
        }
        Ok(Self { rows })
    }

    /// The CSV to commit.
    pub fn text(&self) -> String {
        let rows = self.rows.values().map(|cells| cells.join(","));
        [HEADER.to_owned()].into_iter().chain(rows).map(|row| row + "\n").collect()
    }

    /// Replaces the rows of the report's suite.
    pub fn replace(&mut self, report: &Report) {
        self.rows.retain(|key, _| key[0] != cell(&report.suite));
        self.rows.extend(rows(report));
    }

    /// The rows of the report's suite that differ from the committed ones, in the table's order.
    pub fn moved(&self, report: &Report) -> Vec<Moved> {
        let after: BTreeMap<_, _> = rows(report).collect();
        let before = self.rows.iter().filter(|(key, _)| key[0] == cell(&report.suite));
        let before: BTreeMap<_, _> = before.collect();
        let mut keys: Vec<&[String; 3]> = before.keys().copied().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter()
            .filter(|key| {
                before.get(key).map(|cells| &cells[HEADLINE]) != after.get(*key).map(|cells| &cells[HEADLINE])
            })
            .map(|key| Moved {
                row: key.clone(),
                before: before.get(key).map(|cells| compiles(cells)),
                after: after.get(key).map(|cells| compiles(cells)),
            })
            .collect()
    }
}

fn rows(report: &Report) -> impl Iterator<Item = ([String; 3], Vec<String>)> {
    report.systems.iter().map(|system| {
        let kind = system.kind.map_or("all", |kind| kind.name());
        let key = [cell(&report.suite), cell(&system.name), cell(kind)];
        let shares = [Some(system.compile_success), Some(system.exact_match), Some(system.edit_similarity)];
        let figures = shares
            .into_iter()
            .map(|share| (share, 100.0, 2))
            .chain([(system.bits_per_byte, 1.0, 3), (Some(system.characters_saved), 100.0, 2)]);
        let mut cells = key.to_vec();
        cells.push(system.n.to_string());
        for (figure, scale, n_digits) in figures {
            let written = |figure: f64| format!("{:.n_digits$}", scale * figure);
            let Value { value, low, high } = figure.unwrap_or_default();
            cells.extend([value, low, high].map(|end| figure.map_or_else(String::new, |_| written(end))));
        }
        (key, cells)
    })
}

fn compiles(cells: &[String]) -> Value {
    let figure = |column: usize| cells[column].parse().unwrap_or_default();
    Value { value: figure(COMPILES), low: figure(COMPILES + 1), high: figure(COMPILES + 2) }
}

/// A name without characters that would break the CSV.
fn cell(name: &str) -> String {
    name.chars().map(|c| if c == ',' || c.is_control() { '_' } else { c }).collect()
}
