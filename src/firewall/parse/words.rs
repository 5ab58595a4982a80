//! Splitting a rule line into words, as iptables-restore does (`add_param_to_argv`).

use super::error::Fault;

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// The word, quotes and escapes resolved.
    pub(super) text: String,
    /// Column in characters, from 1.
    pub(super) column: u32,
    /// It was in quotes, so it is no option and no `!`.
    pub(super) quoted: bool,
}

impl Word {
    /// Whether the word is an unquoted `text`.
    pub(super) fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }

    /// Whether the word begins an option.
    pub(super) fn is_option(&self) -> bool {
        !self.quoted
            && self.text.len() > 1
            && self.text.starts_with('-')
            && !self.text[1..].starts_with(|c: char| c.is_ascii_digit())
    }
}

/// Splits at blanks; `"…"` keeps blanks, and within it `\` takes the next character as it is.
pub(super) fn split(line: &str) -> Result<Vec<Word>, Fault> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, u32)> = None;
    let mut escaped = false;
    for (column, c) in (1u32..).zip(line.chars()) {
        let start = |word: &mut Option<Word>, quoted: bool| {
            let w = word.get_or_insert(Word { text: String::new(), column, quoted: false });
            w.quoted |= quoted;
        };
        if let Some((open, _)) = quote {
            start(&mut word, true);
            if escaped {
                escaped = false;
                push(&mut word, c);
            } else if c == '\\' && open == '"' {
                escaped = true;
            } else if c == open {
                quote = None;
            } else {
                push(&mut word, c);
            }
        } else if c == '"' || c == '\'' && word.is_none() {
            // iptables-restore knows only `"`; a shell line kept in a file may use `'` too.
            start(&mut word, true);
            quote = Some((c, column));
        } else if c.is_whitespace() {
            words.extend(word.take());
        } else {
            start(&mut word, false);
            push(&mut word, c);
        }
    }
    if let Some((_, column)) = quote {
        return Err(
            Fault::new(column, "this quote is not closed").hint("close it with `\"`; a `\"` inside is written `\\\"`")
        );
    }
    words.extend(word);
    Ok(words)
}

fn push(word: &mut Option<Word>, c: char) {
    if let Some(word) = word {
        word.text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes() {
        let words = |s: &str| split(s).unwrap().into_iter().map(|w| w.text).collect::<Vec<_>>();
        assert_eq!(words(r#"-m comment --comment "a \"b\" \\ c'd""#), ["-m", "comment", "--comment", r#"a "b" \ c'd"#]);
        assert_eq!(words(r#"--log-prefix "x " -j"#), ["--log-prefix", "x ", "-j"]);
        assert_eq!(words("it's"), ["it's"]);
        assert_eq!(words(r#"--comment """#), ["--comment", ""]);
        assert_eq!(split("-A \"x").unwrap_err().column, 4);
    }
}
