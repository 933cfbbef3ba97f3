//! Figures, their bars, and how they are shown.

use crate::output::table;
use serde_json::{Value, json};

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bar {
    /// Ours over raw, at least.
    RatioAtLeast(f64),
    /// Ours, at least.
    AtLeast(f64),
    /// Ours, at most.
    AtMost(f64),
}

/// One measured figure beside its baseline.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    raw: Option<f64>,
    bar: Option<Bar>,
    note: String,
}

impl Figure {
    /// A figure without values.
    pub(super) fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, ours: f64::NAN, raw: None, bar: None, note: String::new() }
    }

    /// Sets what was measured.
    pub(super) fn ours(mut self, ours: f64) -> Self {
        self.ours = ours;
        self
    }

    /// Sets the baseline.
    pub(super) fn raw(mut self, raw: f64) -> Self {
        self.raw = Some(raw);
        self
    }

    /// Sets the bar.
    pub(super) fn bar(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    /// Says what the two columns are.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.raw.map(|raw| self.ours / raw)
    }

    /// Whether the bar is reached; `None` without one.
    pub(super) fn is_met(&self) -> Option<bool> {
        Some(match self.bar? {
            Bar::RatioAtLeast(bar) => self.ratio().is_some_and(|ratio| ratio >= bar),
            Bar::AtLeast(bar) => self.ours >= bar,
            Bar::AtMost(bar) => self.ours <= bar,
        })
    }

    /// The figure with stable fields.
    pub(super) fn json(&self) -> Value {
        let (kind, bar) = match self.bar {
            Some(Bar::RatioAtLeast(bar)) => (Some("ratioAtLeast"), Some(bar)),
            Some(Bar::AtLeast(bar)) => (Some("atLeast"), Some(bar)),
            Some(Bar::AtMost(bar)) => (Some("atMost"), Some(bar)),
            None => (None, None),
        };
        json!({
            "name": self.name, "unit": self.unit, "ours": self.ours, "raw": self.raw, "ratio": self.ratio(),
            "barKind": kind, "bar": bar, "isMet": self.is_met(), "note": self.note,
        })
    }

    fn row(&self) -> Vec<String> {
        let bar = match self.bar {
            Some(Bar::RatioAtLeast(bar)) => format!("ratio >= {bar}"),
            Some(Bar::AtLeast(bar)) => format!(">= {}", number(bar)),
            Some(Bar::AtMost(bar)) => format!("<= {}", number(bar)),
            None => "-".into(),
        };
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        let ratio = self.ratio().map(|ratio| if ratio < 100.0 { format!("{ratio:.2}") } else { number(ratio) });
        vec![
            self.name.into(),
            format!("{} {}", number(self.ours), self.unit),
            or_dash(self.raw.map(number)),
            or_dash(ratio),
            bar,
            met.into(),
            self.note.clone(),
        ]
    }
}

/// The table of all figures.
pub(super) fn text(figures: &[Figure]) -> String {
    let headings = ["figure", "ours", "raw", "ratio", "bar", "met", "what"];
    table(&headings, &figures.iter().map(Figure::row).collect::<Vec<_>>())
}

/// The middle of several measurements.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A number for people: thousands apart, decimals only where they matter.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_judged_on_what_it_names() {
        let figure = Figure::new("push", "records/s").ours(30.0).raw(100.0);
        assert_eq!(figure.is_met(), None);
        assert_eq!(figure.clone().bar(Bar::RatioAtLeast(0.3)).is_met(), Some(true));
        assert_eq!(figure.clone().bar(Bar::RatioAtLeast(0.31)).is_met(), Some(false));
        assert_eq!(figure.clone().bar(Bar::AtLeast(31.0)).is_met(), Some(false));
        assert_eq!(figure.bar(Bar::AtMost(30.0)).is_met(), Some(true));
        assert_eq!(Figure::new("none", "").bar(Bar::AtMost(1.0)).is_met(), Some(false));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0.5, 99.9, 100.4, 1_234_567.0].map(number), ["0.50", "99.90", "100", "1,234,567"]);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
