//! The tables of `enforcer top` as texts, for the screen and for paper. Owns columns and their words.

use super::super::print;
use super::sums::{Count, Report};

/// A table of texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// What it is about.
    pub title: &'static str,
    /// Heads of its columns; those that begin with a space are of numbers, and stand to the right.
    pub heads: &'static [&'static str],
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// True for a column of numbers.
    pub fn is_number(&self, column: usize) -> bool {
        self.heads[column].starts_with(' ')
    }

    /// Letters of the widest cell of a column.
    pub fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells.chain([self.heads[column].trim().len()]).max().unwrap_or(0)
    }
}

/// Workloads, refusals and names.
pub fn tables(report: &Report) -> [Table; 3] {
    let talkers = report.talkers.iter().map(|row| {
        let Count { flows, denied, would_deny, packets, bytes, .. } = row.count;
        let numbers = [flows, denied, would_deny, packets].map(|number| number.to_string());
        [vec![row.key.workload.clone()], numbers.to_vec(), vec![print::bytes(bytes)]].concat()
    });
    let denied = report.denied.iter().map(|row| {
        let key = &row.key;
        let by = key.rule.clone().unwrap_or_else(|| key.reason.clone());
        vec![
            key.source.clone(),
            key.destination.clone(),
            key.service.clone(),
            key.direction.clone(),
            row.count.flows.to_string(),
            by,
        ]
    });
    let names = report.names.iter().map(|row| {
        let numbers = [row.count.flows, row.count.denied].map(|number| number.to_string());
        let ends = vec![row.key.name.clone(), row.key.workload.clone()];
        [ends, numbers.to_vec(), vec![print::bytes(row.count.bytes)]].concat()
    });
    [
        Table {
            title: "Talkers",
            heads: &["workload", " flows", " denied", " would deny", " packets", " octets"],
            rows: talkers.collect(),
        },
        Table {
            title: "Denied",
            heads: &["source", "destination", "service", "direction", " flows", "by"],
            rows: denied.collect(),
        },
        Table {
            title: "Names",
            heads: &["name", "workload", " flows", " denied", " octets"],
            rows: names.collect(),
        },
    ]
}

/// What stands above the tables.
pub fn summary(report: &Report) -> String {
    match report.lost {
        0 => format!("{} records", report.records),
        lost => format!("{} records, {lost} missing", report.records),
    }
}

/// All tables, one under the other.
pub fn lines(report: &Report) -> String {
    let mut text = summary(report) + "\n";
    for table in tables(report) {
        text.push_str(&format!("\n{}\n", print::heading(table.title)));
        if table.rows.is_empty() {
            text.push_str("  none\n");
            continue;
        }
        let heads = table.heads.iter().map(|head| head.trim().to_owned()).collect();
        for row in [heads].iter().chain(&table.rows) {
            text.push_str(&line(&table, row));
        }
    }
    text
}

fn line(table: &Table, row: &[String]) -> String {
    let mut line = String::new();
    for (column, cell) in row.iter().enumerate() {
        let width = table.width(column);
        match table.is_number(column) {
            true => line.push_str(&format!("  {cell:>width$}")),
            false => line.push_str(&format!("  {cell:<width$}")),
        }
    }
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::sums::{Order, Sums, tests::example};
    use super::*;

    #[test]
    fn tables_stand_under_one_another() {
        let text = anstream::adapter::strip_str(&lines(&example().report(5, Order::Most))).to_string();
        let expected = "\
4 records, 3 missing

Talkers
  workload       flows  denied  would deny  packets    octets
  update/update      3       2           0       18  902.0 kB

Denied
  source         destination  service  direction  flows  by
  update/update  github.com   tcp/443  EGRESS         2  default/Tier default

Names
  name        workload       flows  denied    octets
  github.com  update/update      3       2  902.0 kB
";
        assert_eq!(text, expected);
    }

    #[test]
    fn where_nothing_was_seen_nothing_is_shown() {
        let text = anstream::adapter::strip_str(&lines(&Sums::default().report(5, Order::Most))).to_string();
        assert_eq!(text, "0 records\n\nTalkers\n  none\n\nDenied\n  none\n\nNames\n  none\n");
    }
}
