//! Columns that line up.

/// Rows below a head, each column as wide as its widest cell, two spaces apart.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let columns = all().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    all().map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["app-01".to_owned(), "a".to_owned()], vec!["x".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["AGENT", "SLOT"], &rows), ["AGENT   SLOT", "app-01  a", "x       b"]);
    }

    #[test]
    fn letters_beyond_ascii_count_once() {
        let rows = [vec!["ä".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows), ["A  B", "ä  b"]);
    }
}
