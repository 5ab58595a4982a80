//! Named sets and maps of nft's text syntax.

use serde_json::{Value, json};

use super::grammar::{Parser, Place, of_table};
use super::lex::{Token, Wrong};
use super::literal::{said, seconds};
use super::value::Cursor;

impl Parser<'_> {
    pub(super) fn set(&mut self, place: &Place, kind: &str, token: &Token) -> Result<(), Wrong> {
        let name = self.name("the set's name")?;
        let mut set = json!({ "family": place.family, "table": place.table, "name": name });
        if !self.take("{") {
            self.item(json!({ kind: set }), token);
            self.statement();
            return Ok(());
        }
        if let Some(handle) = self.handle() {
            set["handle"] = json!(handle);
        }
        loop {
            if !self.skip_ends() {
                return Err(token.wrong(format!("the `{{` of this {kind} is not closed")));
            }
            if self.take("}") {
                break;
            }
            let here = self.here();
            let key = self.name("a property of the set")?;
            if key == "elements" && !self.take("=") {
                return Err(self.expected("`=`"));
            }
            let (tokens, after) = self.statement();
            let mut cursor = Cursor::new(tokens, &after);
            match key.as_str() {
                "type" | "typeof" => {
                    let (of, data) = split_type(tokens);
                    let read = |tokens: &[Token]| -> Result<Value, Wrong> {
                        if key == "typeof" {
                            return Ok(json!({ "typeof": Cursor::new(tokens, &after).expr()? }));
                        }
                        let names: Vec<String> = said(tokens).split(" . ").map(str::to_owned).collect();
                        Ok(if let [one] = names.as_slice() { json!(one) } else { json!(names) })
                    };
                    set["type"] = read(of)?;
                    if let Some(data) = data {
                        let is_verdict = said(data) == "verdict";
                        set["map"] = if is_verdict { json!("verdict") } else { read(data)? };
                    }
                }
                "elements" => {
                    cursor.skip_newlines();
                    if !cursor.next_is("{") {
                        return Err(cursor.expected("`{`"));
                    }
                    let read = cursor.set()?;
                    set["elem"] = read["set"].clone();
                }
                "flags" => {
                    let flags: Vec<String> = said(tokens).split(" , ").map(str::to_owned).collect();
                    set["flags"] = json!(flags);
                }
                "timeout" | "gc-interval" => {
                    let time = said(tokens);
                    set[key.as_str()] = seconds(&time).map_or(json!(time), |s| json!(s));
                }
                "size" | "policy" | "auto-merge" | "comment" | "counter" | "limit" | "quota" | "ct" | "last" => (),
                _ => return Err(here.wrong(format!("{} is no property of a set", here.says()))),
            }
        }
        self.item(json!({ kind: set }), token);
        Ok(())
    }

    /// `add element F T NAME { … }`
    pub(super) fn elements(&mut self, place: &Place, token: &Token) -> Result<(), Wrong> {
        let name = self.name("the set's name")?;
        let (tokens, after) = self.statement();
        let mut cursor = Cursor::new(tokens, &after);
        if !cursor.next_is("{") {
            return Err(cursor.expected("`{`"));
        }
        let Value::Array(new) = cursor.set()?["set"].take() else { return Ok(()) };
        let set =
            self.out.items.iter_mut().filter(|i| of_table(&i.value, &place.family, &place.table)).find_map(|item| {
                let kind = if item.value.get("set").is_some() { "set" } else { "map" };
                item.value.get_mut(kind).filter(|set| set["name"] == name)
            });
        let Some(set) = set else { return Err(token.wrong(format!("there is no set or map {name} here"))) };
        match set.get_mut("elem").and_then(Value::as_array_mut) {
            Some(old) => old.extend(new),
            None => set["elem"] = Value::Array(new),
        }
        Ok(())
    }
}

/// `KEY : DATA`
fn split_type(tokens: &[Token]) -> (&[Token], Option<&[Token]>) {
    match tokens.iter().position(|t| t.is(":")) {
        Some(at) => (&tokens[..at], Some(&tokens[at + 1..])),
        None => (tokens, None),
    }
}
