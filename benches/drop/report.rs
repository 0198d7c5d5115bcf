//! The table, and what it looks like: Markdown, JSON and SVG.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Command};

use serde_json::json;

/// Whether more of it is better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

use Better::{Less, More};

/// A row: what it is called, its figure, its unit, floor and goal (the design's; see `benches/README.md`).
type Row = (&'static str, &'static str, &'static str, f64, f64, Better);

const ROWS: [Row; 17] = [
    (
        "reservations a second, one hot drop, 64 connections / pgbench, one transaction each, 32 clients, the same tables",
        "reservations / plain",
        "x",
        7.0,
        16.0,
        More,
    ),
    (
        "the same / pgbench, batches of 64 on one connection, the same tables",
        "reservations / batches",
        "x",
        0.2,
        0.5,
        More,
    ),
    ("p99 of a reserve, 64 connections", "p99 at 64", "ms", 15.0, 5.0, Less),
    ("p99 of a reserve, 256 connections", "p99 at 256", "ms", 40.0, 13.0, Less),
    (
        "p50 of a lone reserve / a lone single-statement transaction over the same driver, the same tables",
        "lone / statement",
        "x",
        2.0,
        1.2,
        Less,
    ),
    ("500 buyers on 50 pairs, last answer", "rush", "ms", 150.0, 50.0, Less),
    ("purchases a second / reservations a second", "purchases / reservations", "x", 0.7, 1.0, More),
    (
        "reservations a second with 1,000 subscribers / without",
        "reservations, 1,000 watching / none",
        "x",
        0.7,
        0.9,
        More,
    ),
    (
        "`drops` (10 drops, sizes, buyers, holds), the same query / fixed bytes of that size",
        "pages / bytes",
        "x",
        0.5,
        0.9,
        More,
    ),
    (
        "`drops`, a query never seen before / the same executed from memory",
        "new pages / memory",
        "x",
        0.5,
        1.0,
        More,
    ),
    (
        "update to the last of 1,000 subscribers / bare axum with the same buffers",
        "update / bare, 1,000",
        "x",
        2.5,
        1.1,
        Less,
    ),
    (
        "update to the last of 10,000 subscribers / bare axum with the same buffers",
        "update / bare, 10,000",
        "x",
        2.5,
        1.1,
        Less,
    ),
    ("messages a second to 10,000 subscribers / bare axum", "messages / bare", "x", 0.2, 1.0, More),
    ("server memory per idle subscriber", "memory per watcher", "KiB", 25.0, 8.0, Less),
    ("a lapsed hold can be had again after its deadline, p99", "lapse", "ms", 100.0, 50.0, Less),
    ("sold-out answers a second / mutation without a database", "sold out / mutation", "x", 0.5, 0.9, More),
    ("a document that kills a stock server is refused, the slowest", "refusal", "ms", 5.0, 5.0, Less),
];

/// Every figure of every round, by its name.
#[derive(Default)]
pub struct Figures(BTreeMap<&'static str, Vec<f64>>);

struct Summary {
    median: f64,
    least: f64,
    most: f64,
}

impl Figures {
    pub fn add(&mut self, name: &'static str, value: f64) {
        eprintln!("    {name}: {}", short(value));
        self.0.entry(name).or_default().push(value);
    }

    fn summary(&self, name: &str) -> Option<Summary> {
        let mut values = self.0.get(name)?.clone();
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        Some(Summary { median: values[values.len() / 2], least, most })
    }

    /// Writes everything into the folder; returns the rows that are below their floor.
    pub fn write(&self, folder: &Path) -> Vec<&'static str> {
        std::fs::create_dir_all(folder).unwrap();
        let mut missed = Vec::new();
        let mut table = String::from(
            "| figure | median | least to most | floor | goal | |\n|---|---:|---:|---:|---:|---|\n",
        );
        for (title, name, unit, floor, goal, better) in ROWS {
            let Some(Summary { median, least, most }) = self.summary(name) else { continue };
            let reaches = |mark: f64| if better == More { median >= mark } else { median <= mark };
            let verdict = match (reaches(floor), reaches(goal)) {
                (_, true) => "goal",
                (true, false) => "floor",
                (false, false) => "**below**",
            };
            if !reaches(floor) {
                missed.push(title);
            }
            let unit = if unit == "x" { "" } else { unit };
            let [median, least, most, floor, goal] = [median, least, most, floor, goal].map(short);
            writeln!(
                table,
                "| {title} | {median} {unit} | {least} to {most} | {floor} | {goal} | {verdict} |"
            )
            .unwrap();
        }
        let mut raw = String::from("| figure | median | least to most |\n|---|---:|---:|\n");
        for name in self.0.keys() {
            let Some(Summary { median, least, most }) = self.summary(name) else { continue };
            writeln!(raw, "| {name} | {} | {} to {} |", short(median), short(least), short(most)).unwrap();
        }
        let about = about();
        let text = format!(
            "# Results\n\nMade by `script/bench`: {about}.\n\n{table}\nWhat the ratios are made of (a second, or milliseconds):\n\n{raw}"
        );
        std::fs::write(folder.join("results.md"), text).unwrap();
        let all = json!({ "about": about, "figures": self.0 });
        std::fs::write(folder.join("results.json"), serde_json::to_string_pretty(&all).unwrap() + "\n")
            .unwrap();
        self.plots(folder);
        missed
    }

    fn plots(&self, folder: &Path) {
        let bars = |title: &str, unit: &str, rows: &[(&str, &str)]| {
            let found = rows.iter().filter_map(|(label, name)| Some((*label, self.summary(name)?)));
            bar_chart(title, unit, &found.collect::<Vec<_>>())
        };
        for (file, title, unit, rows) in [
            (
                "reservations.svg",
                "Reservations of one hot drop",
                "a second",
                &[
                    ("sneaker-drop, 64 connections", "reservations"),
                    ("sneaker-drop, 256 connections", "reservations at 256"),
                    ("the same server, batches of one", "reservations, batches of one"),
                    ("pgbench, one transaction each", "plain"),
                    ("pgbench, batches of 64", "batches"),
                ][..],
            ),
            (
                "latency.svg",
                "How long a reserve takes",
                "ms",
                &[
                    ("alone, p50", "lone reserve"),
                    ("64 at once, p50", "p50 at 64"),
                    ("64 at once, p99", "p99 at 64"),
                    ("256 at once, p50", "p50 at 256"),
                    ("256 at once, p99", "p99 at 256"),
                ],
            ),
            (
                "pages.svg",
                "Answers",
                "a second",
                &[
                    ("a page of ten drops", "pages"),
                    ("fixed bytes of its size, bare axum", "fixed bytes"),
                    ("a page in words never seen", "new pages"),
                    ("the same, bare async-graphql", "executed from memory"),
                    ("sold out", "sold out"),
                    ("a mutation, bare async-graphql", "mutation without a database"),
                ],
            ),
            (
                "updates.svg",
                "Until the last open page knows",
                "ms",
                &[
                    ("1,000 pages", "update to 1,000"),
                    ("1,000 sockets, bare axum", "broadcast to 1,000"),
                    ("10,000 pages", "update to 10,000"),
                    ("10,000 sockets, bare axum", "broadcast to 10,000"),
                ],
            ),
        ] {
            std::fs::write(folder.join(file), bars(title, unit, rows)).unwrap();
        }
    }
}

/// Horizontal bars with the spread of the rounds as a line. Legible on light and on dark.
fn bar_chart(title: &str, unit: &str, rows: &[(&str, Summary)]) -> String {
    let most = rows.iter().map(|(_, summary)| summary.most).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = 56 + 34 * rows.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"14\">\n<title>{title}, {unit}</title>\n\
         <style>text{{fill:#1f2328}}.l{{stroke:#1f2328}}.o{{fill:#0b7a75}}.p{{fill:#9aa4ad}}\n\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.l{{stroke:#e6edf3}}.o{{fill:#2fb3a8}}.p{{fill:#6e7781}}}}</style>\n\
         <text x=\"8\" y=\"24\" font-size=\"16\" font-weight=\"600\">{title} <tspan font-weight=\"400\">({unit}; median, line: least to most)</tspan></text>\n"
    );
    for (place, (label, Summary { median, least, most: longest })) in rows.iter().enumerate() {
        let y = 44 + 34 * place;
        let x = |value: &f64| 270.0 + 400.0 * value / most;
        let class = if label.contains("bare") || label.contains("pgbench") { "p" } else { "o" };
        let (middle, text) = (y + 12, y + 17);
        writeln!(
            svg,
            "<text x=\"262\" y=\"{text}\" text-anchor=\"end\">{label}</text>\
             <rect class=\"{class}\" x=\"270\" y=\"{y}\" width=\"{:.1}\" height=\"24\" rx=\"2\"/>\
             <path class=\"l\" d=\"M{:.1} {middle}H{:.1}\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{text}\">{}</text>",
            x(median) - 270.0,
            x(least),
            x(longest),
            x(longest) + 8.0,
            short(*median)
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

fn short(value: f64) -> String {
    match value.abs() {
        0.0..0.095 => format!("{value:.3}"),
        0.095..9.95 => format!("{value:.2}"),
        9.95..1_000.0 => format!("{value:.0}"),
        _ => {
            let digits = format!("{value:.0}");
            let (front, back) = digits.split_at(digits.len() - 3);
            format!("{front},{back}")
        }
    }
}

/// The machine and the code.
fn about() -> String {
    let first = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let line = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found =
            text.lines().find_map(|line| Some(line.strip_prefix(key)?.split_once(':')?.1.trim().to_owned()));
        found.unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "commit {}, {}, {cores} processors shared by server, PostgreSQL and load ({}), {} of memory, Linux {}, {}",
        first("git", &["rev-parse", "--short", "HEAD"]),
        chrono::Utc::now().format("%Y-%m-%d"),
        line("/proc/cpuinfo", "model name"),
        line("/proc/meminfo", "MemTotal"),
        first("uname", &["-r"]),
        first("psql", &["--version"]),
    )
}
