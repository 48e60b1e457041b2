//! Medians and spreads of interleaved rounds, and the table they are shown in. Measures nothing itself.

use std::fmt::Write as _;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Nanoseconds, the median over the rounds.
    pub nanoseconds: f64,
    /// Median, least and greatest ratio to the baseline of the same round; `None` for a baseline.
    pub ratio: Option<[f64; 3]>,
}

/// A measurement beside its baseline, round by round.
#[derive(Clone, Debug, Default)]
pub struct Series {
    values: Vec<f64>,
    ratios: Vec<f64>,
}

impl Series {
    /// Adds a round.
    pub fn push(&mut self, value: f64, baseline: f64) {
        self.values.push(value);
        self.ratios.push(value / baseline);
    }

    /// The line of this series.
    pub fn figure(&self, what: &str) -> Figure {
        let [median, least, greatest] = spread(&self.ratios);
        Figure {
            what: what.to_owned(),
            nanoseconds: spread(&self.values)[0],
            ratio: Some([median, least, greatest]),
        }
    }
}

impl Figure {
    /// A baseline: no ratio.
    pub fn absolute(what: &str, values: &[f64]) -> Self {
        Self { what: what.to_owned(), nanoseconds: spread(values)[0], ratio: None }
    }
}

/// Median, least and greatest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1]]
}

/// The lines as a Markdown table.
pub fn table(title: &str, baseline: &str, figures: &[Figure]) -> String {
    let mut text =
        format!("## {title}\n\n| what | ns | ÷ {baseline} | least-greatest |\n|---|---:|---:|---:|\n");
    for figure in figures {
        let _ = match figure.ratio {
            Some([median, least, greatest]) => writeln!(
                text,
                "| {} | {:.0} | {median:.3} | {least:.3}-{greatest:.3} |",
                figure.what, figure.nanoseconds
            ),
            None => writeln!(text, "| {} | {:.0} | 1 | |", figure.what, figure.nanoseconds),
        };
    }
    text
}
