//! Plots as SVG files: series over time, and groups of bars.
//!
//! What is drawn is given as numbers and labels; nothing here knows what they mean.

use crate::error::BenchError;
use crate::report::figure;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::fmt::Display;
use std::path::Path;

const PHASE: &str = "plot";
const FONT: &str = "sans-serif";
const TIMELINE_PIXELS: (u32, u32) = (1000, 420);
/// Height of each of several timelines below each other.
const PANEL_HEIGHT: u32 = 240;
/// One group of bars; groups stand side by side, this many in a row.
const GROUP_PIXELS: (u32, u32) = (300, 200);
const GROUPS_IN_ROW: usize = 4;
const TITLE_PIXELS: u32 = 30;
/// Names of spans, a line of this height each row of so many.
const LEGEND_LINE_PIXELS: u32 = 20;
const LEGEND_COLUMNS: usize = 4;
/// A span is at least as wide as this share of the whole, to be seen.
const SPAN_SHARE_MIN: f64 = 1.0 / 400.0;
/// Height of the names below bars, as a part of the highest bar's.
const LABEL_SHARE: f64 = 0.15;
/// Told apart also by those who do not see red and green (Okabe and Ito's palette, without its yellow).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What lies behind lines is pale, so more colours can be told apart.
const SPAN_COLOURS: [RGBColor; 11] = [
    RGBColor(214, 39, 40),
    RGBColor(255, 187, 60),
    RGBColor(148, 103, 189),
    RGBColor(44, 160, 44),
    RGBColor(31, 119, 180),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(160, 165, 20),
    RGBColor(23, 190, 207),
    RGBColor(110, 110, 110),
    RGBColor(20, 20, 90),
];

/// A line of a timeline.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// Seconds and values, in order of time.
    pub points: Vec<(f64, f64)>,
}

/// A moment of a timeline at which something happened.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When, in seconds.
    pub at_seconds: f64,
    /// What.
    pub label: String,
}

/// Something that goes on for a while behind timelines; what is called the same has the same colour.
#[derive(Clone, Debug)]
pub struct Span {
    /// From when, in seconds.
    pub from_seconds: f64,
    /// Until when.
    pub until_seconds: f64,
    /// What.
    pub label: String,
}

/// A timeline.
#[derive(Clone, Debug)]
pub struct Timeline<'a> {
    /// Above it.
    pub title: &'a str,
    /// What the values are, with their unit.
    pub unit: &'a str,
    /// The lines.
    pub series: &'a [Series],
    /// Moments, as vertical lines.
    pub marks: &'a [Mark],
}

/// Some bars that are compared with each other.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What is compared, with its unit.
    pub title: String,
    /// A name and a value each.
    pub values: Vec<(String, f64)>,
}

/// Draws a timeline into a file.
///
/// # Errors
/// The file could not be written.
pub fn timeline(file: &Path, timeline: &Timeline<'_>) -> Result<(), BenchError> {
    let area = SVGBackend::new(file, TIMELINE_PIXELS).into_drawing_area();
    area.fill(&WHITE).map_err(fault)?;
    draw_timeline(&area, timeline, &[])?;
    area.present().map_err(fault)
}

/// Draws timelines of the same time below each other into a file, all of them before the same spans.
///
/// # Errors
/// The file could not be written.
pub fn timelines(file: &Path, timelines: &[Timeline<'_>], spans: &[Span]) -> Result<(), BenchError> {
    let labels = labels(spans);
    let legend_lines = u32::try_from(labels.len().div_ceil(LEGEND_COLUMNS)).expect("a few");
    let panels_height = PANEL_HEIGHT * u32::try_from(timelines.len()).expect("a few");
    let size = (TIMELINE_PIXELS.0, panels_height + (legend_lines + 1) * LEGEND_LINE_PIXELS);
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE).map_err(fault)?;
    let (panels, legend) = area.split_vertically(panels_height);
    for (panel, timeline) in panels.split_evenly((timelines.len().max(1), 1)).iter().zip(timelines) {
        draw_timeline(panel, timeline, spans)?;
    }
    draw_legend(&legend, &labels)?;
    area.present().map_err(fault)
}

