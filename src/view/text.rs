//! Laying out prose in a given width.

use unicode_width::UnicodeWidthStr;

/// Breaks `text` at spaces into lines of at most `width` columns; a longer word stands alone, whole,
/// so that a command can still be copied.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let wide = word.width();
        if used > 0 && used + 1 + wide > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += wide;
        }
    }
    lines
}

/// `text` wrapped behind `first`, further lines behind as many columns of blank.
pub(crate) fn hang(first: &str, text: &str, width: usize) -> String {
    let indent = first.width();
    let mut out = String::new();
    for (i, line) in wrap(text, width.saturating_sub(indent).max(20)).iter().enumerate() {
        if i == 0 {
            out.push_str(first);
        } else {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_and_keeps_long_words_whole() {
        assert_eq!(hang("- ", "one two three four five", 20), "- one two three four\n  five\n");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefghij b", 5), ["a", "abcdefghij", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
