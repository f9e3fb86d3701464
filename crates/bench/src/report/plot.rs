//! Plots as inline SVG: nothing that a page would have to fetch.

use super::number;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
/// Room for the labels at the left and below.
const LEFT: f64 = 70.0;
const BELOW: f64 = 34.0;
const MARGIN: f64 = 12.0;
/// Points of a line; more would not be seen.
const POINTS_MAX: usize = 280;

/// Colours that are told apart also by those who see fewer; a server keeps its colour on all plots of a page.
pub const COLOURS: [&str; 6] = ["#767676", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// A line: its name, and its points.
pub struct Line<'a> {
    /// The server.
    pub name: &'a str,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// What stands at an axis, and how it is divided.
pub struct Axis<'a> {
    /// What it measures, with its unit.
    pub label: &'a str,
    /// By powers of ten.
    pub logarithmic: bool,
    /// Names in place of numbers, for x = 0, 1, 2 …
    pub names: &'a [&'a str],
}

impl<'a> Axis<'a> {
    /// Numbers from zero on.
    pub fn linear(label: &'a str) -> Axis<'a> {
        Axis { label, logarithmic: false, names: &[] }
    }

    /// Numbers by powers of ten.
    pub fn logarithmic(label: &'a str) -> Axis<'a> {
        Axis { label, logarithmic: true, names: &[] }
    }
}

/// An axis with its ends: from values to the share of its length.
struct Scale {
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    fn of(axis: &Axis<'_>, values: impl Iterator<Item = f64> + Clone) -> Scale {
        let greatest = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        if !axis.logarithmic {
            let to = if axis.names.is_empty() { greatest } else { (axis.names.len() - 1) as f64 };
            return Scale { logarithmic: false, from: 0.0, to };
        }
        let least = values.filter(|value| *value > 0.0).fold(greatest, f64::min);
        let (from, mut to) = (least.log10().floor(), greatest.log10().ceil());
        if to <= from {
            to = from + 1.0;
        }
        Scale { logarithmic: true, from, to }
    }

    fn share(&self, value: f64) -> f64 {
        let value = match self.logarithmic {
            true => value.max(f64::MIN_POSITIVE).log10(),
            false => value,
        };
        ((value - self.from) / (self.to - self.from).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            return (self.from as i32..=self.to as i32).map(|power| 10f64.powi(power)).collect();
        }
        let rough = self.to / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        (0..=4).map(|i| f64::from(i) * step).filter(|tick| *tick <= self.to * 1.001).collect()
    }
}

/// Text as it stands in a page.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Draws lines; each has the colour of its place.
pub fn lines(title: &str, x: &Axis<'_>, y: &Axis<'_>, lines: &[Line<'_>]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (across, up) = (Scale::of(x, all().map(|p| p.0)), Scale::of(y, all().map(|p| p.1)));
    let at_x = |value: f64| LEFT + across.share(value) * (WIDTH - LEFT - MARGIN);
    let at_y = |value: f64| HEIGHT - BELOW - up.share(value) * (HEIGHT - BELOW - MARGIN);
    let mut out = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title),
        escape(title)
    );
    let mut put = |text: String| out.push_str(&text);
    for tick in up.ticks() {
        let at = at_y(tick);
        put(format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - MARGIN,
            LEFT - 6.0,
            at + 4.0,
            number(tick)
        ));
    }
    let names = x.names.iter().enumerate().map(|(i, name)| (i as f64, escape(name)));
    let numbers = across.ticks().into_iter().map(|tick| (tick, number(tick)));
    let labels: Vec<(f64, String)> =
        if x.names.is_empty() { numbers.collect() } else { names.collect() };
    for (value, label) in labels {
        let (at, below) = (at_x(value), HEIGHT - BELOW + 14.0);
        put(format!("<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>\n"));
    }
    put(format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
        WIDTH - MARGIN,
        HEIGHT - 4.0,
        escape(x.label)
    ));
    put(format!("<text x=\"{}\" y=\"10\" class=\"unit\">{}</text>\n", LEFT + 4.0, escape(y.label)));
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let step = line.points.len().div_ceil(POINTS_MAX).max(1);
        let mut path = String::new();
        for piece in line.points.chunks(step) {
            // Of the points that one pixel stands for, the mean.
            let mean =
                |of: fn(&(f64, f64)) -> f64| piece.iter().map(of).sum::<f64>() / piece.len() as f64;
            let (px, py) = (at_x(mean(|p| p.0)), at_y(mean(|p| p.1)));
            path.push_str(&format!("{px:.1},{py:.1} "));
        }
        put(format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"><title>{}</title></polyline>\n",
            path.trim_end(),
            escape(line.name)
        ));
    }
    out.push_str("</svg></figure>\n");
    out
}

/// Draws a bar for each server, longest for the greatest.
pub fn bars(title: &str, unit: &str, bars: &[(&str, f64)]) -> String {
    const ROW: f64 = 26.0;
    let height = ROW * bars.len() as f64 + 8.0;
    let greatest = bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let mut out = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title),
        escape(title)
    );
    for (place, (name, value)) in bars.iter().enumerate() {
        let top = 4.0 + ROW * place as f64;
        let length = (value / greatest).clamp(0.0, 1.0) * (WIDTH - LEFT - 130.0);
        let colour = COLOURS[place % COLOURS.len()];
        out.push_str(&format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{} {}</text>\n",
            LEFT - 6.0,
            top + 14.0,
            escape(name),
            top,
            LEFT + length + 6.0,
            top + 14.0,
            number(*value),
            escape(unit)
        ));
    }
    out.push_str("</svg></figure>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let svg = bars("CPU", "µs", &[("etcd", 100.0), ("quorate", 25.0)]);
        assert!(svg.contains("width=\"360.0\"") && svg.contains("width=\"90.0\""), "{svg}");
        assert!(svg.contains(">100 µs<") && svg.contains(">25.0 µs<"), "{svg}");
    }

    #[test]
    fn a_line_lies_between_its_axes_and_its_names_are_harmless() {
        let points = vec![(0.0, 0.0), (1.0, 50.0), (2.0, 100.0)];
        let line = Line { name: "<script>", points };
        let svg = lines("a & b", &Axis::linear("s"), &Axis::linear("ops/s"), &[line]);
        assert!(svg.contains("points=\"70.0,206.0 309.0,109.0 548.0,12.0\""), "{svg}");
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script>"), "{svg}");
        assert!(svg.contains("a &amp; b"), "{svg}");
    }

    #[test]
    fn nothing_and_one_point_are_drawn_as_well() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(5.0, 5.0)]] {
            for axis in [Axis::linear("x"), Axis::logarithmic("x")] {
                let svg = lines("t", &axis, &axis, &[Line { name: "n", points: points.clone() }]);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn powers_of_ten_are_evenly_apart() {
        let scale = Scale::of(&Axis::logarithmic("ms"), [0.5, 20.0].into_iter());
        assert_eq!(scale.ticks(), [0.1, 1.0, 10.0, 100.0]);
        assert!((scale.share(1.0) - 1.0 / 3.0).abs() < 1e-9);
    }
}