/// Draws groups of bars into a file, and below them a timeline if there is one.
///
/// # Errors
/// The file could not be written.
pub fn bars(
    file: &Path,
    title: &str,
    groups: &[Bars],
    below: Option<&Timeline<'_>>,
) -> Result<(), BenchError> {
    let rows = groups.len().div_ceil(GROUPS_IN_ROW);
    let width = GROUP_PIXELS.0 * u32::try_from(GROUPS_IN_ROW).expect("a few");
    let bars_height = TITLE_PIXELS + GROUP_PIXELS.1 * u32::try_from(rows).expect("few groups");
    let height = bars_height + below.map_or(0, |_| TIMELINE_PIXELS.1);
    let area = SVGBackend::new(file, (width, height)).into_drawing_area();
    area.fill(&WHITE).map_err(fault)?;
    let (upper, lower) = area.split_vertically(bars_height);
    let upper = upper.titled(title, (FONT, 20)).map_err(fault)?;
    for (cell, group) in upper.split_evenly((rows.max(1), GROUPS_IN_ROW)).iter().zip(groups) {
        draw_bars(cell, group)?;
    }
    if let Some(timeline) = below {
        draw_timeline(&lower, timeline, &[])?;
    }
    area.present().map_err(fault)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw_timeline(area: &Area<'_>, timeline: &Timeline<'_>, spans: &[Span]) -> Result<(), BenchError> {
    let points = || timeline.series.iter().flat_map(|series| &series.points);
    let ends = points().map(|point| point.0).chain(timeline.marks.iter().map(|mark| mark.at_seconds));
    let ends = ends.chain(spans.iter().map(|span| span.until_seconds));
    let (end, top) = (greatest(ends), greatest(points().map(|point| point.1)) * 1.1);
    let mut chart = ChartBuilder::on(area)
        .caption(timeline.title, (FONT, 16))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(fault)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds").y_desc(timeline.unit).light_line_style(WHITE);
    mesh.draw().map_err(fault)?;
    let labels = labels(spans);
    let behind = spans.iter().map(|span| {
        let until = span.until_seconds.max(span.from_seconds + end * SPAN_SHARE_MIN).min(end);
        let colour = span_colour(&labels, &span.label).mix(0.3);
        Rectangle::new([(span.from_seconds, 0.0), (until, top)], colour.filled())
    });
    chart.draw_series(behind).map_err(fault)?;
    for (series, colour) in timeline.series.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(line).map_err(fault)?;
        let sample = move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2));
        drawn.label(&series.name).legend(sample);
    }
    for mark in timeline.marks {
        let (at, style) = (mark.at_seconds, BLACK.mix(0.5));
        let line = [PathElement::new([(at, 0.0), (at, top)], style)];
        chart.draw_series(line).map_err(fault)?;
        let label = [Text::new(mark.label.clone(), (at, top), (FONT, 12))];
        chart.draw_series(label).map_err(fault)?;
    }
    if timeline.series.len() > 1 {
        let mut labels = chart.configure_series_labels();
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).label_font((FONT, 13));
        labels.position(SeriesLabelPosition::UpperRight).draw().map_err(fault)?;
    }
    Ok(())
}

/// The names of spans, each once, as they first occur.
fn labels(spans: &[Span]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for span in spans {
        if !labels.contains(&span.label.as_str()) {
            labels.push(&span.label);
        }
    }
    labels
}

fn span_colour(labels: &[&str], label: &str) -> RGBColor {
    let at = labels.iter().position(|known| *known == label).unwrap_or(0);
    SPAN_COLOURS[at % SPAN_COLOURS.len()]
}

fn draw_legend(area: &Area<'_>, labels: &[&str]) -> Result<(), BenchError> {
    let width = TIMELINE_PIXELS.0 as i32 / LEGEND_COLUMNS as i32;
    for (at, label) in labels.iter().enumerate() {
        let x = 40 + (at % LEGEND_COLUMNS) as i32 * width;
        let y = 4 + (at / LEGEND_COLUMNS) as i32 * LEGEND_LINE_PIXELS as i32;
        let sample = Rectangle::new([(x, y), (x + 12, y + 12)], span_colour(labels, label).mix(0.3).filled());
        area.draw(&sample).map_err(fault)?;
        area.draw(&Text::new(*label, (x + 18, y), (FONT, 13))).map_err(fault)?;
    }
    Ok(())
}

