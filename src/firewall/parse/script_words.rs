//! The shell's words and commands, as far as rule scripts use them; all else is refused.

use super::error::Fault;

/// A fault and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: u32,
    pub(super) fault: Fault,
}

/// A place in the text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl At {
    pub(super) fn wrong(self, message: impl Into<String>, hint: &str) -> Wrong {
        let fault = Fault::new(self.column, message);
        Wrong { line: self.line, fault: if hint.is_empty() { fault } else { fault.hint(hint) } }
    }
}

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands; quoted or not.
    Plain(String, bool),
    /// `$(…)` or backticks, which only a command that changes no rule may have.
    Output(At),
    /// `$X`, `${X}`, and the default of `${X:-…}`; quoted or not.
    Variable(String, Option<String>, bool),
}

/// A word before its variables are put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) parts: Vec<Part>,
    pub(super) at: At,
}

impl Raw {
    /// The word where it is plain and without quotes.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Plain(text, false)] => Some(text),
            _ => None,
        }
    }
}

/// The text given by `<<EOF`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// The number of its first line.
    pub(super) first: u32,
    pub(super) lines: Vec<String>,
    /// `<<'EOF'`: variables stay as they are.
    pub(super) verbatim: bool,
}

/// What separates commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Word(Raw),
    /// Newline or `;`.
    End(At),
    /// `&&`, `||`, `|`, `&`, `(`, `)`.
    Operator(&'static str, At),
    /// `<<EOF` with its text.
    Document(Document),
    /// `> file`, `< file`: the operator; the file is the next word.
    Redirect(&'static str, At),
}

struct Lexer<'t> {
    lines: Vec<&'t str>,
    chars: Vec<(char, At)>,
    at: usize,
    out: Vec<Piece>,
    /// Documents announced on this line: the word that ends each, and the place to put it.
    documents: Vec<(String, usize, bool)>,
}

/// Splits a script.
pub(super) fn split(text: &str) -> Result<Vec<Piece>, Wrong> {
    let lines: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let mut lexer = Lexer { lines, chars: Vec::new(), at: 0, out: Vec::new(), documents: Vec::new() };
    let mut index = 0;
    while index < lexer.lines.len() {
        index = lexer.logical_line(index)?;
    }
    Ok(lexer.out)
}

