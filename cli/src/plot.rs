//! `dtc plot`.

mod chart;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::bench::{Latency, Point, Report};
use chart::{Chart, Line, Scale};

/// Draws results of `dtc bench --json` as SVG
///
/// throughput.svg has a line for each file, latency-NAME.svg the percentiles of one.
#[derive(Debug, clap::Parser)]
pub(crate) struct Args {
    /// Results of `dtc bench --json`; each line has its file's name, without the
    /// extension
    #[arg(required = true, value_name = "FILE")]
    results: Vec<PathBuf>,

    /// Folder for the pictures; created if missing
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// What a file says, and what it is called.
struct Named {
    name: String,
    report: Report,
}

type Percentile = (&'static str, fn(&Latency) -> u64);

const PERCENTILES: [Percentile; 4] = [
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p99_9),
];

/// Draws all pictures, and prints their names.
///
/// # Errors
///
/// When a file cannot be read or written, or two have the same name.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut all: Vec<Named> = Vec::new();
    for path in &args.results {
        let named = read(path)?;
        let twice = all.iter().any(|other| other.name == named.name);
        ensure!(!twice, "two files are called '{}'; give one another name", named.name);
        all.push(named);
    }
    fs::create_dir_all(&args.out)
        .with_context(|| format!("{} cannot be made (--out)", args.out.display()))?;
    draw(&throughput(&all), &args.out.join("throughput.svg"))?;
    for named in &all {
        draw(&latency(named), &args.out.join(format!("latency-{}.svg", named.name)))?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Named> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{shown} is not what dtc bench --json writes"))?;
    ensure!(!report.points.is_empty(), "{shown} has no points");
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Named { name, report })
}

fn draw(chart: &Chart, path: &Path) -> anyhow::Result<()> {
    fs::write(path, chart.svg()?)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn throughput(all: &[Named]) -> Chart {
    let line = |named: &Named| Line {
        name: format!("{} ({})", named.name, named.report.mode()),
        points: points(&named.report, |point| point.committed_per_second),
    };
    Chart {
        title: "Throughput".into(),
        y: "committed transactions per second".into(),
        scale: Scale::Linear,
        lines: all.iter().map(line).collect(),
    }
}

fn latency(named: &Named) -> Chart {
    let line = |(name, get): Percentile| Line {
        name: name.into(),
        points: points(&named.report, |point| get(&point.latency_us) as f64 / 1e3),
    };
    Chart {
        title: format!("Latency: {} ({})", named.name, named.report.mode()),
        y: "latency in milliseconds".into(),
        scale: Scale::Logarithmic,
        lines: PERCENTILES.map(line).into(),
    }
}

/// A value against what is in flight.
fn points(report: &Report, value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = report
        .medians()
        .into_iter()
        .map(|point| (f64::from(point.in_flight), value(point)))
        .collect();
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report;

    #[test]
    fn pictures_have_titles_units_and_a_line_for_each_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, points: &[(u32, f64)]| {
            let path = folder.path().join(name);
            fs::write(&path, serde_json::to_string(&report(points)).unwrap()).unwrap();
            path
        };
        let results = vec![
            write("first.json", &[(512, 9000.0), (8, 700.0), (64, 5000.0)]),
            write("alone.json", &[(64, 4000.0)]),
        ];
        let args = Args { results, out: folder.path().join("a/b") };
        run(&args).unwrap();
        let svg = |name: &str| fs::read_to_string(args.out.join(name)).unwrap();
        let throughput = svg("throughput.svg");
        for part in ["Throughput", "in flight", "per second", "first (stream)", "alone (stream)"] {
            assert!(throughput.contains(part), "{part}");
        }
        let latency = svg("latency-first.svg");
        for part in ["Latency: first (stream)", "milliseconds", "p50", "p90", "p99", "p99.9"] {
            assert!(latency.contains(part), "{part}");
        }
        assert!(svg("latency-alone.svg").ends_with("</svg>\n"));
    }

    #[test]
    fn a_file_that_cannot_be_drawn_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.json");
        let error = |results: Vec<PathBuf>| {
            let args = Args { results, out: folder.path().into() };
            format!("{:#}", run(&args).unwrap_err())
        };
        assert!(error(vec![file.clone()]).contains("some.json cannot be read"));
        fs::write(&file, "{}").unwrap();
        assert!(error(vec![file.clone()]).contains("some.json is not what dtc bench"));
        fs::write(&file, serde_json::to_string(&report(&[(8, 1.0)])).unwrap()).unwrap();
        assert!(error(vec![file.clone(), file]).contains("'some'"));
    }
}