fn draw_bars(area: &Area<'_>, group: &Bars) -> Result<(), BenchError> {
    let top = greatest(group.values.iter().map(|value| value.1)) * 1.2;
    let mut chart = ChartBuilder::on(area)
        .caption(&group.title, (FONT, 13))
        .margin(6)
        .build_cartesian_2d(0.0..group.values.len().max(1) as f64, -top * LABEL_SHARE..top)
        .map_err(fault)?;
    for (at, ((name, value), colour)) in group.values.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let left = at as f64;
        let bar = [Rectangle::new([(left + 0.15, 0.0), (left + 0.85, *value)], colour.filled())];
        chart.draw_series(bar).map_err(fault)?;
        let value_text = Text::new(figure(*value), (left + 0.15, value + top * 0.1), (FONT, 11));
        let name_text = Text::new(name.clone(), (left + 0.1, -top * 0.02), (FONT, 11));
        chart.draw_series([value_text, name_text]).map_err(fault)?;
    }
    Ok(())
}

fn fault(error: impl Display) -> BenchError {
    BenchError::Phase { phase: PHASE, reason: error.to_string() }
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    let greatest = values.fold(0.0, f64::max);
    if greatest > 0.0 { greatest } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Vec<Series>, Vec<Mark>) {
        let series = Series { name: "puts".to_owned(), points: vec![(0.0, 10.0), (1.0, 0.0), (2.0, 12.0)] };
        (vec![series.clone(), series], vec![Mark { at_seconds: 0.5, label: "leader <gone>".to_owned() }])
    }

    #[test]
    fn a_timeline_shows_its_lines_marks_and_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("timeline.svg");
        let (series, marks) = example();
        let drawn = Timeline { title: "writes", unit: "puts a second", series: &series, marks: &marks };
        timeline(&file, &drawn).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for text in ["writes", "puts a second", "leader &lt;gone&gt;", "<polyline", "</svg>"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
    }

    #[test]
    fn timelines_stand_before_the_same_spans_which_are_named_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("timelines.svg");
        let (series, marks) = example();
        let one = Timeline { title: "writes", unit: "puts a second", series: &series, marks: &marks };
        let other = Timeline { title: "slowest", unit: "ms", ..one.clone() };
        let span = |from_seconds, until_seconds, label: &str| Span {
            from_seconds,
            until_seconds,
            label: label.to_owned(),
        };
        let spans = [span(0.1, 0.1, "kill"), span(0.5, 1.0, "cut"), span(1.2, 1.4, "kill")];
        timelines(&file, &[one, other], &spans).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for (text, count) in [("\nkill\n", 1), ("\ncut\n", 1), ("writes", 1), ("slowest", 1)] {
            assert_eq!(svg.matches(text).count(), count, "{text:?} in {svg}");
        }
        let rectangles = svg.matches("opacity=\"0.3\" fill=\"#D62728\"").count();
        assert_eq!(rectangles, 2 * 2 + 1, "each kill in each timeline, and the legend: {svg}");
    }

    #[test]
    fn bars_stand_in_rows_with_a_timeline_below() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bars.svg");
        let group = |at: usize| Bars {
            title: format!("group {at}"),
            values: vec![("one".to_owned(), 1.5), ("other".to_owned(), 250.0)],
        };
        let groups: Vec<Bars> = (0..5).map(group).collect();
        let (series, marks) = example();
        let below = Timeline { title: "writes", unit: "puts a second", series: &series, marks: &marks };
        bars(&file, "all of them", &groups, Some(&below)).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for text in ["all of them", "group 4", "other", "1.50", "250", "writes"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        let height = TITLE_PIXELS + 2 * GROUP_PIXELS.1 + TIMELINE_PIXELS.1;
        assert!(svg.contains(&format!("height=\"{height}\"")));
    }

    #[test]
    fn nothing_to_draw_is_no_error_and_a_directory_that_is_not_there_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let empty = Timeline { title: "", unit: "", series: &[], marks: &[] };
        timeline(&directory.path().join("empty.svg"), &empty).unwrap();
        assert!(timeline(&directory.path().join("none/empty.svg"), &empty).is_err());
    }
}