impl Lexer<'_> {
    /// Reads one line with those that continue it, and the documents after it; the next line.
    fn logical_line(&mut self, from: usize) -> Result<usize, Wrong> {
        self.chars.clear();
        self.at = 0;
        let mut index = from;
        let mut quote = None;
        loop {
            let line = self.lines.get(index).copied().unwrap_or_default();
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let mut column = 1;
            let comment = quote.is_none() && line.trim_start().starts_with('#');
            let continued = !comment && line.ends_with('\\') && !line.ends_with("\\\\");
            let content = if continued { &line[..line.len() - 1] } else { line };
            for c in content.chars() {
                self.chars.push((c, At { line: number, column }));
                column += 1;
                if comment {
                    continue;
                }
                match quote {
                    None if c == '"' || c == '\'' => quote = Some(c),
                    Some(open) if open == c => quote = None,
                    _ => (),
                }
            }
            index += 1;
            if index >= self.lines.len() || !continued && quote.is_none() {
                break;
            }
            if quote.is_some() && !continued {
                let at = At { line: number, column };
                self.chars.push(('\n', at));
            }
        }
        self.pieces()?;
        let end = At { line: u32::try_from(index).unwrap_or(u32::MAX), column: 1 };
        self.out.push(Piece::End(end));
        for (word, place, verbatim) in std::mem::take(&mut self.documents) {
            let start = index;
            let mut lines = Vec::new();
            loop {
                let Some(line) = self.lines.get(index) else {
                    let at = At { line: u32::try_from(start).unwrap_or(1), column: 1 };
                    return Err(at.wrong(format!("no line `{word}` ends the text given by `<<{word}`"), ""));
                };
                index += 1;
                if line.trim_start_matches('\t') == word {
                    break;
                }
                lines.push((*line).to_owned());
            }
            if let Some(piece) = self.out.get_mut(place) {
                let first = u32::try_from(start + 1).unwrap_or(u32::MAX);
                *piece = Piece::Document(Document { first, lines, verbatim });
            }
        }
        Ok(index)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).map(|(c, _)| *c)
    }

    fn pieces(&mut self) -> Result<(), Wrong> {
        while let Some((c, at)) = self.chars.get(self.at).copied() {
            let two = self.peek(1);
            let (piece, length) = match (c, two) {
                (c, _) if c.is_whitespace() => {
                    self.at += 1;
                    continue;
                }
                ('#', _) => return Ok(()),
                (';', _) => (Piece::End(at), 1),
                ('&', Some('&')) => (Piece::Operator("&&", at), 2),
                ('&', Some('>')) => (Piece::Redirect("&>", at), 2),
                ('|', Some('|')) => (Piece::Operator("||", at), 2),
                ('&', _) => (Piece::Operator("&", at), 1),
                ('|', _) => (Piece::Operator("|", at), 1),
                ('(', _) => (Piece::Operator("(", at), 1),
                (')', _) => (Piece::Operator(")", at), 1),
                ('<', Some('<')) => {
                    self.document(at)?;
                    continue;
                }
                ('<', _) => (Piece::Redirect("<", at), 1),
                ('>', Some('>' | '&')) => (Piece::Redirect(">", at), 2),
                ('>', _) => (Piece::Redirect(">", at), 1),
                ('1' | '2', Some('>')) => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let raw = self.word(at)?;
                    self.out.push(Piece::Word(raw));
                    continue;
                }
            };
            self.at += length;
            self.out.push(piece);
        }
        Ok(())
    }

    /// `<<EOF`, `<<-'EOF'`
    fn document(&mut self, at: At) -> Result<(), Wrong> {
        self.at += 2;
        if self.peek(0) == Some('<') {
            return Err(at.wrong("`<<<` is not supported here", "write the rules as commands"));
        }
        while self.peek(0).is_some_and(|c| c == '-' || c == ' ' || c == '\t') {
            self.at += 1;
        }
        let (mut word, mut verbatim) = (String::new(), false);
        while let Some(c) = self.peek(0).filter(|c| !c.is_whitespace() && !";|&<>".contains(*c)) {
            if "\"'\\".contains(c) {
                verbatim = true;
            } else {
                word.push(c);
            }
            self.at += 1;
        }
        if word.is_empty() {
            return Err(at.wrong("`<<` needs the word that ends the text", ""));
        }
        self.documents.push((word, self.out.len(), verbatim));
        self.out.push(Piece::End(at));
        Ok(())
    }

    fn word(&mut self, at: At) -> Result<Raw, Wrong> {
        let mut raw = Raw { parts: Vec::new(), at };
        let mut quote: Option<(char, At)> = None;
        let mut text = String::new();
        let mut text_quoted = false;
        let flush = |raw: &mut Raw, text: &mut String, quoted: bool, force: bool| {
            if !text.is_empty() || force {
                raw.parts.push(Part::Plain(std::mem::take(text), quoted));
            }
        };
        while let Some((c, here)) = self.chars.get(self.at).copied() {
            match (quote, c) {
                (None, c) if c.is_whitespace() || ";|&<>()".contains(c) => break,
                (None, '"' | '\'') => {
                    flush(&mut raw, &mut text, false, false);
                    quote = Some((c, here));
                    text_quoted = true;
                }
                (Some((open, _)), c) if c == open => {
                    let only = raw.parts.is_empty();
                    flush(&mut raw, &mut text, true, only);
                    quote = None;
                    text_quoted = false;
                }
                (None | Some(('"', _)), '\\') => {
                    self.at += 1;
                    if let Some(next) = self.peek(0) {
                        if quote.is_some() && !"\"\\$`".contains(next) {
                            text.push('\\');
                        }
                        text.push(next);
                    }
                }
                (None | Some(('"', _)), '`') => {
                    flush(&mut raw, &mut text, text_quoted, false);
                    raw.parts.push(Part::Output(here));
                    self.at += 1;
                    while self.peek(0).is_some_and(|c| c != '`') {
                        self.at += 1;
                    }
                }
                (None | Some(('"', _)), '$') => {
                    flush(&mut raw, &mut text, text_quoted, false);
                    let variable = self.variable(here, quote.is_some())?;
                    raw.parts.push(variable);
                    continue;
                }
                (None, '{') if self.peek(1) != Some('}') && self.rest_of_word().contains([',', '.']) => {
                    return Err(here.wrong("`{…}` lists are not supported here", "write a line for each"));
                }
                (_, c) => text.push(c),
            }
            self.at += 1;
        }
        if let Some((_, at)) = quote {
            return Err(at.wrong("this quote is not closed", ""));
        }
        flush(&mut raw, &mut text, false, false);
        Ok(raw)
    }

    fn rest_of_word(&self) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        rest.iter().map(|(c, _)| *c).take_while(|c| !c.is_whitespace() && *c != '}').take(200).collect()
    }

    /// At a `$`.
    fn variable(&mut self, at: At, quoted: bool) -> Result<Part, Wrong> {
        self.at += 1;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match self.peek(0) {
            Some('(') => {
                let mut depth = 0u32;
                while let Some(c) = self.peek(0) {
                    self.at += 1;
                    match c {
                        '(' => depth += 1,
                        ')' if depth <= 1 => break,
                        ')' => depth -= 1,
                        _ => (),
                    }
                }
                Ok(Part::Output(at))
            }
            Some('{') => {
                self.at += 1;
                let mut inner = String::new();
                loop {
                    match self.peek(0) {
                        Some('}') => break,
                        Some(c) => inner.push(c),
                        None => return Err(at.wrong("`${` is not closed", "")),
                    }
                    self.at += 1;
                }
                self.at += 1;
                let (name, default) = match inner.split_once(":-") {
                    Some((name, default)) => (name, Some(default.trim_matches('"').to_owned())),
                    None => (inner.as_str(), None),
                };
                let plain =
                    !name.is_empty() && name.chars().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit());
                if !plain || default.as_deref().is_some_and(|d| d.contains(['$', '`'])) {
                    return Err(
                        at.wrong(format!("`${{{inner}}}` is not supported here"), "plain variables are: `$X`, `${X}`")
                    );
                }
                Ok(Part::Variable(name.to_owned(), default, quoted))
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let mut name = String::new();
                while let Some(c) = self.peek(0).filter(|c| is_name(*c)) {
                    name.push(c);
                    self.at += 1;
                }
                Ok(Part::Variable(name, None, quoted))
            }
            Some(c) if c.is_ascii_digit() || "@*#?$!-".contains(c) => {
                Err(at.wrong(format!("`${c}` depends on how the script is run"), "write the value itself"))
            }
            _ => Ok(Part::Plain("$".to_owned(), quoted)),
        }
    }
}
