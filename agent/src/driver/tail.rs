//! The last lines of an instance's output, for the report of its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How many lines; enough for a stack trace's head, and still fits into a report.
const LINES: usize = 20;

/// How far back we look, and so the most that is read.
const WINDOW_BYTES: u64 = 64 * 1024;

/// Longer lines are cut: a report is no log.
const LINE_CHARS: usize = 500;

/// The last lines that were written after `from_bytes`. If the file has been truncated since, from its start.
pub(super) fn tail(path: &Path, from_bytes: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = if from_bytes > length { 0 } else { from_bytes };
    let start = from.max(length.saturating_sub(WINDOW_BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(WINDOW_BYTES).read_to_end(&mut bytes)?;
    Ok(last_lines(&String::from_utf8_lossy(&bytes), start > from))
}

fn last_lines(text: &str, begins_within_a_line: bool) -> Vec<String> {
    let whole = if begins_within_a_line { text.split_once('\n').map_or(text, |(_, rest)| rest) } else { text };
    let lines: Vec<&str> = whole.lines().collect();
    let first = lines.len().saturating_sub(LINES);
    lines[first..].iter().map(|line| line.chars().take(LINE_CHARS).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(content: &str, from: u64) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        tail(file.path(), from).expect("a tail")
    }

    #[test]
    fn the_last_twenty_lines_are_kept_in_order() {
        let content: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let lines = tail_of(&content, 0);
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].as_str()), (20, "line 80", "line 99"));
    }

    #[test]
    fn an_earlier_instances_lines_in_the_same_file_are_left_out() {
        assert_eq!(tail_of("theirs\nours\n", 7), ["ours"]);
        assert_eq!(tail_of("theirs\n", 7), [""; 0]);
    }

    #[test]
    fn a_file_truncated_meanwhile_is_read_from_its_start() {
        assert_eq!(tail_of("fresh\n", 5000), ["fresh"]);
    }

    #[test]
    fn long_content_is_cut_at_line_borders_and_long_lines_are_shortened() {
        let content = format!("{}\n{}\nend", "a".repeat(70_000), "b".repeat(1000));
        let lines = tail_of(&content, 0);
        assert_eq!(lines, ["b".repeat(500), "end".to_owned()]);
    }
}
