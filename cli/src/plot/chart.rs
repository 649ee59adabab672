//! One picture: lines against what is in flight.

use anyhow::anyhow;
use plotters::{
    coord::{
        combinators::{IntoLogRange, LogCoord},
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    prelude::*,
};

const SIZE: (u32, u32) = (960, 600);
const FONT: &str = "sans-serif";
const TITLE: u32 = 30;
const TEXT: u32 = 20;
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(0, 130, 90),
    RGBColor(180, 110, 0),
    RGBColor(120, 60, 160),
    RGBColor(90, 90, 90),
];

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What the other axis shows, with its unit.
    pub(super) y: String,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
}

/// Of the axis that goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    Logarithmic,
}

impl Scale {
    /// Where there are no lines, as a rule: throughput rises and then stays, the
    /// logarithm of latency rises at the end.
    fn free_corner(self) -> SeriesLabelPosition {
        match self {
            Self::Linear => SeriesLabelPosition::UpperLeft,
            Self::Logarithmic => SeriesLabelPosition::LowerRight,
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    /// In flight, and a value.
    pub(super) points: Vec<(f64, f64)>,
}

impl Chart {
    /// The picture.
    ///
    /// # Errors
    ///
    /// When it cannot be drawn.
    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let most = values().fold(f64::MIN_POSITIVE, f64::max);
        match self.scale {
            Scale::Linear => self.draw(0.0..most * 1.15),
            Scale::Logarithmic => {
                let least = values().fold(most, f64::min).max(most / 1e6);
                self.draw((least / 1.5..most * 1.5).log_scale())
            }
        }
    }

    fn draw<Y>(&self, y: Y) -> anyhow::Result<String>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        self.draw_on(&area, y).map_err(|error| anyhow!("the chart cannot be drawn: {error}"))?;
        drop(area);
        Ok(text)
    }

    fn draw_on<Y, DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        y: Y,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .margin(20)
            .caption(&self.title, (FONT, TITLE))
            .x_label_area_size(60)
            .y_label_area_size(100)
            .build_cartesian_2d(self.in_flight(), y)?;
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.05))
            .bold_line_style(BLACK.mix(0.15))
            .x_desc("transactions in flight")
            .y_desc(&self.y)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .label_style((FONT, TEXT))
            .axis_desc_style((FONT, TEXT))
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let style = color.stroke_width(3);
            let series = LineSeries::new(line.points.iter().copied(), style).point_size(4);
            chart
                .draw_series(series)?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 25, y)], style));
        }
        chart
            .configure_series_labels()
            .position(self.scale.free_corner())
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.4))
            .legend_area_size(35)
            .label_font((FONT, TEXT))
            .draw()?;
        area.present()
    }

    fn in_flight(&self) -> LogCoord<f64> {
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(value, _)| *value);
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(1.0, f64::max));
        (least / 1.3..most * 1.3).log_scale().into()
    }
}

/// Whole where it is large, and with as many places as it needs where it is not.
fn number(value: f64) -> String {
    match value {
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}
