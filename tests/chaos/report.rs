//! What was tried, what was seen, and whether it may be.

use std::{fmt::Write as _, fs, process::ExitCode, time::Duration};

pub struct Report {
    seed: u64,
    /// Whether times are held to their bounds, and the results written down: not in a debug build beside other work.
    is_strict: bool,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    figures: Vec<Figure>,
    wrong: Vec<String>,
}

/// Something that was measured, and what it may be at most.
pub struct Figure {
    name: &'static str,
    value: String,
    passes: bool,
}

impl Figure {
    pub fn told(name: &'static str, value: impl ToString) -> Self {
        Self { name, value: value.to_string(), passes: true }
    }

    pub fn none(name: &'static str, value: u64) -> Self {
        Self { name, value: format!("{value} (none allowed)"), passes: value == 0 }
    }

    pub fn at_least(name: &'static str, value: usize, least: usize) -> Self {
        Self { name, value: value.to_string(), passes: value >= least }
    }

    pub fn at_most_bytes(name: &'static str, value: usize, most: usize) -> Self {
        let value_told = format!("{:.1} KiB (at most {})", value as f64 / 1_024.0, most / 1_024);
        Self { name, value: value_told, passes: value <= most }
    }

    pub fn at_most(name: &'static str, value: Duration, most: Duration) -> Self {
        Self { name, value: format!("{} (at most {})", show(value), show(most)), passes: value <= most }
    }
}

fn show(time: Duration) -> String {
    match time.as_millis() {
        0..10_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

impl Report {
    pub fn new(seed: u64, is_strict: bool) -> Self {
        eprintln!("chaos, CHAOS_SEED={seed}");
        Self { seed, is_strict, rows: Vec::new() }
    }

    pub fn add(&mut self, what: impl Into<String>, figures: Vec<Figure>, wrong: Vec<String>) {
        let row = Row { what: what.into(), figures, wrong };
        let figures: Vec<String> = row.figures.iter().map(|it| format!("{} {}", it.name, it.value)).collect();
        eprintln!("  {}: {}", row.what, figures.join(", "));
        for wrong in row.wrong.iter().take(20) {
            eprintln!("    WRONG: {wrong}");
        }
        for figure in row.figures.iter().filter(|figure| !figure.passes) {
            eprintln!(
                "    {}: {} is {}",
                if self.is_strict { "MISSED" } else { "slow" },
                figure.name,
                figure.value
            );
        }
        self.rows.push(row);
    }

    /// Whether something happened that must not; times do not count.
    pub fn has_failed(&self) -> bool {
        self.rows.iter().any(|row| !row.wrong.is_empty())
    }

    pub fn finish(self) -> ExitCode {
        let missed = |row: &Row| self.is_strict && row.figures.iter().any(|figure| !figure.passes);
        let bad = self.rows.iter().filter(|row| !row.wrong.is_empty() || missed(row)).count();
        if self.is_strict {
            let mut text = format!(
                "Seed {}. Times on two processors that servers, PostgreSQL, buyers and the checker \
                                    share.\n\n| what happened | seen | violations |\n|---|---|---:|\n",
                self.seed
            );
            for row in &self.rows {
                let figures: Vec<String> =
                    row.figures.iter().map(|it| format!("{} {}", it.name, it.value)).collect();
                writeln!(text, "| {} | {} | {} |", row.what, figures.join("; "), row.wrong.len()).unwrap();
            }
            fs::write("tests/chaos/results.md", text).unwrap();
        }
        eprintln!("{} scenarios, {bad} of them failed", self.rows.len());
        if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
