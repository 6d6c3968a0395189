//! Plots of a report, as SVG and PNG: one of each scenario's figures with their confidence
//! intervals, and one of all ratios.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::process::Result;
use crate::report::{Report, Row, ScenarioReport};
use crate::scenario::Better;
use crate::stats::Estimate;

/// From the distribution's package fonts-dejavu-core; read when plotting, so that neither
/// fontconfig nor an embedded font is needed.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
const FAMILY: &str = "sans-serif";
const WIDTH: u32 = 900;
const LINE_HEIGHT: u32 = 34;
const TRAMA_COLOUR: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const PEER_COLOUR: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const CEILING_COLOUR: RGBColor = RGBColor(0xd6, 0x27, 0x28);

/// One bar of a plot.
struct Bar {
    label: String,
    value: Estimate,
    colour: RGBColor,
}

/// Writes all plots of `report` into `folder`; returns their paths.
pub(crate) fn plot(report: &Report, folder: &Path) -> Result<Vec<PathBuf>> {
    check_output(folder)?;
    let mut written = Vec::new();
    for scenario in &report.scenarios {
        let bars = bars_of(scenario);
        let title = format!("{} ({})", scenario.title, scenario.unit);
        let limit = scenario.ceiling.as_ref().and_then(|row| row.value).map(|v| v.median);
        draw_svg_and_png(folder, &scenario.label(), &title, &bars, limit, &mut written)?;
    }
    let ratios: Vec<Bar> = report.scenarios.iter().flat_map(ratios_of).collect();
    let title = "trama / peer (above 1: trama is better)";
    draw_svg_and_png(folder, "ratios", title, &ratios, Some(1.0), &mut written)?;
    Ok(written)
}

/// Creates the folder and checks that plots can be written there.
pub(crate) fn check_output(folder: &Path) -> Result<()> {
    load_font()?;
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

fn load_font() -> Result<()> {
    let remedy = "install the package fonts-dejavu-core, or run scripts/install.sh bench";
    let bytes = fs::read(FONT).map_err(|e| format!("plots need {FONT}: {e}; {remedy}"))?;
    // The library keeps a font until the program ends.
    register_font(FAMILY, FontStyle::Normal, Box::leak(bytes.into_boxed_slice()))
        .map_err(|_| format!("{FONT} is not a font; {remedy}"))
}

fn bars_of(scenario: &ScenarioReport) -> Vec<Bar> {
    let bar = |(i, row): (usize, &Row)| {
        let note = if row.generator_bound { " (generator)" } else { "" };
        let colour = if i == 0 { TRAMA_COLOUR } else { PEER_COLOUR };
        Some(Bar { label: format!("{}{note}", row.peer), value: row.value?, colour })
    };
    scenario.rows.iter().enumerate().filter_map(bar).collect()
}

/// Returns the ratios as bars, inverted where needed so that longer is better.
fn ratios_of(scenario: &ScenarioReport) -> Vec<Bar> {
    let bar = |row: &Row| {
        let e = row.ratio.as_ref()?.estimate;
        let value = match scenario.better {
            Better::Higher => e,
            Better::Lower => {
                Estimate { median: 1.0 / e.median, low: 1.0 / e.high, high: 1.0 / e.low, ..e }
            }
        };
        Some(Bar {
            label: format!("{} / {}", scenario.label(), row.peer),
            value,
            colour: TRAMA_COLOUR,
        })
    };
    scenario.rows.iter().filter_map(bar).filter(|bar| bar.value.high.is_finite()).collect()
}

fn draw_svg_and_png(
    folder: &Path,
    name: &str,
    title: &str,
    bars: &[Bar],
    limit: Option<f64>,
    written: &mut Vec<PathBuf>,
) -> Result<()> {
    if bars.is_empty() {
        return Ok(());
    }
    let size = (WIDTH, LINE_HEIGHT * bars.len() as u32 + 110);
    let (svg, png) = (folder.join(format!("{name}.svg")), folder.join(format!("{name}.png")));
    let describe = |path: &Path, e: String| format!("{}: {e}", path.display());
    draw(&SVGBackend::new(&svg, size).into_drawing_area(), title, bars, limit)
        .map_err(|e| describe(&svg, e))?;
    draw(&BitMapBackend::new(&png, size).into_drawing_area(), title, bars, limit)
        .map_err(|e| describe(&png, e))?;
    written.extend([svg, png]);
    Ok(())
}

/// Draws horizontal bars from zero, the first on top, each with its interval and its value.
fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    bars: &[Bar],
    limit: Option<f64>,
) -> std::result::Result<(), String> {
    let failed = |e: DrawingAreaErrorKind<B::ErrorType>| e.to_string();
    area.fill(&WHITE).map_err(failed)?;
    let largest = bars.iter().map(|bar| bar.value.high).chain(limit).fold(0.0, f64::max);
    let span = if largest > 0.0 { largest * 1.12 } else { 1.0 };
    let count = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FAMILY, 17))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..span, 0.0..count)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_labels(8)
        .label_style((FAMILY, 13))
        .draw()
        .map_err(failed)?;
    for (i, bar) in bars.iter().enumerate() {
        let middle = count - 0.5 - i as f64;
        let Estimate { median, low, high, .. } = bar.value;
        let body =
            Rectangle::new([(0.0, middle - 0.3), (median, middle + 0.3)], bar.colour.filled());
        let whisker = PathElement::new([(low, middle), (high, middle)], BLACK.stroke_width(2));
        let text =
            Text::new(format!("{median:.2}"), (high + span * 0.01, middle + 0.2), (FAMILY, 13));
        chart.draw_series([body]).map_err(failed)?;
        chart.draw_series([whisker]).map_err(failed)?;
        chart.draw_series([text]).map_err(failed)?;
        let (_, y) = chart.backend_coord(&(0.0, middle));
        area.draw(&Text::new(bar.label.clone(), (16, y - 7), (FAMILY, 13))).map_err(failed)?;
    }
    if let Some(limit) = limit {
        let line = PathElement::new([(limit, 0.0), (limit, count)], CEILING_COLOUR.stroke_width(1));
        chart.draw_series([line]).map_err(failed)?;
    }
    area.present().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_times_advantage_is_the_inverse_of_its_ratio() {
        let report = report(Better::Lower, &[1.0, 2.0, 4.0], &[4.0, 4.0, 4.0]);
        let bars = ratios_of(&report.scenarios[0]);
        let Estimate { median, low, high, .. } = bars[0].value;
        assert_eq!((low, median, high), (1.0, 2.0, 4.0));
    }

    #[test]
    fn every_scenario_has_both_kinds_of_picture() {
        let folder = tempfile::tempdir().unwrap();
        let report = report(Better::Higher, &[1.0, 2.0, 4.0], &[4.0, 4.0, 4.0]);
        if !Path::new(FONT).exists() {
            assert!(plot(&report, folder.path()).unwrap_err().contains("fonts-dejavu-core"));
            return;
        }
        let written = plot(&report, folder.path()).unwrap();
        assert_eq!(written.len(), 4);
        let text = fs::read_to_string(folder.path().join("s.svg")).unwrap();
        assert!(text.contains("<svg") && text.contains("a scenario (Mpps)"));
        assert!(fs::read(folder.path().join("s.png")).unwrap().starts_with(b"\x89PNG"));
    }
}
