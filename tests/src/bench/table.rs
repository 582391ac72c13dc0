//! Rows for people.

use std::fmt;

use super::row::{Row, Unit};

/// A bench's rows, with a heading.
#[derive(Debug)]
pub struct Table<'a> {
    /// What was measured, and how often.
    pub heading: &'a str,
    /// The rows.
    pub rows: &'a [Row],
}

const HEAD: [&str; 7] = ["MEASURE", "VALUE", "BESIDE", "VALUE", "RATIO", "AIM", "MET"];
/// Columns of numbers stand to the right.
const NUMBERS: [bool; 7] = [false, true, false, true, true, false, false];

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<[String; 7]> =
            std::iter::once(HEAD.map(str::to_owned)).chain(self.rows.iter().map(cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        writeln!(f, "{}\n", self.heading)?;
        for line in &lines {
            let padded = (0..7).map(|column| {
                let (cell, width) = (&line[column], widths[column]);
                if NUMBERS[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 7] {
    let dash = || "-".to_owned();
    let (beside, beside_value) = match &row.beside {
        Some((what, value)) => (what.clone(), number(*value, row.unit)),
        None => (dash(), dash()),
    };
    let ratio = row.ratio().map_or_else(dash, |ratio| format!("{ratio:.2}"));
    let met = row.met().map_or_else(dash, |met| if met { "yes" } else { "NO" }.to_owned());
    let aim = row.aim_text().unwrap_or_else(dash);
    [row.name.clone(), number(row.value, row.unit), beside, beside_value, ratio, aim, met]
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => format!("{value:.0}"),
        Unit::Percent => format!("{value:.3} %"),
        Unit::Ms if value >= 100.0 => format!("{value:.0} ms"),
        Unit::Ms => format!("{value:.2} ms"),
        Unit::Us => format!("{value:.1} µs"),
        Unit::MiB => format!("{value:.2} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::row::Aim;

    #[test]
    fn columns_line_up_and_a_missed_aim_stands_out() {
        let rows = [
            Row::span("dark window, p50", Duration::from_micros(5120))
                .beside_span("a transaction", Duration::from_millis(2))
                .aim(Aim::AtMost(10.0)),
            Row::new("memory", 11.25, Unit::MiB).beside("etcd", 50.0).aim(Aim::AtMost(10.0)),
            Row::new("lost", 0.0, Unit::Count),
        ];
        let text = Table { heading: "handover: 200 times", rows: &rows }.to_string();
        let expected = "\
handover: 200 times

MEASURE               VALUE  BESIDE             VALUE  RATIO  AIM             MET
dark window, p50    5.12 ms  a transaction    2.00 ms   2.56  at most 10 ms   yes
memory            11.25 MiB  etcd           50.00 MiB   0.23  at most 10 MiB  NO
lost                      0  -                      -      -  -               -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_spans_lose_the_digits_that_mean_nothing() {
        assert_eq!(number(1234.56, Unit::Ms), "1235 ms");
        assert_eq!(number(0.0421, Unit::Percent), "0.042 %");
    }
}
