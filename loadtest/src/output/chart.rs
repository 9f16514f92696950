//! Draws figures as an SVG picture for the docs: panels of horizontal bars, one bar for each server.

use std::fmt::Write as _;

/// Sizes in pixels.
const WIDTH: u32 = 760;
const LABEL: u32 = 110;
const BARS: u32 = 520;
const ROW: u32 = 24;
const TITLE: u32 = 32;
const GAP: u32 = 10;
const MARGIN: u32 = 16;

/// One group of bars.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
    pub(crate) decimals: usize,
}

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Drawn in the strong colour.
    pub(crate) is_ours: bool,
}

/// The picture, as text.
pub(crate) fn chart(title: &str, panels: &[Panel]) -> String {
    let rows: usize = panels.iter().map(|panel| panel.bars.len()).sum();
    let (panel_count, rows) = (pixels(panels.len()), pixels(rows));
    let height = MARGIN + TITLE + panel_count * (MARGIN + 2 * GAP) + rows * ROW + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut y = MARGIN + TITLE / 2;
    text(&mut svg, MARGIN, y, "font-size=\"16\" font-weight=\"bold\"", title);
    y += TITLE / 2;
    for panel in panels {
        y += MARGIN;
        text(&mut svg, MARGIN, y, "font-weight=\"bold\"", &panel.title);
        y += GAP;
        let longest = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        for bar in &panel.bars {
            draw(&mut svg, bar, y, longest, panel.decimals);
            y += ROW;
        }
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, bar: &Bar, y: u32, longest: f64, decimals: usize) {
    let share = if longest > 0.0 { bar.value / longest } else { 0.0 };
    let length = (share * f64::from(BARS)).max(1.0);
    let colour = if bar.is_ours { "#c2410c" } else { "#94a3b8" };
    let left = MARGIN + LABEL;
    text(svg, MARGIN, y + 14, "", &bar.name);
    writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"18\" rx=\"2\" fill=\"{colour}\"/>"
    )
    .expect("writing to a string");
    let behind = f64::from(left) + length + 6.0;
    let value = grouped(bar.value, decimals);
    writeln!(svg, "<text x=\"{behind:.1}\" y=\"{}\">{value}</text>", y + 14)
        .expect("writing to a string");
}

fn text(svg: &mut String, x: u32, y: u32, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {style}>{words}</text>").expect("writing to a string");
}

/// A number with its thousands apart.
fn grouped(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut shown = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown + rest
}

fn pixels(count: usize) -> u32 {
    u32::try_from(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_drawn_to_scale() {
        let bar = |name: &str, value| Bar { name: name.to_owned(), value, is_ours: name == "us" };
        let bars = vec![bar("us", 50.0), bar("them & co", 100.0)];
        let panel = Panel { title: "last, ms".to_owned(), bars, decimals: 1 };
        let svg = chart("Ping", &[panel]);
        assert!(svg.contains("width=\"260.0\"") && svg.contains("width=\"520.0\""));
        assert!(svg.contains("them &amp; co") && svg.contains(">50.0</text>"));
        assert_eq!(svg.matches("#c2410c").count(), 1);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(999.25, 2), "999.25");
        assert_eq!(grouped(0.0, 0), "0");
    }
}
