//! `define x = …` and `$x`.

use std::collections::HashMap;

use super::lex::{Kind, Token, Wrong};

/// Variables may stand for variables: more pieces than this are refused.
const MAX_TOKENS: usize = 500_000;

/// Takes the definitions out and puts the variables' values in.
pub(super) fn expand(tokens: Vec<Token>) -> Result<Vec<Token>, Wrong> {
    let has_variables = tokens.iter().any(|t| matches!(&t.kind, Kind::Word(w) if w == "define" || w.starts_with('$')));
    if !has_variables {
        return Ok(tokens);
    }
    let mut known: HashMap<String, Vec<Token>> = HashMap::new();
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    let mut first = true;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let word = match &token.kind {
            Kind::Word(word) => word.as_str(),
            _ => "",
        };
        if first && matches!(word, "define" | "redefine") {
            let Some(Token { kind: Kind::Word(name), .. }) = tokens.get(at) else {
                return Err(token.wrong("`define` needs a name"));
            };
            if !tokens.get(at + 1).is_some_and(|t| t.is("=")) {
                return Err(token.wrong(format!("`define {name}` needs `=` and a value")));
            }
            at += 2;
            let (mut value, mut depth) = (Vec::new(), 0u32);
            while let Some(token) = tokens.get(at) {
                let ends = matches!(token.kind, Kind::Newline) || token.is(";");
                if ends && depth == 0 {
                    break;
                }
                at += 1;
                depth = if token.is("{") { depth + 1 } else { depth.saturating_sub(u32::from(token.is("}"))) };
                push(token, &known, &mut value)?;
            }
            if value.is_empty() {
                return Err(token.wrong(format!("`define {name}` has no value")));
            }
            known.insert(name.clone(), value);
            continue;
        }
        if first && word == "undefine" {
            at += 1;
            continue;
        }
        first = matches!(token.kind, Kind::Newline) || token.is(";") || token.is("{") || token.is("}");
        push(token, &known, &mut out)?;
        if out.len() > MAX_TOKENS {
            return Err(token.wrong("the variables stand for more than can be read"));
        }
    }
    Ok(out)
}

fn push(token: &Token, known: &HashMap<String, Vec<Token>>, out: &mut Vec<Token>) -> Result<(), Wrong> {
    if let Kind::Word(word) = &token.kind
        && word.contains('$')
    {
        let Some(name) = word.strip_prefix('$') else {
            let mut wrong = token.wrong(format!("a variable within a word is not supported: `{word}`"));
            wrong.fault = wrong.fault.hint("let one variable hold the whole word");
            return Err(wrong);
        };
        let Some(value) = known.get(name) else {
            let mut wrong = token.wrong(format!("the variable ${name} is not defined"));
            wrong.fault = wrong.fault.hint(format!("write `define {name} = …` before it"));
            return Err(wrong);
        };
        if out.len() + value.len() > MAX_TOKENS {
            return Err(token.wrong("the variables stand for more than can be read"));
        }
        let place = |t: &Token| Token { kind: t.kind.clone(), line: token.line, column: token.column };
        out.extend(value.iter().filter(|t| t.kind != Kind::Newline).map(place));
        return Ok(());
    }
    out.push(token.clone());
    Ok(())
}
